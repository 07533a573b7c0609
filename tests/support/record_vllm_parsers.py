"""Record how vLLM itself parses the corpus: `python -m tests.support.record_vllm_parsers OUT.json`, in vLLM's Python.

Each answer is parsed whole and token by token, through the class that vLLM's server composes for `--tool-call-parser`
and `--reasoning-parser`.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from tests.support.model_outputs import MARKS, MARKS_V11, OUTPUTS, TOOLS
from tests.support.vllm_differences import DIFFERENCES

ROOT = Path(__file__).parents[2]
PARSERS: dict[str, tuple[str | None, str | None]] = {
    "mistral v11": ("mistral", None),
    "deepseek_r1 reasoning": (None, "deepseek_r1"),
    "qwen3 reasoning and hermes": ("hermes", "qwen3"),
}


def tokenizer_with(marks: tuple[str, ...]) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(ROOT / "serving/models/demo/hf/tokenizer.json"))
    tokenizer.add_tokens(list(marks), special_tokens=True)
    return tokenizer


def whole(parser: Any, request: Any, text: str, ids: list[int]) -> dict[str, Any]:
    reasoning, content, calls = parser.parse(text, request, enable_auto_tools=True, model_output_token_ids=ids)
    return {
        "content": content or "",
        "reasoning": reasoning or "",
        "calls": [[call.name, call.arguments] for call in calls or []],
    }


def streamed(parser: Any, request: Any, tokenizer: Any, ids: list[int]) -> dict[str, Any]:
    content, reasoning = "", ""
    calls: dict[int, list[str]] = {}
    said, waiting = "", []
    for place, token in enumerate(ids):
        finished = place == len(ids) - 1
        text = tokenizer.decode(ids[: place + 1], skip_special_tokens=False)
        waiting.append(token)
        if text.endswith("\ufffd") and not finished:  # half a character: vLLM's detokenizer waits, too
            continue
        delta = parser.parse_delta(text[len(said) :], waiting, request, prompt_token_ids=[], finished=finished)
        said, waiting = text, []
        if delta is None:
            continue
        content += delta.content or ""
        reasoning += delta.reasoning or ""
        for call in delta.tool_calls or []:
            entry = calls.setdefault(call.index, ["", ""])
            if call.function is not None:
                entry[0] += call.function.name or ""
                entry[1] += call.function.arguments or ""
    return {"content": content, "reasoning": reasoning, "calls": list(calls.values())}


def main() -> None:
    import vllm
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser.parser_manager import ParserManager

    logging.disable(logging.CRITICAL)
    record: dict[str, Any] = {"vllm": vllm.__version__, "parsers": {}}
    for group, texts in OUTPUTS.items():
        tool_parser, reasoning_parser = PARSERS.get(group, (group, None))
        tokenizer = tokenizer_with(MARKS + (MARKS_V11 if group == "mistral v11" else ()))
        request = ChatCompletionRequest(
            model="m", messages=[{"role": "user", "content": "x"}], tools=TOOLS, tool_choice="auto"
        )
        kind = ParserManager.get_parser(tool_parser, reasoning_parser, enable_auto_tools=True)
        cases = {}
        for label, text in texts.items():
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert tokenizer.decode(ids, skip_special_tokens=False) == text, text
            results = {}
            for how in ("whole", "streamed"):
                parser = kind(tokenizer, request.tools)
                try:
                    results[how] = (
                        whole(parser, request, text, ids)
                        if how == "whole"
                        else streamed(parser, request, tokenizer, ids)
                    )
                except Exception as error:  # noqa: BLE001 - what it raises is part of the record
                    results[how] = {"raises": type(error).__name__}
            differs = DIFFERENCES.get(group, {}).get(label)
            cases[label] = {"text": text, **results, **({"differs": differs} if differs else {})}
        record["parsers"][group] = {"tool_parser": tool_parser, "reasoning_parser": reasoning_parser, "cases": cases}
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
