"""How many tokens a text has for the server: by its own tokenizer, by one here, or by what its usage says.

In this order, since only the first is sure to be the server's: `/tokenize` in vLLM's form, which is ours too;
llama-server's, with `/apply-template` for conversations; a tokenizer file that the user names, or llama-cpp-python's
count, which know nothing of a conversation's frame, so one request tells how much that is; and where nobody counts, two
requests tell how many tokens a word has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from serving.bench.answer import PATHS, whole_answer, words_of
from serving.bench.prompts import Count, Writer
from serving.errors import BadFile, FileMissing, UsageError
from serving.gateway.upstream import EngineBroke, Upstream

CountedBy = Literal["server", "local", "usage", "none"]
_PROBE_WORDS: Final = (20, 120)


@dataclass(frozen=True, slots=True)
class Counting:
    """Who counts, and how."""

    by: CountedBy
    prompt: Count
    """Tokens of a prompt with this text, as the route frames it."""
    text: Count | None
    """Tokens of the bare text; None where nobody can tell."""

    @property
    def is_exact(self) -> bool:
        """Whether a prompt has as many tokens as it says, and not about as many."""
        return self.by in ("server", "local")


@dataclass(frozen=True, slots=True)
class Asking:
    """How a server is asked."""

    upstream: Upstream
    model: str
    route: Literal["chat", "completions"]
    head: str = ""
    """Header lines, each with its CRLF."""
    timeout_s: float = 600.0

    async def json(self, path: str, body: object) -> dict[str, Any] | None:
        """The object that a POST is answered with; None for anything else. Raises EngineBroke where nobody is there."""
        status, value = await self._post(path, body)
        return value if status == 200 else None

    async def refusal(self) -> tuple[int, str] | None:
        """Ask for one token: None where it is given, else the status and what was said."""
        status, value = await self._post(PATHS[self.route], {**self.asked("a"), "max_tokens": 1})
        if status == 200:
            return None
        return status, words_of((value or {}).get("error", ""))

    async def _post(self, path: str, body: object) -> tuple[int, dict[str, Any] | None]:
        """The status, and the object in the answer where there is one."""
        head = f"content-type: application/json\r\n{self.head}"
        status, raw = await whole_answer(self.upstream, "POST", path, head, json.dumps(body).encode(), self.timeout_s)
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            return status, None
        return status, value if isinstance(value, dict) else None

    def asked(self, text: str) -> dict[str, object]:
        """The fields of a request with this text alone."""
        if self.route == "chat":
            return {"model": self.model, "messages": [{"role": "user", "content": text}]}
        return {"model": self.model, "prompt": text}


async def find_counting(asking: Asking, tokenizer: Path | None) -> Counting:
    """The best that there is. Raises what `local_tokenizer` does, and EngineBroke where nobody is there."""
    for count in (_of_vllm, _of_llama_server):
        if await count(asking, "a", framed=True) is not None:
            return Counting("server", _or_fail(asking, count, framed=True), _or_fail(asking, count, framed=False))
    bare: Count | None = None if tokenizer is None else local_tokenizer(tokenizer)
    if bare is None and await _of_llama_cpp_python(asking, "a", framed=False) is not None:
        bare = _or_fail(asking, _of_llama_cpp_python, framed=False)
    if bare is not None:
        return await _framed(asking, bare, "server" if tokenizer is None else "local")
    return await _by_usage(asking)


_Counter = Callable[..., Awaitable[int | None]]


async def _of_vllm(asking: Asking, text: str, *, framed: bool) -> int | None:
    body = asking.asked(text) if framed else {"model": asking.model, "prompt": text, "add_special_tokens": False}
    return _count_in(await asking.json("/tokenize", body))


async def _of_llama_server(asking: Asking, text: str, *, framed: bool) -> int | None:
    if framed and asking.route == "chat":
        applied = await asking.json("/apply-template", asking.asked(text))
        if applied is None or not isinstance(applied.get("prompt"), str):
            return None
        text = applied["prompt"]
    answer = await asking.json("/tokenize", {"content": text, "add_special": framed, "parse_special": framed})
    tokens = (answer or {}).get("tokens")
    return len(tokens) if isinstance(tokens, list) else None


async def _of_llama_cpp_python(asking: Asking, text: str, *, framed: bool) -> int | None:
    del framed
    found = _count_in(await asking.json("/extras/tokenize/count", {"model": asking.model, "input": text}))
    return None if found is None else max(0, found - 1)  # the token that begins a sequence is in it


def _or_fail(asking: Asking, count: _Counter, *, framed: bool) -> Count:
    async def counted(text: str) -> int:
        found = await count(asking, text, framed=framed)
        if found is None:
            raise EngineBroke("it no longer counts tokens")
        return found

    return counted


def _count_in(answer: dict[str, Any] | None) -> int | None:
    """The count of vLLM's form. llama-server answers what it does not understand, too: with no tokens, and no count."""
    count = (answer or {}).get("count")
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def local_tokenizer(path: Path) -> Count:
    """Counts by a GGUF file's vocabulary, or by a `tokenizer.json`. Raises FileMissing, BadFile or UsageError."""
    if not path.exists():
        raise FileMissing(f"there is no tokenizer `{path}`", hint="name a GGUF file, or a tokenizer.json")
    if path.is_dir():
        path /= "tokenizer.json"
    count = _of_tokenizer_json(path) if path.suffix == ".json" else _of_gguf(path)

    async def counted(text: str) -> int:
        return count(text)

    return counted


