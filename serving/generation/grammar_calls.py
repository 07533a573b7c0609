"""Each format of tool calls as a grammar: as models trained on it write it, so that its parser reads it back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from serving.errors import InvalidRequest, UnsupportedFeature
from serving.generation.grammar_schema import json_rule
from serving.generation.parsers import json_forms
from serving.generation.parsers.tools import properties, types_of

_ANY_OBJECT: Final[Mapping[str, object]] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool that may be called, and how its arguments are held."""

    name: str
    schema: Mapping[str, object]
    path: str
    """Where the schema stands in the request."""
    is_strict: bool
    """The schema holds to the letter, or the request is refused."""
    is_forced: bool
    """The schema holds as far as it can be enforced. Of a tool that is neither, arguments are only well-formed."""

    def held(self, write: Callable[[Mapping[str, object]], str]) -> str | None:
        """What `write` makes of the schema; None where arguments are not held to it."""
        if not self.is_strict and not self.is_forced:
            return None
        try:
            return write(self.schema)
        except InvalidRequest:
            if self.is_strict:
                raise
            return None

    def arguments(self) -> str:
        """The expression for its arguments as JSON."""
        return self.held(lambda schema: json_rule(schema, self.path)) or json_rule(_ANY_OBJECT, self.path)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to write calls: the text that opens them, and the expression for all that follows it."""

    opener: str
    body: str


@dataclass(frozen=True, slots=True)
class Writing:
    """What a format needs to know to be written as a grammar."""

    offers: Sequence[Offer]
    control_tokens: Mapping[str, int]
    """Ids of the vocabulary's control tokens by their text."""
    many: bool
    """Several calls may follow each other."""

    def term(self, text: str) -> str:
        """The term for a text of the format: its control token, or its letters where there is none."""
        return term(text, self.control_tokens)

    def row(self, call: str, between: str) -> str:
        """One call, or several with `between` between them."""
        return f"{call} ({between} {call})*" if self.many else call

    def each(self, write: Callable[[Offer], str]) -> str:
        """A call of any of the tools."""
        return one_of([write(offer) for offer in self.offers])

    def objects(self, key: str) -> str:
        """`{"name": …, key: …}` of any of the tools."""

        def written(offer: Offer) -> str:
            head = f'{{"name": "{offer.name}", "{key}": '
            return f'{spelled(head)} {offer.arguments()} "}}"'

        return self.each(written)


def term(text: str, control_tokens: Mapping[str, int]) -> str:
    """The control token of that text, or its letters where the vocabulary has none."""
    token = control_tokens.get(text)
    return spelled(text) if token is None else f"<[{token}]>"


def spelled(text: str) -> str:
    """`text` as a literal."""
    return json.dumps(text, ensure_ascii=False)


def one_of(terms: Sequence[str]) -> str:
    """Any of these expressions."""
    return "(" + " | ".join(terms) + ")"


def _hermes(writing: Writing) -> list[Way]:
    begin, end = writing.term("<tool_call>"), writing.term("</tool_call>")
    call = f'"\\n" {writing.objects("arguments")} "\\n" {end}'
    return [Way("<tool_call>", writing.row(call, f'"\\n" {begin}'))]


def _granite(writing: Writing) -> list[Way]:
    return [Way(opener, _array(writing)) for opener in ("<|tool_call|>", "<tool_call>")]


def _array(writing: Writing) -> str:
    return f'"[" {writing.row(writing.objects("arguments"), COMMA)} "]"'


def _llama3_json(writing: Writing) -> list[Way]:
    body = writing.row(writing.objects("parameters"), '"; "')
    return [Way("", body), Way("<|python_tag|>", body)]


def _mistral(writing: Writing) -> list[Way]:
    opener = "[TOOL_CALLS]"
    if "[ARGS]" not in writing.control_tokens:  # a vocabulary from before v11
        return [Way(opener, f'" "? {_array(writing)}')]
    middle = writing.term("[ARGS]")
    call = writing.each(lambda offer: f"{spelled(offer.name)} {middle} {offer.arguments()}")
    return [Way(opener, writing.row(call, writing.term(opener)))]


def _deepseek_v3(writing: Writing) -> list[Way]:
    separator = writing.term(json_forms.DEEPSEEK_SEPARATOR)
    call = writing.each(
        lambda offer: f'"function" {separator} {spelled(offer.name + FENCE)} {offer.arguments()} "\\n```"'
    )
    return _deepseek(writing, call)


def _deepseek_v31(writing: Writing) -> list[Way]:
    separator = writing.term(json_forms.DEEPSEEK_SEPARATOR)
    return _deepseek(writing, writing.each(lambda offer: f"{spelled(offer.name)} {separator} {offer.arguments()}"))


def _deepseek(writing: Writing, call: str) -> list[Way]:
    begin, end = writing.term(json_forms.DEEPSEEK_CALL), writing.term(json_forms.DEEPSEEK_CALL_END)
    calls = writing.row(f"{begin} {call} {end}", '"\\n"?')
    return [Way(json_forms.DEEPSEEK_CALLS, f"{calls} {writing.term(json_forms.DEEPSEEK_CALLS_END)}")]


