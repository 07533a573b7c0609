"""The parser that a chat template is recognised by reads what that template writes."""

from __future__ import annotations

import json

import pytest

from serving.generation.parsers.recognised import reasoning_parser_of, tool_parser_of
from serving.generation.template import ChatTemplate
from tests.unit.generation.texts import TOOLS, calls, parse

EACH = "{% for message in messages %}{% if message.tool_calls %}{% for call in message.tool_calls %}"
END = "{% endfor %}{% else %}{{ message.content }}{% endif %}{% endfor %}"
NAME, ARGUMENTS = "{{ call.function.name }}", "{{ call.function.arguments | tojson }}"
OBJECT = '{"name": "' + NAME + '", "arguments": ' + ARGUMENTS + "}"
DEEPSEEK = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
KIMI = "<|tool_calls_section_begin|><|tool_call_begin|>functions.{}:0<|tool_call_argument_begin|>{}<|tool_call_end|>"
CALLS = {
    "hermes": f"<tool_call>\n{OBJECT}\n</tool_call>",
    "granite": f"<|tool_call|>[{OBJECT}]",
    "mistral": f"[TOOL_CALLS][{OBJECT}]",
    "llama3_json": OBJECT.replace('arguments"', 'parameters"') + "{# <|start_header_id|> #}",
    "qwen3_coder": (
        f"<tool_call>\n<function={NAME}>\n{{% for key, value in call.function.arguments.items() %}}"
        "<parameter={{ key }}>\n{{ value }}\n</parameter>\n{% endfor %}</function>\n</tool_call>"
    ),
    "deepseek_v3": DEEPSEEK.format(f"function<｜tool▁sep｜>{NAME}\n```json\n{ARGUMENTS}\n```"),
    "deepseek_v31": DEEPSEEK.format(f"{NAME}<｜tool▁sep｜>{ARGUMENTS}"),
    "kimi_k2": KIMI.format(NAME, ARGUMENTS) + "<|tool_calls_section_end|>",
}
"""How each family's template writes a call of an earlier turn, which is how its model writes one, too."""


@pytest.mark.parametrize("expected", CALLS)
def test_the_recognised_parser_reads_what_the_template_writes(expected: str) -> None:
    """Rendered and read back: name and arguments, and no text beside them."""
    source = EACH + CALLS[expected] + END
    found = tool_parser_of(source)
    assert found == expected
    asked = {"city": "Paris"}
    call = {"type": "function", "function": {"name": "get_weather", "arguments": asked}}
    template = ChatTemplate(source, bos="", eos="", control_texts=[])
    (piece,) = template.render([{"role": "assistant", "tool_calls": [call]}], TOOLS)
    answer = parse(found, piece.text)
    assert [(name, json.loads(arguments)) for name, arguments in calls(answer)] == [("get_weather", asked)]
    assert not (answer.content or "").strip()


@pytest.mark.parametrize(
    "call",
    [
        "{{ message.content }}",
        "<tool_call>{{ call.function.name }}<arg_key>{{ key }}</arg_key></tool_call>",
        f"<tool_calls>[{OBJECT}]</tool_calls> in the place of <tool_call>",
        f"<TOOLCALL>[{OBJECT}]</TOOLCALL>",
        OBJECT,
        "",
    ],
)
def test_what_is_not_known_is_left_open(call: str) -> None:
    """No parser beats a wrong one, which would lose text."""
    assert tool_parser_of(EACH + call + END) is None


def test_reasoning_is_recognised_by_its_marks() -> None:
    """Both of them: a template that only cuts old thoughts away at their end tells nothing of new ones."""
    assert reasoning_parser_of("{% if not enable_thinking %}<think>\n\n</think>{% endif %}") == "qwen3"
    assert reasoning_parser_of("{{ content.split('</think>')[-1] }}") is None
    assert reasoning_parser_of("{{ content }}") is None
