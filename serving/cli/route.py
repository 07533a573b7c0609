"""`serve egress` and `serve route`."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from serving.cli.options import settings_for
from serving.cli.show import print_json
from serving.egress.asking import HEADER, Ask, write_ask
from serving.egress.process import begin_taint, run
from serving.egress.rooms import Rooms, rooms_of
from serving.errors import FileMissing, StartError, UsageError
from serving.policy.model import Policy
from serving.store.files import write_whole
from serving.telemetry.logs import setup

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Question:
    """As whom a request is explained."""

    model: str
    classes: tuple[str, ...]
    residency: tuple[str, ...]
    domain: str
    is_here: bool = True
    """An engine here can take it."""


def run_egress(config: Path | None, *, as_json: bool) -> int:
    """Serve until told to stop; returns the exit status. Raises ServingError before anything is served."""
    settings = settings_for(config, {"log.format": "json" if as_json else None})
    setup(settings.log.format, settings.log.level)
    rooms = rooms_of(settings, os.environ)

    def on_ready(policy: Policy) -> None:
        if as_json:
            print(json.dumps({"event": "ready", "socket": str(rooms.socket), "policy": policy.digest}), flush=True)
        else:
            state = (
                "nothing leaves: the policy has `cloud` off" if not policy.cloud else "what the policy lets out leaves"
            )
            print(f"listening at {rooms.socket}; policy {policy.digest[:12]}: {state}", flush=True)

    return asyncio.run(run(settings, rooms, on_ready))


def explain_request(file: Path | None, question: Question, config: Path | None, *, as_json: bool) -> int:
    """Print where a request would go, and why. Raises ServingError."""
    settings = settings_for(config)
    raw = _read(file)
    body = _body(raw, question)
    ask = Ask(
        request="explain",
        principal=question.domain,
        key="explain",
        domain=question.domain,
        classes=frozenset(question.classes),
        residency=frozenset(question.residency),
        asked_local=False,
        budget="reserved",
        local=question.is_here,
    )
    told = _asked(rooms_of(settings, os.environ), "/explain", body, ask)
    if as_json:
        print_json(told["explained"])
    else:
        sys.stdout.write(f"{told['text']}\n")
    return 0


def begin_store(config: Path | None) -> int:
    """Begin the store of sensitive texts. Raises StartError."""
    count = begin_taint(rooms_of(settings_for(config), os.environ))
    print(f"the store of sensitive texts begins, with {count:,} fingerprints of before")
    return 0


def throw(config: Path | None, *, is_open: bool) -> int:
    """Throw the kill switch, or put it back. Raises StartError."""
    switch = rooms_of(settings_for(config), os.environ).switch
    try:
        if is_open:
            switch.unlink(missing_ok=True)
        else:
            write_whole(switch, b"", 0o600)  # in place of one that a drill has thrown: it does not put this one back
    except OSError as error:
        raise StartError(
            f"`{switch}` cannot be changed: {error.strerror}", hint="run it as the user of `serve egress`"
        ) from None
    print("what the policy lets out leaves again" if is_open else "nothing leaves any more")
    return 0


def _read(file: Path | None) -> bytes:
    try:
        return sys.stdin.buffer.read() if file is None else file.read_bytes()
    except FileNotFoundError:
        raise FileMissing(f"`{file}` does not exist") from None
    except OSError as error:
        raise UsageError(f"`{file}` cannot be read: {error.strerror}") from None


def _body(raw: bytes, question: Question) -> bytes:
    """A request as it stands, or one that asks the text."""
    with contextlib.suppress(ValueError):
        value = json.loads(raw)
        if isinstance(value, dict) and {"messages", "prompt", "input"} & value.keys():
            return raw
    text = raw.decode("utf-8", "replace")
    return json.dumps({"model": question.model, "messages": [{"role": "user", "content": text}]}).encode()


def _asked(rooms: Rooms, path: str, body: bytes, ask: Ask) -> dict[str, object]:
    connection = http.client.HTTPConnection("egress", timeout=_TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(_TIMEOUT_S)
    headers = {"content-type": "application/json", HEADER: write_ask(ask), "x-egress-path": "/v1/chat/completions"}
    try:
        with contextlib.closing(connection):
            connection.sock.connect(str(rooms.socket))
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            told = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        message = f"no `serve egress` answers at `{rooms.socket}`"
        raise StartError(message, hint="start it, as the user that it is to run as; this asks it") from None
    if answer.status != 200 or not isinstance(told, dict):
        error = told.get("error", {}) if isinstance(told, dict) else {}
        raise UsageError(str(error.get("message", "it does not understand the request")))
    return told
