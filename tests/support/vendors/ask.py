"""What an egress process does with a connector, over plain HTTP: for tests of the connectors against the stand-ins."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager

from serving.egress.vendors import Answered, OutCall, StreamTranslator, Vendor
from serving.egress.vendors.calls import CHAT
from serving.openai import DEFAULT_LIMITS, parse_body
from serving.openai.chat import chat_schema
from serving.openai.limits import Serves
from tests.support.vendors.server import KEY, Emulator

SERVES = Serves(choices=True, logprobs=True, structured_output=True, tools=True)


def chat(model: str, /, **fields: object) -> OutCall:
    """A call as the gateway would let it through: parsed strictly, checked against the closed schema."""
    fields.setdefault("messages", [{"role": "user", "content": "Hello"}])
    raw = json.dumps({"model": "anything", **fields}).encode()
    body = chat_schema(DEFAULT_LIMITS, SERVES).check_object(parse_body(raw), "")
    return OutCall(CHAT, body, model, id="req-1", created=1780000000)


@contextmanager
def sent(vendor: Vendor, server: Emulator, call: OutCall, key: str = KEY) -> Iterator[http.client.HTTPResponse]:
    """The head of the answer to a call."""
    request = vendor.request(call)
    connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=20)
    try:
        headers = dict((*request.headers, *vendor.auth(key)))
        connection.request(request.method, request.path, request.body, headers)
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def ask(vendor: Vendor, server: Emulator, call: OutCall, key: str = KEY) -> Answered:
    """A whole answer."""
    with sent(vendor, server, call, key) as response:
        headers = {name.lower(): value for name, value in response.getheaders()}
        return vendor.answer(call, response.status, headers, response.read())


def listen(vendor: Vendor, server: Emulator, call: OutCall) -> tuple[bytes, StreamTranslator]:
    """A whole stream, as its client receives it, and what translated it."""
    translator = vendor.stream(call)
    out: list[bytes] = []
    with sent(vendor, server, call) as response:
        assert response.status == 200, response.read()
        try:
            while data := response.read1(4096):
                out += translator.feed(data)
        except (http.client.IncompleteRead, ConnectionError):
            pass
    return b"".join([*out, *translator.close()]), translator