def _kimi_k2(writing: Writing) -> list[Way]:
    begin, end = writing.term(json_forms.KIMI_CALL), writing.term(json_forms.KIMI_CALL_END)
    middle = writing.term(json_forms.KIMI_ARGUMENTS)
    call = writing.each(
        lambda offer: f"{spelled(f'functions.{offer.name}:')} /[0-9]{{1,3}}/ {middle} {offer.arguments()}"
    )
    return [
        Way(
            json_forms.KIMI_CALLS,
            f"{writing.row(f'{begin} {call} {end}', '')} {writing.term(json_forms.KIMI_CALLS_END)}",
        )
    ]


def _qwen3_coder(writing: Writing) -> list[Way]:
    begin, end = writing.term("<tool_call>"), writing.term("</tool_call>")
    function = writing.each(lambda offer: f'{spelled(f"{offer.name}>")} "\\n" {_parameters(offer)} "</function>"')
    call = f'"\\n<function=" {function} "\\n" {end}'
    again = f'("\\n" {begin} {call})*' if writing.many else ""
    return [Way("<tool_call>", f"{call} {again}"), Way("<function=", f'{function} ("\\n" {end})? {again}')]


COMMA: Final = '", "'
FENCE: Final = "\n```json\n"
XML_VALUE: Final = "xml_text"
_VALUE_END: Final = r'"\n</parameter>\n"'
_XML_OBJECT: Final = frozenset(
    {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "title",
        "description",
        "$defs",
        "definitions",
        "$schema",
    }
)
"""What a schema of parameters may say and be held to in XML, or say without meaning anything."""
_XML_STRING: Final = frozenset({"pattern", "format", "minLength", "maxLength", "anyOf", "oneOf", "allOf"})
"""What a schema of a text may say that XML, which has texts without quotes, cannot be held to."""
_XML_KEY: Final = re.compile(r"[^<>\s](?:[^<>\n]*[^<>\s])?")
_XML_MARKUP: Final = re.compile(r"</?(?:parameter|function)")


def _parameters(offer: Offer) -> str:
    written = offer.held(lambda schema: _held_parameters(schema, offer.path))
    if written is not None:
        return written
    return " ".join(
        f"({_parameter(name, XML_VALUE)})?" for name in properties(offer.schema) if _XML_KEY.fullmatch(name)
    )


def _parameter(name: str, value: str) -> str:
    return f'{spelled(f"<parameter={name}>")} "\\n" {value}'


def _held_parameters(schema: Mapping[str, object], path: str) -> str:
    declared = properties(schema)
    required = cast("list[str]", schema.get("required", []))
    for key in schema.keys() - _XML_OBJECT:
        raise _not_forced(f"{path}.{key}", f"`{key}` of the parameters as a whole")
    for name in set(required) - declared.keys():
        raise _not_forced(f"{path}.required", f"`{name}`, which is no declared property,")
    parts: list[str] = []
    for name, value in declared.items():
        where = f"{path}.properties.{name}"
        if _XML_KEY.fullmatch(name) is None:
            raise _not_forced(where, "a name that holds markup")
        part = _parameter(name, _xml_value(value, schema, where))
        parts.append(part if name in required else f"({part})?")
    return " ".join(parts)


def _xml_value(schema: Mapping[str, object], root: Mapping[str, object], path: str) -> str:
    """A value as XML has it, up to and with its closing tag: text as it is, everything else as JSON."""
    types = types_of(schema) or frozenset({"string"})
    if "string" not in types:
        definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
        return f"{json_rule({**definitions, **schema}, path)} {_VALUE_END}"
    if types != {"string"}:
        raise _not_forced(path, "a value that may be text or something else")
    for key in schema.keys() & _XML_STRING:
        raise _not_forced(f"{path}.{key}", f"`{key}` of a text")
    words = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(words, list):
        return XML_VALUE
    if any(_XML_MARKUP.search(word) for word in words):
        raise _not_forced(path, "a text that holds markup")
    return f"{one_of([spelled(word) for word in words])} {_VALUE_END}"


def _not_forced(path: str, what: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"`{path}`: {what} cannot be enforced in the XML that this model calls tools with",
        param=path,
        hint="leave it out, or do not ask for it to be enforced",
    )


XML_RULES: Final = r"""
XML_TEXT: (/(?s:.+)/ & ~/(?s:.*)<\/?(parameter|function)(?s:.*)/)? "\n</parameter>\n"
xml_text[lazy]: XML_TEXT
""".strip()
"""Text up to its closing tag, without other tags of the format, which a parser could take for its end."""

FORMATS: Final[Mapping[str, Callable[[Writing], list[Way]]]] = {
    "deepseek_v3": _deepseek_v3,
    "deepseek_v31": _deepseek_v31,
    "granite": _granite,
    "granite4": _hermes,
    "hermes": _hermes,
    "kimi_k2": _kimi_k2,
    "llama3_json": _llama3_json,
    "llama4_json": _llama3_json,
    "mistral": _mistral,
    "qwen3_coder": _qwen3_coder,
    "qwen3_json": _hermes,
    "qwen3_xml": _qwen3_coder,
}
"""By the names of tool parsers."""
