"""Whoever counts tokens best is asked, and a text's frame is learnt where only bare texts can be counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from serving.bench.counting import Asking, Counting, find_counting, local_tokenizer
from serving.engines.spec import Origin
from serving.errors import BadFile, FileMissing
from serving.gateway.upstream import EngineBroke, Upstream

DEMO = Path(__file__).parents[3] / "serving" / "models" / "demo"
FRAME = 11
Routes = dict[str, Callable[[dict[str, Any]], object]]


def tokens(text: str) -> int:
    """Of the servers here: one for each two letters."""
    return -(-len(text) // 2)


def usage(body: dict[str, Any]) -> object:
    """An answer of one token."""
    text = body["messages"][0]["content"] if "messages" in body else body["prompt"]
    return {"usage": {"prompt_tokens": FRAME + tokens(text)}}


def vllm(body: dict[str, Any]) -> object:
    """vLLM's form, and ours."""
    if "messages" in body:
        return {"count": FRAME + tokens(body["messages"][0]["content"]), "tokens": None}
    return {"count": tokens(body["prompt"]) + (FRAME if body.get("add_special_tokens", True) else 0)}


def llama_server(body: dict[str, Any]) -> object:
    """llama-server's: what it does not know has no tokens, and no error."""
    text = body.get("content", "")
    return {"tokens": [0] * tokens(text)}


def apply_template(body: dict[str, Any]) -> object:
    """Likewise."""
    return {"prompt": "<" * (2 * FRAME) + body["messages"][0]["content"]}


def llama_cpp_python(body: dict[str, Any]) -> object:
    """llama-cpp-python's, which counts the token that begins a sequence."""
    return {"count": 1 + tokens(body["input"])}


async def counted(routes: Routes, use: Callable[[Counting], Any], tokenizer: Path | None = None) -> Any:
    """What `use` makes of the counting that is found for a server of these routes."""

    async def answer(request: web.Request) -> web.Response:
        made = routes.get(request.path)
        if made is None:
            return web.Response(status=404, text='{"detail": "Not Found"}')
        return web.Response(text=json.dumps(made(await request.json())))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    upstream = Upstream(Origin("127.0.0.1", runner.addresses[0][1]))
    try:
        return await use(await find_counting(Asking(upstream, "m", "chat"), tokenizer))
    finally:
        upstream.close()
        await runner.cleanup()


CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("routes", "by"),
    [
        ({"/tokenize": vllm, CHAT: usage}, "server"),
        ({"/tokenize": llama_server, "/apply-template": apply_template, CHAT: usage}, "server"),
        ({"/extras/tokenize/count": llama_cpp_python, CHAT: usage}, "server"),
        ({CHAT: usage}, "usage"),
        ({"/tokenize": llama_server, CHAT: usage}, "usage"),
    ],
)
def test_a_server_is_asked_in_the_way_that_it_knows(routes: Routes, by: str) -> None:
    """And each of them comes to the same count, the frame included."""

    async def use(counting: Counting) -> None:
        assert counting.by == by
        text = " word" * 300
        found, truth = await counting.prompt(text), FRAME + tokens(text)
        if counting.is_exact:
            assert found == truth
            assert counting.text is not None
            assert await counting.text("abcd") == 2
        else:
            assert found == pytest.approx(truth, rel=0.01)

    asyncio.run(counted(routes, use))


def test_where_nobody_counts_it_is_a_guess_and_says_so() -> None:
    """No usage, no tokenizer."""

    async def use(counting: Counting) -> None:
        assert counting.by == "none"
        assert not counting.is_exact
        assert await counting.prompt("a" * 400) == 100

    asyncio.run(counted({}, use))


def test_a_gguf_file_counts_for_a_server_that_does_not() -> None:
    """Its vocabulary, and the frame by the usage of one request."""
    path = next(iter(sorted(DEMO.glob("*.gguf"))))

    async def use(counting: Counting) -> None:
        assert counting.by == "local"
        bare = local_tokenizer(path)
        assert await counting.prompt("and so on") - await bare("and so on") == await counting.prompt("") - await bare(
            ""
        )

    asyncio.run(counted({CHAT: usage}, use, path))


def test_a_server_that_stops_counting_is_broken() -> None:
    """Prompts of a length that nobody knows are not sent on."""
    left = [2]

    def tired(body: dict[str, Any]) -> object:
        left[0] -= 1
        return vllm(body) if left[0] >= 0 else {"error": "tired"}

    async def use(counting: Counting) -> None:
        assert await counting.prompt("a") == FRAME + 1
        with pytest.raises(EngineBroke, match="no longer counts"):
            await counting.prompt("a")

    asyncio.run(counted({"/tokenize": tired, CHAT: usage}, use))


def test_a_tokenizer_that_is_none_is_named(tmp_path: Path) -> None:
    """A missing file, one cut in half, a JSON file of something else."""
    with pytest.raises(FileMissing):
        local_tokenizer(tmp_path / "none.gguf")
    (tmp_path / "cut.gguf").write_bytes(next(iter(sorted(DEMO.glob("*.gguf")))).read_bytes()[:5000])
    with pytest.raises(BadFile, match=r"cut\.gguf"):
        local_tokenizer(tmp_path / "cut.gguf")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadFile, match=r"tokenizer\.json"):
        local_tokenizer(tmp_path)
