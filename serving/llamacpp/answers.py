"""What the engine brought for a request, as the bytes of its answer: `n` choices, whole or streamed.

The text of a choice that may hold tool calls or reasoning is read here, on its way (`reading.py`); such a choice does
not take the short way out (`line.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from serving.errors import InternalError, ServingError
from serving.generation.parsers import (
    AnswerParser,
    CallArguments,
    CallStart,
    Content,
    Delta,
    Reasoning,
    fold,
)
from serving.llamacpp.binding import Model
from serving.llamacpp.engine import Update
from serving.llamacpp.line import Collected
from serving.openai import ChatRequest, CompletionRequest, Usage, responses
from serving.openai.logprobs import ChatLogprobs, CompletionLogprobs

Body = ChatRequest | CompletionRequest


class StreamedChoice:
    """One choice of a streamed answer: updates in, chunks out."""

    __slots__ = ("_logprobs", "_reader", "chunks")

    def __init__(
        self,
        chunks: responses.ChatStream | responses.CompletionStream,
        logprobs: ChatLogprobs | CompletionLogprobs | None,
        reader: AnswerParser | None,
    ) -> None:
        self.chunks = chunks
        self._logprobs = logprobs
        self._reader = reader

    def take(self, update: Update) -> bytes:
        """The chunks that this update makes; often one, sometimes none."""
        likely = None
        if self._logprobs is not None and update.logprobs:
            likely = self._logprobs.body(update.logprobs)
        if self._reader is not None and isinstance(self.chunks, responses.ChatStream):
            return self._read(self._reader, self.chunks, update, likely)
        data = b""
        if update.text:
            data = self.chunks.text(update.text) if likely is None else self.chunks.likely(update.text, likely)
            likely = None
        if update.finish is not None and update.finish != "error":
            data += self.chunks.finish(update.finish, likely)
        return data

    def _read(
        self, reader: AnswerParser, chunks: responses.ChatStream, update: Update, likely: responses.Logprobs | None
    ) -> bytes:
        deltas = reader.push(update.text) if update.text else []
        if update.finish is not None and update.finish != "error":
            deltas += reader.finish()
        # Tokens and deltas do not begin and end together; the log-probabilities come first, in a chunk of their own.
        parts = [] if likely is None else [chunks.likely("", likely)]
        parts += [_chunk_of(chunks, delta) for delta in deltas]
        if update.finish is not None and update.finish != "error":
            parts.append(chunks.finish(reason_of(reader, update)))
        return b"".join(parts)


def _chunk_of(chunks: responses.ChatStream, delta: Delta) -> bytes:
    match delta:
        case Content(text):
            return chunks.text(text)
        case Reasoning(text):
            return chunks.reasoning(text)
        case CallStart(index, call_id, name):
            return chunks.call_start(index, call_id, name)
        case CallArguments(index, text):
            return chunks.call_arguments(index, text)


def reason_of(reader: AnswerParser | None, last: Update) -> responses.FinishReason:
    """Why a choice ended, as OpenAI says it: with calls, unless they were cut."""
    if last.finish == "length":
        return "length"
    return "tool_calls" if reader is not None and reader.whole_calls else "stop"


class StreamedAnswer:
    """All choices of one streamed answer."""

    __slots__ = ("_body", "_has_begun", "_last", "_prompt_length", "choices", "failed")

    def __init__(
        self, body: Body, model: Model, alias: str, prompt_length: int, readers: Sequence[AnswerParser | None]
    ) -> None:
        is_chat = isinstance(body, ChatRequest)
        kind = responses.ChatStream if is_chat else responses.CompletionStream
        response_id, created = responses.new_id("chatcmpl" if is_chat else "cmpl"), int(time.time())
        self.choices = [
            StreamedChoice(kind(response_id, alias, created, index=index), logprobs_of(body, model), reader)
            for index, reader in enumerate(readers)
        ]
        self._body = body
        self._prompt_length = prompt_length
        self._has_begun = False
        self._last: dict[int, Update] = {}
        self.failed = False
        """A choice has failed, and the answer with it."""

    @property
    def is_over(self) -> bool:
        """Nothing follows."""
        return self.failed or len(self._last) == len(self.choices)

    def take(self, updates: Sequence[tuple[int, Update]]) -> bytes:
        """What is to be written for these updates, (index of the choice, what it brought), in their order."""
        parts = [] if self._has_begun else [choice.chunks.start() for choice in self.choices]
        self._has_begun = True
        for index, update in updates:
            parts.append(self.choices[index].take(update))
            if update.finish == "error":
                parts.append(responses.error_event(failure(update)))
                self.failed = True
                break
            if update.finish is not None:
                self._last[index] = update
        if self.is_over and not self.failed:
            if self._body.include_usage:
                parts.append(self.choices[0].chunks.usage(usage_of(self._prompt_length, self._last)))
            parts.append(responses.DONE)
        return b"".join(parts)


def failure(update: Update) -> ServingError:
    """What a client is told of a choice that ended in an error."""
    return update.error or InternalError("the engine failed on this answer")


def whole_answer(
    body: Body,
    model: Model,
    alias: str,
    collected: Sequence[Collected],
    last: Mapping[int, Update],
    readers: Sequence[AnswerParser | None],
    prompt_length: int,
) -> bytes:
    """The body of an answer that is not streamed; `last` is each choice's end."""
    is_chat = isinstance(body, ChatRequest)
    usage = usage_of(prompt_length, last)
    build = responses.chat_completion if is_chat else responses.completion
    return build(
        response_id=responses.new_id("chatcmpl" if is_chat else "cmpl"),
        model=alias,
        created=int(time.time()),
        choices=[
            whole_choice(body, model, parts, last[index], reader)
            for index, (parts, reader) in enumerate(zip(collected, readers, strict=True))
        ],
        usage=usage,
    )


def whole_choice(
    body: Body, model: Model, collected: Collected, last: Update, reader: AnswerParser | None
) -> responses.Choice:
    """One choice, at its end."""
    text = "".join(collected.parts)
    logprobs = logprobs_of(body, model)
    told = None if logprobs is None else logprobs.body(collected.logprobs)
    if reader is None:
        return responses.Choice(text, reason_of(None, last), logprobs=told)
    read = fold([*reader.push(text), *reader.finish()])
    return responses.Choice(
        read.content, reason_of(reader, last), read.tool_calls, logprobs=told, reasoning=read.reasoning or None
    )


def usage_of(prompt_length: int, last: Mapping[int, Update]) -> Usage:
    """Of all choices together: the prompt once, and what the first of them found of it in the cache."""
    return Usage(prompt_length, sum(update.generated for update in last.values()), last[0].cached)


def logprobs_of(body: Body, model: Model) -> ChatLogprobs | CompletionLogprobs | None:
    """What writes one choice's log-probabilities in the shape of its route; None where they were not asked for."""
    if body.logprobs is None:
        return None
    kind = ChatLogprobs if isinstance(body, ChatRequest) else CompletionLogprobs
    return kind(model.pieces, model.special_piece)
