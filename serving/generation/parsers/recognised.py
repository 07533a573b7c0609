"""Which parser reads a model's answers, told by its chat template.

For weights that are named by their path, of which no catalogue says it. What is not recognised is left open: a wrong
parser would lose text, none is a plain refusal of tools. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from serving.generation.parsers.json_forms import DEEPSEEK_CALLS, DEEPSEEK_SEPARATOR, KIMI_CALLS

_CALL: Final = re.compile(r'\\?"arguments\\?": ')
_LLAMA3_CALL: Final = re.compile(r'\{\\?"name\\?": [^\n]{1,80}\\?"parameters\\?": ')
"""How the templates of Llama 3.1 and after tell the model in so many words to write a call: they have no tag for it."""


def tool_parser_of(template: str) -> str | None:
    """The parser (`TOOL_FORMS`) of the calls that a model with this chat template writes; None where none is known."""

    def has(*texts: str) -> bool:
        return all(text in template for text in texts)

    # others set names and arguments as elements between the same tags, or lists of calls between longer ones
    is_other = has("<arg_") or has("<tool_calls>")
    signs = (
        ("kimi_k2", has(KIMI_CALLS)),
        ("deepseek_v3", has(DEEPSEEK_CALLS, DEEPSEEK_SEPARATOR, "```json")),
        ("deepseek_v31", has(DEEPSEEK_CALLS, DEEPSEEK_SEPARATOR)),
        ("mistral", has("[TOOL_CALLS]")),
        ("granite", has("<|tool_call|>")),
        ("qwen3_coder", has("<tool_call>", "<function=")),
        ("hermes", has("<tool_call>") and not is_other and bool(_CALL.search(template))),
        ("llama3_json", has("<|start_header_id|>") and bool(_LLAMA3_CALL.search(template))),
    )
    return next((parser for parser, is_met in signs if is_met), None)


def reasoning_parser_of(template: str) -> str | None:
    """The parser (`REASONING`) of how such a model marks its reasoning; None where its template has no mark for it.

    Only for an engine that looks at the prompt for a thought that the template has opened, as ours does: whether a
    model thinks unless told otherwise, its template does not say in a form that could be searched for.
    """
    return "qwen3" if "<think>" in template and "</think>" in template else None
