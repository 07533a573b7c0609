"""What models write: a corpus of raw answers by parser, in the official formats and off them.

Read by the script that records vLLM's parse of it and, through that record, by the test that compares ours.
"""

# ruff: noqa: E501 - a text is easier to read in one line
from __future__ import annotations

import json
from typing import Any

TOOLS: list[dict[str, Any]] = [
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
                    "place": {"type": "object", "properties": {"lat": {"type": "number"}}},
                },
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
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("get_weather", {"city": "Paris"}),
    "numbers": ("get_weather", {"city": "Oslo", "days": 3, "wind": True, "limit": -1.5}),
    "null": ("get_weather", {"city": "Rome", "limit": None}),
    "empty": ("now", {}),
    "array": ("get_weather", {"city": "Bern", "tags": ["a", "b"]}),
    "nested": ("get_weather", {"city": "Riga", "place": {"lat": 56.9, "of": {"in": [1, [2, {"x": []}]]}}}),
    "quotes": ("write_file", {"path": "a b", "text": 'She said "no" \\ and {left}'}),
    "lines": ("write_file", {"path": "a.py", "text": "def f():\n\treturn '}'\n\nprint(f())"}),
    "unicode": ("get_weather", {"city": "Москва 東京 😀 é"}),
    "brackets": ("write_file", {"path": "a", "text": '}}]}{"name": "now", "arguments": {}}'}),
    "empty text": ("write_file", {"path": "", "text": ""}),
    "long": ("write_file", {"path": "a", "text": "word " * 60}),
}


def hermes(name: str, arguments: dict[str, Any]) -> str:
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def llama(name: str, arguments: dict[str, Any]) -> str:
    return json.dumps({"name": name, "parameters": arguments}, ensure_ascii=False)


def mistral_old(name: str, arguments: dict[str, Any]) -> str:
    return f"[TOOL_CALLS] [{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}]"


def mistral(name: str, arguments: dict[str, Any]) -> str:
    return f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments, ensure_ascii=False)}"


def granite(name: str, arguments: dict[str, Any]) -> str:
    return f"<|tool_call|>[{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}]"


