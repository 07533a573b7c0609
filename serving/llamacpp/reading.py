"""How the text of a chat's answers is read: by which parser, held to which grammar, with which control tokens shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from serving.generation.compiler import Grammar, format_grammar
from serving.generation.grammar import grammar_for
from serving.generation.parsers import AnswerParser, special_texts, thinking_of
from serving.generation.template import Piece
from serving.llamacpp.binding import Model
from serving.openai import ChatRequest

_TAIL_CHARS: Final = 64
"""Of a prompt, to see whether it ends inside a reasoning that its template has opened."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of the way a model writes, by vLLM's names of the parsers."""

    tool_parser: str | None = None
    reasoning_parser: str | None = None
    control_tokens: Mapping[str, int] = field(default_factory=dict)
    """Ids of the vocabulary's control tokens, by their texts."""
    shown: Mapping[int, bytes] = field(default_factory=dict)
    """Control tokens that a parser has to see, and their texts."""

    def reader(self, body: ChatRequest, *, starts_in_reasoning: bool) -> AnswerParser | None:
        """What reads one answer; None where its text is its content."""
        tool_parser = self.tool_parser if body.tools else None
        if tool_parser is None and self.reasoning_parser is None:
            return None
        return AnswerParser(
            tool_parser, self.reasoning_parser, tools=body.tools, starts_in_reasoning=starts_in_reasoning
        )

    def grammar(self, body: ChatRequest, *, starts_in_reasoning: bool) -> Grammar | None:
        """What the answer is held to; None where it is free. Raises InvalidRequest, UnsupportedFeature."""
        if not body.tools and self.reasoning_parser is None:
            return format_grammar(body.response_format)
        text = grammar_for(
            response_format=body.response_format,
            tools=body.tools,
            tool_choice=body.tool_choice,
            parallel_tool_calls=body.parallel_tool_calls,
            tool_parser=self.tool_parser,
            reasoning_parser=self.reasoning_parser,
            control_tokens=self.control_tokens,
            starts_in_reasoning=starts_in_reasoning,
        )
        return None if text is None else Grammar(text, "tools" if body.tools else "response_format")

    def opens_reasoning(self, prompt: Sequence[Piece]) -> bool:
        """Whether the prompt ends inside a reasoning that its template has begun."""
        thinking = thinking_of(self.reasoning_parser)
        tail = "".join(piece.text for piece in prompt[-4:])[-_TAIL_CHARS:].rstrip()
        return thinking is not None and tail.endswith(tuple(thinking.starts))


def reading_of(model: Model, tool_parser: str | None, reasoning_parser: str | None) -> Reading:
    """The reading of a loaded model's answers."""
    vocabulary = model.vocabulary()
    control = {vocabulary.pieces[token].decode("utf-8", "replace"): token for token in vocabulary.control}
    shown = {control[text]: text.encode() for text in special_texts(tool_parser, reasoning_parser) if text in control}
    return Reading(tool_parser, reasoning_parser, control, shown)
