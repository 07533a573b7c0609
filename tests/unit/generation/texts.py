"""Tools, and texts of models, that the tests of parsers and grammars share."""

from __future__ import annotations

from collections.abc import Sequence

from serving.generation.parsers import Answer, AnswerParser, Delta, fold

TOOLS: list[dict[str, object]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "wind": {"type": "boolean"},
                    "limit": {"type": ["number", "null"]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "place": {"$ref": "#/$defs/Place"},
                },
                "required": ["city"],
                "$defs": {"Place": {"type": "object", "properties": {"lat": {"type": "number"}}}},
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "write_file",
            "parameters": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
                "required": ["path", "text"],
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]

TAGS = (
    "<tool_call>", "</tool_call>", "<|tool_call|>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]",
    "<function=", "<function=write_file>", "<function=now>", "</function>", "<parameter=", "<parameter=path>",
    "<parameter=text>", "</parameter>", "<think>", "</think>", "[THINK]", "[/THINK]",
    "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "\n```json\n", "\n```", "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>", "<|tool_call_begin|>", "functions.now:0", "<|tool_call_argument_begin|>",
    "<|tool_call_end|>", "Here is my thought process:", "Here's my response:", "function",
)  # fmt: skip
PARTS = (
    *TAGS,
    *('{"name": "now", "arguments": {}}', '{"name": "write_file", "parameters": {"path": "a", "text": "'),
    *('{"name": "', 'now", "arguments": ', '{"arguments": {"a": 1}, "name": "now"}', '{"a": [1, {"b": null}]}'),
    *(
        "now",
        "write_file",
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        '\\"',
        "\\u00e9",
        "\\ud83d",
        ",",
        ";",
        ":",
        "1",
        "-0.5e3",
        "true",
    ),
    *("null", "NaN", " ", "\n", "\n\n", "\t", "a", "Ж", "😀", "\x01", "arguments", "name", "\u2028", "text", "é"),
)
"""Pieces that the formats are made of, and what may come between them."""


def parser(tool_parser: str | None, reasoning_parser: str | None = None, **options: object) -> AnswerParser:
    """A parser of answers that may call TOOLS, with ids that can be compared."""
    options = {"tools": TOOLS, "new_call_id": lambda: "id", **options}
    return AnswerParser(tool_parser, reasoning_parser, **options)


def deltas(reader: AnswerParser, pieces: Sequence[str]) -> list[Delta]:
    """All deltas of an answer that arrives in these pieces."""
    return [delta for piece in pieces for delta in reader.push(piece)] + reader.finish()


def parse(tool_parser: str | None, text: str, reasoning_parser: str | None = None, **options: object) -> Answer:
    """The whole answer."""
    return fold(deltas(parser(tool_parser, reasoning_parser, **options), [text]))


def calls(answer: Answer) -> list[tuple[str, str]]:
    """Names and arguments."""
    return [(call.name, call.arguments) for call in answer.tool_calls]