def deepseek_v3(name: str, arguments: dict[str, Any]) -> str:
    return (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n"
        f"{json.dumps(arguments, ensure_ascii=False)}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    )


def qwen3(name: str, arguments: dict[str, Any]) -> str:
    parts = "".join(
        f"<parameter={key}>\n{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}\n</parameter>\n"
        for key, value in arguments.items()
    )
    return f"<tool_call>\n<function={name}>\n{parts}</function>\n</tool_call>"


W = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
N = '{"name": "now", "arguments": {}}'
PW = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
PN = '{"name": "now", "parameters": {}}'
XW = "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>"
XN = "<tool_call>\n<function=now>\n</function>\n</tool_call>"


def official(write: Any) -> dict[str, str]:
    return {f"call: {label}": write(name, arguments) for label, (name, arguments) in CALLS.items()}


OUTPUTS: dict[str, dict[str, str]] = {
    "hermes": {
        **official(hermes),
        "text only": "Hello, how may I help?",
        "text and a call": f"Let me see.\n<tool_call>\n{W}\n</tool_call>",
        "two calls": f"<tool_call>\n{W}\n</tool_call>\n<tool_call>\n{N}\n</tool_call>",
        "text after a call": f"<tool_call>{W}</tool_call>\nDone.",
        "text between calls": f"<tool_call>{W}</tool_call> and <tool_call>{N}</tool_call>",
        "no closing tag": f"<tool_call>\n{W}",
        "cut in the arguments": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Par',
        "cut in the name": '<tool_call>\n{"name": "get_wea',
        "cut in the tag": "I will <tool_ca",
        "second call cut": f'<tool_call>{W}</tool_call><tool_call>{{"name": "now", "argum',
        "tag in a string": '<tool_call>{"name": "write_file", "arguments": {"path": "a", "text": "</tool_call>"}}</tool_call>',
        "both tags in a string": '<tool_call>{"name": "write_file", "arguments": {"path": "<tool_call>", "text": "</tool_call>"}}</tool_call>',
        "arguments first": '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>',
        "an argument called name": '<tool_call>{"arguments": {"name": "x"}, "name": "now"}</tool_call>',
        "unknown tool": '<tool_call>{"name": "format_disk", "arguments": {"disk": 1}}</tool_call>',
        "not JSON": "<tool_call>get_weather(city='Paris')</tool_call>",
        "single quotes": "<tool_call>{'name': 'now', 'arguments': {}}</tool_call>",
        "a brace too many": f"<tool_call>{W}}}</tool_call>",
        "a line break in a string": '<tool_call>{"name": "write_file", "arguments": {"path": "a", "text": "b\nc"}}</tool_call>',
        "NaN": '<tool_call>{"name": "get_weather", "arguments": {"limit": NaN}}</tool_call>',
        "no arguments": '<tool_call>{"name": "now"}</tool_call>',
        "null arguments": '<tool_call>{"name": "now", "arguments": null}</tool_call>',
        "quoted arguments": '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        "escapes": '<tool_call>{"name": "get_weather", "arguments": {"city": "\\u041c\\ud83d\\ude00\\n"}}</tool_call>',
        "half a surrogate": '<tool_call>{"name": "get_weather", "arguments": {"city": "\\ud83d"}}</tool_call>',
        "two objects in a block": f"<tool_call>\n{W}\n{N}\n</tool_call>",
        "an array in a block": f"<tool_call>[{W}, {N}]</tool_call>",
        "empty block": "<tool_call></tool_call>",
        "wrong call before a right one": f"<tool_call>oops</tool_call><tool_call>{W}</tool_call>",
        "a tag in prose": "Use <tool_call> to call a tool.",
        "white space": f"<tool_call>\n\n  {W}  \n\n</tool_call>\n\n",
        "a key twice": '<tool_call>{"name": "now", "arguments": {"a": 1}, "arguments": {"a": 2}}</tool_call>',
        "more keys": '<tool_call>{"id": 7, "name": "now", "arguments": {}, "why": ["x"]}</tool_call>',
    },
    "llama3_json": {
        **official(llama),
        "text only": "Hello, how may I help?",
        "tag": f"<|python_tag|>{PW}",
        "arguments": W,
        "two calls": f"{PW}; {PN}",
        "two calls, no space": f"{PW};{PN}",
        "two calls on lines": f"{PW}\n{PN}",
        "two calls after a tag": f"<|python_tag|>{PW}; {PN}",
        "three calls": f"{PW}; {PN}; {PW}",
        "an array": f"[{PW}, {PN}]",
        "a semicolon in a string": '{"name": "write_file", "parameters": {"path": "a; b", "text": "};{"}}',
        "text before": f"I will call it: {PW}",
        "text after": f"{PW} That is it.",
        "type first": '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        "an answer in JSON": '{"city": "Paris", "people": 2000000}',
        "an answer with a name": '{"name": "Ada", "parameters": {"age": 36}}',
        "a name alone": '{"name": "Ada"}',
        "an array as answer": "[1, 2, 3]",
        "code": "```c\nint main() { return 0; }\n```",
        "cut": '{"name": "get_weather", "parameters": {"city": "Par',
        "second cut": f'{PW}; {{"name": "now", "par',
        "a built-in call": '<|python_tag|>brave_search.call(query="weather")',
        "unknown tool": '<|python_tag|>{"name": "format_disk", "parameters": {}}',
        "both keys": '{"name": "now", "parameters": {"a": 1}, "arguments": {"a": 2}}',
        "not an object": '{"name": "now", "parameters": "soon"}',
        "white space": f"\n {PW}\n",
        "a tag in text": f"Let me see.<|python_tag|>{PW}",
    },
    "mistral": {
        **{f"old {label}": text for label, text in official(mistral_old).items()},
        "text only": "Hello, how may I help?",
        "text and a call": f"Let me see.[TOOL_CALLS] [{W}]",
        "two calls": f"[TOOL_CALLS] [{W}, {N}]",
        "no space": f"[TOOL_CALLS][{W}]",
        "a bare object": f"[TOOL_CALLS] {W}",
        "an id": '[TOOL_CALLS] [{"name": "now", "arguments": {}, "id": "VvvODy9mT"}]',
        "arguments first": '[TOOL_CALLS] [{"arguments": {"city": "Paris"}, "name": "get_weather"}]',
        "text after": f"[TOOL_CALLS] [{W}] Done.",
        "quoted arguments": '[TOOL_CALLS] [{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}]',
        "no arguments": '[TOOL_CALLS] [{"name": "now"}]',
        "null arguments": '[TOOL_CALLS] [{"name": "now", "arguments": null}]',
        "cut": '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Par',
        "second cut": f'[TOOL_CALLS] [{W}, {{"name": "now", "argu',
        "marker in a string": '[TOOL_CALLS] [{"name": "write_file", "arguments": {"path": "[TOOL_CALLS]", "text": ""}}]',
        "marker twice": f"[TOOL_CALLS][TOOL_CALLS] [{W}]",
        "not JSON": "[TOOL_CALLS] none needed",
        "unknown tool": '[TOOL_CALLS] [{"name": "format_disk", "arguments": {}}]',
        "no bracket at the end": f"[TOOL_CALLS] [{W}",
    },
    "mistral v11": {
        **official(mistral),
        "text only": "Hello, how may I help?",
        "text and a call": 'Let me see.[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
        "two calls": '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]now[ARGS]{}',
        "no args mark": '[TOOL_CALLS]get_weather{"city": "Paris"}',
        "text after": '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"} Done.',
        "cut": '[TOOL_CALLS]get_weather[ARGS]{"city": "Par',
        "cut in the name": "[TOOL_CALLS]get_wea",
        "second cut": '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]now[ARGS]{"a',
        "unknown tool": "[TOOL_CALLS]format_disk[ARGS]{}",
        "not JSON": "[TOOL_CALLS]now[ARGS]soon",
        "white space": '[TOOL_CALLS] get_weather [ARGS] {"city": "Paris"} ',
        "marker in a string": '[TOOL_CALLS]write_file[ARGS]{"path": "a[TOOL_CALLS]now[ARGS]{}", "text": ""}',
        "call id": "[TOOL_CALLS]now[CALL_ID]VvvODy9mT[ARGS]{}",
    },
    "qwen3_coder": {
        **official(qwen3),
        "text only": "Hello, how may I help?",
        "text and a call": f"Let me see.\n\n{XW}",
        "two calls": f"{XW}\n{XN}",
        "text after": f"{XW}\nDone.",
        "text between": f"{XW} and {XN}",
        "one line": "<tool_call><function=get_weather><parameter=city>Paris</parameter></function></tool_call>",
        "no call tag": "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        "no closing call tag": "<tool_call>\n<function=now>\n</function>",
        "two functions in a block": "<tool_call>\n<function=now>\n</function>\n<function=now>\n</function>\n</tool_call>",
        "cut in a value": "<tool_call>\n<function=get_weather>\n<parameter=city>\nPar",
        "cut after a value": "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n",
        "cut in the name": "<tool_call>\n<function=get_wea",
        "forgotten closing tag": "<tool_call>\n<function=write_file>\n<parameter=path>\na\n<parameter=text>\nb\n</parameter>\n</function>\n</tool_call>",
        "last closing tag forgotten": "<tool_call>\n<function=write_file>\n<parameter=path>\na\n</function>\n</tool_call>",
        "function tag in a value": "<tool_call>\n<function=write_file>\n<parameter=path>\na\n</parameter>\n<parameter=text>\n</function>\n</parameter>\n</function>\n</tool_call>",
        "parameter tag in a value": "<tool_call>\n<function=write_file>\n<parameter=path>\na\n</parameter>\n<parameter=text>\nuse <parameter=x> here\n</parameter>\n</function>\n</tool_call>",
        "text for a number": "<tool_call>\n<function=get_weather>\n<parameter=days>\nthree\n</parameter>\n</function>\n</tool_call>",
        "number for text": "<tool_call>\n<function=get_weather>\n<parameter=city>\n42\n</parameter>\n</function>\n</tool_call>",
        "True": "<tool_call>\n<function=get_weather>\n<parameter=wind>\nTrue\n</parameter>\n</function>\n</tool_call>",
        "an undeclared parameter": "<tool_call>\n<function=get_weather>\n<parameter=zip>\n75001\n</parameter>\n</function>\n</tool_call>",
        "unknown tool": "<tool_call>\n<function=format_disk>\n</function>\n</tool_call>",
        "JSON in the block": f"<tool_call>\n{W}\n</tool_call>",
        "a parameter twice": "<tool_call>\n<function=get_weather>\n<parameter=city>\nA\n</parameter>\n<parameter=city>\nB\n</parameter>\n</function>\n</tool_call>",
        "markup in a value": "<tool_call>\n<function=write_file>\n<parameter=path>\na\n</parameter>\n<parameter=text>\n<b>x</b> &amp; y < z\n</parameter>\n</function>\n</tool_call>",
        "blank lines in a value": "<tool_call>\n<function=write_file>\n<parameter=path>\na\n</parameter>\n<parameter=text>\n\n  b\n\n</parameter>\n</function>\n</tool_call>",
        "a huge number": "<tool_call>\n<function=get_weather>\n<parameter=days>\n123456789012345678901234567890\n</parameter>\n</function>\n</tool_call>",
        "a tag in prose": "Write <function=name> to call.",
    },
    "granite": {
        **official(granite),
        "text only": "Hello, how may I help?",
        "plain tag": f"<tool_call>[{W}]",
        "two calls": f"<|tool_call|>[{W}, {N}]",
        "text and a call": f"Let me see. <|tool_call|>[{W}]",
        "text after": f"<|tool_call|>[{W}] Done.",
        "white space": f"<|tool_call|> [ {W} , {N} ] ",
        "cut": '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Par',
        "second cut": f'<|tool_call|>[{W}, {{"name": "now", "argu',
        "unknown tool": '<|tool_call|>[{"name": "format_disk", "arguments": {}}]',
        "not JSON": "<|tool_call|>none",
        "no calls": "<|tool_call|>[]",
    },
    "deepseek_v3": {
        **official(deepseek_v3),
        "text only": "Hello, how may I help?",
        "text and a call": f"Let me see.{deepseek_v3('now', {})}",
        "two calls": (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
            '{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n'
            "{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
        "cut": ('<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Par'),
        "not JSON": (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\nsoon\n```"
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
        "laid out": (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
            '{\n  "city": "Paris"\n}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
        ),
    },
    "deepseek_r1 reasoning": {
        "marked": "<think>\nHm.\n</think>\n\nHello.",
        "no start": "Hm.</think>Hello.",
        "no end": "<think>Hm.",
        "neither": "Hello.",
        "nothing thought": "<think>\n\n</think>\n\nHello.",
        "two ends": "<think>a</think>b</think>c",
        "text before": "Well. <think>a</think>b",
        "end only": "</think>Hello.",
        "cut in the end": "<think>Hm.</thi",
        "a tag like it": "<think>a <b>c</b></think>d",
        "only reasoning": "<think>Hm.</think>",
        "started twice": "<think><think>a</think>b",
    },
    "qwen3 reasoning and hermes": {
        "marked": "<think>\nHm.\n</think>\n\nHello.",
        "a call": f"<think>\nHm.\n</think>\n\n<tool_call>\n{W}\n</tool_call>",
        "a call inside": f"<think>\nHm. <tool_call>\n{W}\n</tool_call>",
        "a tag inside": f"<think>Maybe <tool_call>?</think><tool_call>{N}</tool_call>",
        "no end": "<think>Hm.",
        "nothing thought": "<think>\n\n</think>\n\nHello.",
    },
}
"""By parser, then by what is the matter with it."""

MARKS = (
    "<tool_call>", "</tool_call>", "<|tool_call|>", "<|python_tag|>", "[TOOL_CALLS]", "<think>", "</think>",
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
)  # fmt: skip
"""Tokens of their own in the vocabulary that vLLM reads these with; `mistral v11` has two more."""
MARKS_V11 = ("[ARGS]", "[CALL_ID]")
