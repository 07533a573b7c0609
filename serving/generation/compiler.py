"""Grammars and their compilation for one model: off every other thread, bounded in size, time and memory.

Nothing of llguidance is loaded before the first grammar.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

from serving.errors import InvalidRequest, UnsupportedFeature
from serving.openai.strict import serialise

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from serving.generation.constraint import Constraint

MOST_BYTES: Final = 256 << 10
"""Longest grammar. OpenAI takes schemas of 120,000 characters."""
_KEPT: Final = 32
"""Grammars that are kept, compiled or refused: an application asks with the same few again and again."""
_NICE: Final = 10
"""Compiling gives way to computing."""
_TRIAL_S: Final = 30.0
"""Seconds in which a trial must have ended. It is bounded by its own CPU time long before, unless it gets none."""
_TOO_MUCH: Final = "it takes too much time or memory to compile"

_SHOWN_CHARS: Final = 400
_BLANKS: Final = " "
"""Between two parts of JSON at most: more is valid, and what small models fill an answer with."""
_PLACE: Final = re.compile(r"\A(?:at )?\d+\(\d+\): |\n\s*\d+ \| .*", re.DOTALL)
"""Where in our own text an error is; a client sent a schema."""


class Vocabulary(NamedTuple):
    """A model's tokens, as a grammar sees them."""

    pieces: list[bytes]
    """The bytes of each token; a control token's name."""
    control: list[int]
    """Tokens that no text spells: a grammar names them, as `<|im_end|>`."""
    ends: list[int]
    """Tokens that end an answer."""


class Grammar(NamedTuple):
    """What an answer must be, and the field of the request that says so."""

    text: str
    """Lark, as llguidance reads it, with a rule `start`; without a `%llguidance` line, which is added."""
    param: str


def schema_grammar(schema: Mapping[str, object]) -> str:
    """The grammar of JSON that is valid by a schema. Options of llguidance's own may stand in its `x-guidance`."""
    options = schema.get("x-guidance")
    options = {"whitespace_pattern": _BLANKS, **(options if isinstance(options, dict) else {})}
    return "start: %json " + serialise({**schema, "x-guidance": options}).decode()


def format_grammar(response_format: Mapping[str, object] | None) -> Grammar | None:
    """The grammar of a checked `response_format`; None where it asks for plain text."""
    if response_format is None or response_format["type"] == "text":
        return None
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    return Grammar(schema_grammar(schema if isinstance(schema, dict) else {"type": "object"}), "response_format")


def refusal(said: str, param: str) -> InvalidRequest:
    """The error for a grammar that llguidance did not take, in its words."""
    text = " ".join(_PLACE.sub("", said).replace("<non-verbose/>", "").split())
    shown = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
    return InvalidRequest(f"the grammar of `{param}` cannot be followed: {shown}", param=param)


class Grammars:
    """Compiles for one vocabulary, which is asked for with the first grammar."""

    def __init__(self, vocabulary: Callable[[], Vocabulary]) -> None:
        self._read_vocabulary = vocabulary
        self._thread = ThreadPoolExecutor(1, "grammar", initializer=_give_way)
        self._vocabulary: Vocabulary | None = None
        self._tokenizer: LLTokenizer | None = None
        self._trial: Trial | None = None
        self._kept: OrderedDict[tuple[str, Grammar], LLMatcher | InvalidRequest] = OrderedDict()

    async def compile(self, grammar: Grammar, count: int, domain: str) -> list[Constraint]:
        """`count` constraints, each at the beginning of the grammar.

        `domain` is the cache domain of the request: who may not share prefixes cannot tell either, by the time it
        takes, whether a grammar was asked for before. Raises InvalidRequest for a grammar that is wrong, too long, or
        too much work, and UnsupportedFeature where the model has no token that ends an answer.
        """
        size, param = len(grammar.text.encode()), grammar.param
        if size > MOST_BYTES:
            raise InvalidRequest(f"`{param}` makes a grammar of {size} bytes, at most {MOST_BYTES} fit", param=param)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._compile, grammar, count, domain)

    def _compile(self, grammar: Grammar, count: int, domain: str) -> list[Constraint]:
        from serving.generation.constraint import Constraint, tokenizer_of  # noqa: PLC0415 - see there

        if self._vocabulary is None or self._tokenizer is None:
            vocabulary = self._read_vocabulary()
            if not vocabulary.ends:
                raise UnsupportedFeature("the model has no token that ends an answer", param=grammar.param)
            self._vocabulary, self._tokenizer = vocabulary, tokenizer_of(vocabulary)
        key = (domain, grammar)
        made = self._kept.pop(key, None)
        if made is None:
            made = self._make(self._vocabulary, self._tokenizer, grammar)
        self._kept[key] = made
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        if isinstance(made, InvalidRequest):
            raise InvalidRequest(made.message, param=made.param)
        return [Constraint(made.deep_copy(), self._vocabulary, grammar.param) for _ in range(count)]

    def _make(self, vocabulary: Vocabulary, tokenizer: LLTokenizer, grammar: Grammar) -> LLMatcher | InvalidRequest:
        if self._trial is None:
            self._trial = Trial(vocabulary)
        fault = self._trial.fault(grammar.text)
        if fault:
            return refusal(fault, grammar.param)
        from serving.generation.constraint import matcher_of  # noqa: PLC0415

        matcher = matcher_of(tokenizer, grammar.text)
        return refusal(matcher.get_error(), grammar.param) if matcher.is_error() else matcher

    def close(self) -> None:
        """End the process that trials run in, and with it the one that runs."""
        if self._trial is not None:
            self._trial.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._trial is not None:
            self._trial.close()


class Trial:
    """A process (`trial`) in which each grammar is compiled first.

    Compiling cannot be interrupted, and llguidance's limits do not bound all of it: `{"multipleOf": 999983}` takes
    hundreds of MiB, and a larger number all there is.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = json.dumps(
            {**vocabulary._asdict(), "pieces": [piece.decode("latin-1") for piece in vocabulary.pieces]}
        )
        self._process: subprocess.Popen[bytes] | None = None

    def fault(self, grammar: str) -> str:
        """What is wrong with the grammar, empty where nothing is."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        with contextlib.suppress(OSError):
            self._write(process, json.dumps(grammar))
            waiting = select.poll()
            waiting.register(process.stdout, select.POLLIN)  # type: ignore[arg-type]
            if waiting.poll(_TRIAL_S * 1000) and (answer := process.stdout.readline()):  # type: ignore[union-attr]
                return str(json.loads(answer))
        self.close()
        return _TOO_MUCH

    def kill(self) -> None:
        """From any thread: a trial that runs fails."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process; the next trial starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        self.close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.generation.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a panic would print what a client sent
        )
        self._write(self._process, self._vocabulary)
        return self._process

    @staticmethod
    def _write(process: subprocess.Popen[bytes], line: str) -> None:
        if process.stdin is not None:
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()


def _give_way() -> None:
    """Be nicer than the rest, never less nice than one is: behind walls nobody may."""
    me = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, me, max(_NICE, os.getpriority(os.PRIO_PROCESS, me)))