def _of_gguf(path: Path) -> Callable[[str], int]:
    from serving.llamacpp.binding import LoadError, Model, start_backend  # noqa: PLC0415 - it loads a library

    start_backend()  # which keeps llama.cpp's log to itself
    try:
        model = Model(path, vocab_only=True)
    except LoadError as error:
        raise BadFile(f"`{path}` cannot be read as GGUF: {error}", hint="name a whole GGUF file") from None
    return lambda text: len(model.tokenize(text.encode(), add_special=False, parse_special=False))


def _of_tokenizer_json(path: Path) -> Callable[[str], int]:
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - an extra package, wanted here alone
    except ImportError:
        hint = "pip install tokenizers, or name a GGUF file"
        raise UsageError(f"`{path}` wants the package tokenizers, which is not installed", hint=hint) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - it raises Exception itself
        raise BadFile(f"`{path}` is not a tokenizer: {error}", hint="name a whole tokenizer.json") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


async def _framed(asking: Asking, bare: Count, by: CountedBy) -> Counting:
    """What a conversation puts around a text, by the usage of one request."""
    text = Writer("frame").words(_PROBE_WORDS[0])
    told = await _usage_of(asking, text)
    around = 0 if told is None else max(0, told - await bare(text))

    async def count(text: str) -> int:
        return around + await bare(text)

    return Counting(by, count, bare)


async def _by_usage(asking: Asking) -> Counting:
    """So many tokens a character, and so many around, by the usage of two requests; a guess where that is silent."""
    texts = [Writer("usage").words(words) for words in _PROBE_WORDS]
    told = [await _usage_of(asking, text) for text in texts]
    short, long = told
    around, each, by = 0.0, 0.25, "none"
    if short is not None and long is not None and long > short:
        each = (long - short) / (len(texts[1]) - len(texts[0]))
        around, by = max(0.0, short - each * len(texts[0])), "usage"

    async def count(text: str) -> int:
        await asyncio.sleep(0)
        return max(1, round(around + each * len(text)))

    return Counting("usage" if by == "usage" else "none", count, None)


async def _usage_of(asking: Asking, text: str) -> int | None:
    answer = await asking.json(PATHS[asking.route], {**asking.asked(text), "max_tokens": 1})
    usage = (answer or {}).get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None
