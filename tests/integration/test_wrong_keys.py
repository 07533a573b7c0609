"""A flood of wrong keys: those with right ones are served, and what it leaves on the disk does not grow with it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from pathlib import Path

import pytest

from benchmarks.keyed import NULL_UPSTREAM, Site, site
from benchmarks.wrong_keys import SOURCES, flood, post, right
from serving.access.keys import new_key
from tests.support.harness import Client


@pytest.mark.parametrize("fresh", [False, True])
def test_wrong_keys_cost_the_record_a_line_for_each_source_and_minute(directory: Path, fresh: bool) -> None:
    """However many there are: all are counted, none is served, and every request with a right key is."""
    rate, seconds = 400.0, 4.0

    async def both(served: Site) -> tuple[dict[str, float], list[float]]:
        key, known = served.keys
        return await asyncio.gather(
            flood(served.address, known, rate=rate, seconds=seconds, fresh=fresh),
            right(served.address, key, rate=30, seconds=seconds, clients=2),
        )

    with site(directory, NULL_UPSTREAM, model="null", keys=2) as served:
        flooded, took = asyncio.run(both(served))
    assert len(took) == 30 * seconds
    assert flooded["answered"] == rate * seconds
    assert flooded["status_401"] + flooded.get("status_429", 0) == flooded["answered"]
    assert fresh or flooded["opened"] <= SOURCES, "a wrong key does not cost a connection"
    lines = [line for path in sorted(served.audit.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    records = [(json.loads(line)["record"], len(line)) for line in lines]
    failed = [(record, size) for record, size in records if record["kind"] == "authentication-failed"]
    minutes = {record["minute"] for record, _ in failed}
    assert sum(record["count"] for record, _ in failed) == flooded["answered"]
    assert len(failed) <= SOURCES * len(minutes)
    assert sum(size for _, size in failed) <= 512 * SOURCES * len(minutes)
    for path in directory.rglob("*"):
        assert not path.is_file() or served.keys[1].rpartition("_")[2].encode() not in path.read_bytes()


def test_a_refused_key_keeps_its_connection_where_the_body_has_come(directory: Path) -> None:
    """The next request follows on it; where the rest of a body is still to come it is closed, and not waited for."""
    with site(directory, NULL_UPSTREAM, model="null", keys=1) as served, contextlib.ExitStack() as stack:
        wire = Client(served.address)
        stack.callback(wire.close)
        wrong, whole = post(new_key()[1]), post(served.keys[0])
        wire.send(wrong)
        assert wire.answer().status == 401
        wire.send(whole)
        assert wire.answer().status == 200
        wire.send(wrong.replace(b"content-length: ", b"content-length: 1"))
        status, headers = wire.head()
        assert (status, headers["connection"]) == (401, "close")
        other = stack.enter_context(contextlib.closing(http.client.HTTPConnection(*served.address, timeout=10)))
        for _ in range(2):
            other.request("GET", "/v1/models", headers={"authorization": "Bearer pk_x"})
            answer = other.getresponse()
            answer.read()
            assert (answer.status, answer.will_close) == (401, False)


def test_a_source_with_too_many_wrong_keys_is_answered_before_anything_is_done_for_it(directory: Path) -> None:
    """As it would be later, counted too; right keys from the same address, and what needs none, are served."""
    with site(directory, NULL_UPSTREAM, model="null", keys=1) as served, contextlib.ExitStack() as stack:
        wire = Client(served.address)
        stack.callback(wire.close)
        wrong, whole, none = post(new_key()[1]), post(served.keys[0]), post(None)
        for _ in range(25):
            wire.send(wrong)
            refused = wire.answer()
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert json.loads(refused.body)["error"]["code"] == "rate_limit_exceeded"
        assert refused.headers["x-request-id"]
        wire.send(wrong.replace(b"\r\n", b"\r\nx-request-id: mine\r\n", 1))
        assert wire.answer().headers["x-request-id"] == "mine"
        for message, status in ((none, 401), (whole, 200), (wrong, 429), (whole, 200)):
            wire.send(message)
            assert wire.answer().status == status
        wire.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer wrong\r\n\r\n")
        assert wire.answer().status == 200
        # In one piece, and in many: the answers come in the order of the requests.
        wire.send(wrong + whole + wrong)
        assert [wire.answer().status for _ in range(3)] == [429, 200, 429]
        for at in range(60):
            wire.send(wrong[at : at + 1])
        wire.send(wrong[60:])
        assert (wire.answer().status, b"POST" in wrong[:60]) == (429, True)
        other = Client(served.address)
        stack.callback(other.close)
        other.send(wrong.replace(b"content-length: ", b"content-length: 1"))
        status, headers = other.head()
        assert (status, headers["connection"]) == (429, "close")
        with contextlib.closing(http.client.HTTPConnection(*served.address, timeout=10)) as metrics:
            metrics.request("HEAD", "/v1/models", headers={"authorization": "Bearer pk_x"})
            answer = metrics.getresponse()
            assert (answer.status, answer.read()) == (429, b"")
