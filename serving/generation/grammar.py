"""What an answer may be, as a grammar for llguidance: from a request's fields to text, or None for anything at all.

The grammar is in llguidance's Lark-like syntax. It is written for one vocabulary, since a text that is a control token
there is matched as that token and never by its letters. Reasoning stays free, what follows is held.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, cast

from serving.errors import InvalidRequest, UnsupportedFeature
from serving.generation.grammar_calls import FORMATS, XML_RULES, XML_VALUE, Offer, Way, Writing, one_of, spelled, term
from serving.generation.grammar_schema import json_rule, object_schema
from serving.generation.parsers import form_of, thinking_of
from serving.generation.parsers.form import Form
from serving.generation.parsers.reasoning import Thinking

GRAMMAR_BYTES: Final = 256 << 10
"""Longest grammar, all schemas included. One of this length takes seconds to compile."""
_FORMAT: Final = "response_format"
_SPACE: Final = r"(/[ \n]{1,4}/)?"


def grammar_for(
    *,
    response_format: Mapping[str, object] | None,
    tools: Sequence[Mapping[str, object]],
    tool_choice: object,
    parallel_tool_calls: bool,
    tool_parser: str | None,
    reasoning_parser: str | None,
    control_tokens: Mapping[str, int],
    starts_in_reasoning: bool = False,
) -> str | None:
    """The grammar that an answer to such a request is held to; None where any answer will do.

    The fields are those of `ChatRequest`, the parsers and `starts_in_reasoning` those of `AnswerParser`;
    `control_tokens` are the ids of the vocabulary's control tokens by their text. A forced call goes before
    `response_format`; where a call is possible and not forced, an answer is one or the other.

    Raises InvalidRequest for a schema that cannot be enforced or is too large, UnsupportedFeature for what cannot be
    forced in the format of `tool_parser`. Each names the field.
    """
    may_call = bool(tools) and tool_choice != "none"
    forced = may_call and tool_choice != "auto"
    held = may_call and (any(_is_strict(tool) for tool in tools) or not parallel_tool_calls)
    answer = None if forced else _answer_in_json(response_format)
    if answer is None and not forced and not held:
        return None
    text = _Text(control_tokens)
    form = form_of(tool_parser)
    thinking = thinking_of(reasoning_parser)
    if may_call and form is not None and tool_parser is not None:
        offers = _offers(tools, tool_choice)
        ways = FORMATS[tool_parser](Writing(offers, control_tokens, many=parallel_tool_calls))
        # Of two alternatives that both begin as JSON llguidance would only follow the first.
        marked = [way for way in ways if way.opener or answer is None]
        calls = one_of([f"{term(way.opener, control_tokens) if way.opener else ''} {way.body}" for way in marked])
        if forced:
            main = calls
        elif answer is not None:
            main = one_of([answer, calls])
        else:
            main = text.free_or(form, ways, () if starts_in_reasoning or thinking is None else thinking.starts)
    elif forced or held:
        field = "tool_choice" if forced else "tools"
        raise UnsupportedFeature(
            f"`{field}` asks for calls that are held to a form, and this model is served without a tool parser",
            param=field,
            hint="set the model's `tool_parser`",
        )
    else:
        main = cast("str", answer)
    if thinking is not None:
        main = text.after_reasoning(thinking, main, inside=starts_in_reasoning)
    return _bounded(text.grammar(main), "tools" if may_call else _FORMAT)


class _Text:
    """Free text in a grammar: terminals that stop where a parser would begin to see something."""

    __slots__ = ("_control_tokens", "_lines")

    def __init__(self, control_tokens: Mapping[str, int]) -> None:
        self._control_tokens = control_tokens
        self._lines: list[str] = []

    def grammar(self, main: str) -> str:
        """The whole of it."""
        xml = [XML_RULES] if XML_VALUE in main else []
        return "\n".join([f"start: {main}", *self._lines, *xml, ""])

    def free_or(self, form: Form, ways: Sequence[Way], not_first: Sequence[str]) -> str:
        """Free text, which may lead to calls; from the text that opens them on they are held.

        The text does not begin with any of `not_first`, which belong to reasoning.
        """
        heads = [re.escape(text) for text in not_first] + (["[{]", r"\["] if form.bare else [])
        rest = self._terminal(self._free(form.openers, heads))
        options = [f"{rest}?"]
        for way in ways:
            if not way.opener:
                options.append(way.body)
            elif way.opener in self._control_tokens:
                options.append(f"{rest}? {term(way.opener, self._control_tokens)} {way.body}")
            else:
                others = [opener for opener in form.openers if opener != way.opener]
                lead = self._terminal(f"({self._free(others, heads)})? {spelled(way.opener)}", lazy=True)
                options.append(f"{lead} {way.body}")
        return one_of(options)

    def after_reasoning(self, thinking: Thinking, main: str, *, inside: bool) -> str:
        """`main` after reasoning, which is free up to its end."""
        starts = [text for text in thinking.starts if text in self._control_tokens]
        spelled_ends = [text for text in thinking.ends if text not in self._control_tokens]
        thought = self._terminal(self._free(thinking.ends, []))
        ends = [f"{thought}? {term(text, self._control_tokens)}" for text in thinking.ends if text not in spelled_ends]
        if spelled_ends:
            others = [text for text in thinking.ends if text in self._control_tokens]
            last = one_of([spelled(text) for text in spelled_ends])
            ends.append(self._terminal(f"({self._free(others, [])})? {last}", lazy=True))
        reasoning = one_of(ends)
        if inside:
            return f"{reasoning} {_SPACE} {main}"
        if thinking.always:
            start = one_of([term(text, self._control_tokens) for text in starts]) + "?" if starts else ""
            return f"{start} {reasoning} {_SPACE} {main}"
        start = one_of([term(text, self._control_tokens) for text in thinking.starts])
        return f"({start} {reasoning} {_SPACE})? {main}"

    def _terminal(self, expression: str, *, lazy: bool = False) -> str:
        number = len(self._lines)
        self._lines.append(f"TEXT_{number}: {expression}")
        if not lazy:
            return f"TEXT_{number}"
        # A lazy lexeme ends with the first text that it could end with, whatever comes after.
        self._lines.append(f"text_{number}[lazy]: TEXT_{number}")
        return f"text_{number}"

    def _free(self, without: Sequence[str], heads: Sequence[str]) -> str:
        """Any text that is not empty, holds none of `without`, and does not begin with an expression of `heads`."""
        parts = [r"/(?s:.+)/"]
        if without:
            parts.append(f"~/(?s:.*)({_either(map(re.escape, without))})(?s:.*)/")
        if heads:
            parts.append(rf"~/\s*({_either(heads)})(?s:.*)/")
        return " & ".join(parts)


def _either(expressions: Sequence[str] | map[str]) -> str:
    return "|".join(expressions).replace("/", r"\/").replace("\n", r"\n")


def _answer_in_json(response_format: Mapping[str, object] | None) -> str | None:
    """The expression for the whole answer, if it has to be JSON."""
    kind = "text" if response_format is None else response_format.get("type")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return json_rule({"type": "object"}, _FORMAT)
    if kind != "json_schema":
        raise UnsupportedFeature(f"`{_FORMAT}.type` of `{kind}` is not served", param=f"{_FORMAT}.type")
    wrapped = cast("Mapping[str, object]", response_format["json_schema"])
    return json_rule(wrapped.get("schema", {"type": "object"}), f"{_FORMAT}.json_schema.schema")


def _offers(tools: Sequence[Mapping[str, object]], choice: object) -> list[Offer]:
    """The tools that may be called: all, or the one that `choice` names."""
    named = cast("Mapping[str, object]", choice["function"])["name"] if isinstance(choice, Mapping) else None
    offers: list[Offer] = []
    for index, tool in enumerate(tools):
        function = cast("Mapping[str, object]", tool["function"])
        name = cast("str", function["name"])
        path = f"tools.{index}.function.parameters"
        if named is None or name == named:
            schema = object_schema(function.get("parameters"), path)
            offers.append(Offer(name, schema, path, is_strict=_is_strict(tool), is_forced=choice != "auto"))
    if not offers:
        raise InvalidRequest(
            f"`tool_choice` names `{named}`, which is not among the `tools`", param="tool_choice.function.name"
        )
    return offers


def _is_strict(tool: Mapping[str, object]) -> bool:
    return cast("Mapping[str, object]", tool["function"]).get("strict") is True


def _bounded(grammar: str, field: str) -> str:
    if len(grammar.encode()) > GRAMMAR_BYTES:
        raise InvalidRequest(
            f"`{field}` comes to a grammar of more than {GRAMMAR_BYTES} bytes",
            param=field,
            hint="offer fewer tools, or leave descriptions out of the schemas",
        )
    return grammar
