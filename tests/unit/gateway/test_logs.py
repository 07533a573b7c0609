"""Log lines: structured, with the request's id, and without anything that an exception quotes."""

import io
import json
import logging

import pytest

from serving.telemetry import logs


@pytest.fixture
def stream():
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    stream = io.StringIO()
    yield stream
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])


def test_a_json_line_has_its_facts(stream: io.StringIO) -> None:
    """Time, level, logger and event, then the facts, then the bound request id."""
    logs.setup("json", "info", stream)
    token = logs.request_id.set("r-1")
    logging.getLogger("a.b").info("request", extra=logs.facts(status=200, model=None))
    logs.request_id.reset(token)
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "a.b",
        "event": "request",
        "status": 200,
        "model": None,
        "request_id": "r-1",
    }


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_exception_is_logged_without_its_message(stream: io.StringIO, form: str) -> None:
    """The message may quote a prompt; type and place are enough to find the fault."""
    logs.setup(form, "info", stream)
    try:
        int("my secret prompt")
    except ValueError:
        logging.getLogger("x").exception("request failed")
    assert "secret" not in stream.getvalue()
    assert "ValueError" in stream.getvalue()
    assert "test_logs.py:" in stream.getvalue()


def test_a_text_line_is_one_line(stream: io.StringIO) -> None:
    """Facts with spaces or line breaks are quoted, so that a value cannot forge a line."""
    logs.setup("text", "info", stream)
    logging.getLogger("x").info("hello", extra=logs.facts(what="a b\nc", n=1.23456789, none=None))
    (line,) = stream.getvalue().splitlines()
    assert line.endswith('info    hello what="a b\\nc" n=1.235')
