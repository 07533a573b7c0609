"""A server elsewhere: where its URL leads, the key it is shown, and what its list of models means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.remote import RemoteWatch, origin_of, plan_remote, read_key
from serving.engines.spec import EngineSpec, Origin
from serving.engines.supervisor import Loading
from serving.errors import BadSettings, EngineUnavailable
from serving.gateway.engine import listing_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://10.0.0.7:8000", Origin("10.0.0.7", 8000)),
        ("http://host/v1", Origin("host", 80)),
        ("https://host/v1/", Origin("host", 443, is_tls=True)),
        ("https://host:8443/llm/v1", Origin("host", 8443, is_tls=True, prefix="/llm")),
        ("http://[::1]:8000/", Origin("::1", 8000)),
    ],
)
def test_a_base_url_is_read_as_clients_write_it(url: str, origin: Origin) -> None:
    """With `/v1` or without; and what is printed leads to the same place."""
    assert origin_of(url) == origin
    assert origin_of(str(origin)) == origin


@pytest.mark.parametrize(
    "url",
    [
        "host:8000",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://user:secret@host",
        "http://host/?key=secret",
        "http://host/a b",
        "http://höst",
        "http://host/\r\nx: y",
    ],
)
def test_what_is_no_such_url_is_refused(url: str) -> None:
    """And a secret in it is not repeated."""
    with pytest.raises(BadSettings) as caught:
        origin_of(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader_or_the_request_line(text: str) -> None:
    """It is a URL without white space or line ends, or refused."""
    try:
        origin = origin_of(text)
    except BadSettings:
        return
    assert str(origin).isascii()
    assert str(origin).isprintable()
    assert " " not in str(origin)


def test_a_key_is_read_from_a_file_that_is_nobody_elses(tmp_path: Path) -> None:
    """One line of printable characters; and it is not shown where the engine is."""
    path = tmp_path / "key"
    path.write_text("sk-abc\n")
    path.chmod(0o644)
    with pytest.raises(BadSettings, match="others may read"):
        read_key(path)
    path.chmod(0o600)
    assert read_key(path) == "sk-abc"
    assert "sk-abc" not in repr(plan_remote("m", "http://host", path))
    for content in ("", "two words", "a\r\nb: c"):
        path.write_text(content)
        with pytest.raises(BadSettings):
            read_key(path)
    with pytest.raises(BadSettings):
        read_key(tmp_path / "none")


@pytest.mark.parametrize(
    ("status", "body", "stage"),
    [
        (200, b'{"data": [{"id": "a"}, {"id": "b"}]}', "it serves `a`, `b`, not `m`"),
        (200, b'{"data": []}', "it serves nothing, not `m`"),
        (200, b"<html>", "it gives no list of models"),
        (200, b'{"data": [{"id": "a\\u001b"}]}', "it serves other models, not `m`"),
        (401, b"", "it wants a key"),
        (403, b"", "it refuses the key"),
        (502, b"", "its list of models is answered with status 502"),
    ],
)
def test_what_is_wrong_is_said(status: int, body: bytes, stage: str) -> None:
    """In words for a terminal, whatever it answers."""
    seen = listing_of("m", status, body)
    assert (seen.ready, seen.stage) == (False, stage)


def test_it_is_ready_where_it_lists_the_model() -> None:
    """With the context that it tells of."""
    body = json.dumps({"data": [{"id": "x"}, {"id": "m", "max_model_len": 4096}]}).encode()
    seen = listing_of("m", 200, body)
    assert (seen.ready, dict(seen.facts)) == (True, {"n_ctx_seq": 4096})


class Answers:
    """Answers probes from a list, the last one for ever; notes what is told."""

    def __init__(self, *answers: Loading | None) -> None:
        self.left = list(answers)
        self.told: list[str] = []
        self.on_last: Callable[[], None] = lambda: None

    async def __call__(self, _spec: EngineSpec) -> Loading | None:
        if len(self.left) == 1:
            self.on_last()
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def on_progress(self, _model: str, _fraction: float, stage: str) -> None:
        self.told.append(stage)

    def on_engine_event(self, text: str) -> None:
        self.told.append(text)


UP, WANTS = Loading(ready=True, facts={"n_ctx_seq": 8}), Loading(ready=False, stage="it wants a key")


async def phases_of(*answers: Loading | None, start_timeout_s: float = 60) -> tuple[RemoteWatch, Answers, list[str]]:
    """The phases that a watch went through, until they stood still."""
    seen: list[str] = []
    script = Answers(*answers)
    spec = plan_remote("m", "http://host:1")
    watch = RemoteWatch(
        spec,
        script,
        script,
        start_timeout_s=start_timeout_s,
        every_s=0.001,
        on_change=lambda state: seen.append(state.phase),
    )
    script.on_last = watch.stop
    await watch.run()
    return watch, script, seen


def test_it_goes_and_comes_back() -> None:
    """Each once told; a life for each time; requests are refused with a time meanwhile."""
    watch, script, seen = asyncio.run(phases_of(None, WANTS, WANTS, UP, UP, None, None, UP, UP))
    assert seen == ["ready", "backoff", "ready", "stopped"]
    assert script.told == [
        "waiting for http://host:1: nobody answers there",
        "waiting for http://host:1: it wants a key",
        "the server of m no longer answers",
        "the server of m answers again",
    ]
    assert watch.state.life == 2
    with pytest.raises(EngineUnavailable) as caught:
        watch.check_ready()
    assert caught.value.retry_after_s


def test_what_never_answers_is_given_up_with_what_it_said() -> None:
    """After the time for a start; what had answered once is waited for without end."""
    watch, _, seen = asyncio.run(phases_of(WANTS, WANTS, WANTS, WANTS, start_timeout_s=0))
    assert seen == ["given_up"]
    assert "it wants a key" in str(watch.state.failure)
    watch, _, seen = asyncio.run(phases_of(UP, *[None] * 8, start_timeout_s=0))
    assert seen == ["ready", "backoff", "stopped"]


def test_the_context_is_known_while_it_answers() -> None:
    """What the list says of the model is what `/v1/models` here can say."""

    async def kept() -> Mapping[str, object]:
        script = Answers(UP)
        watch = RemoteWatch(plan_remote("m", "http://host"), script, script, every_s=0.001)
        task = asyncio.create_task(watch.run())
        state = await watch.wait_settled()
        watch.check_ready()
        watch.stop()
        await task
        return state.facts

    assert asyncio.run(kept()) == {"n_ctx_seq": 8}
