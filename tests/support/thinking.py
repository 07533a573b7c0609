"""The demo model as one that thinks: two more tokens, `<think>` and `</think>`, which it writes where it wrote others.

The demo model does not think, and one that does is gigabytes. Here `<think>` has the numbers of the token that begins
the answer to `QUESTION`, a little larger, and `</think>` those of one in its middle: so the model writes them there, of
its own, and goes on as it would have. Prompts are tokenised as before. A template that is told to opens the thinking
itself, as those of R1 and its kind do.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np

DEMO: Final = Path(__file__).parents[2] / "serving/models/demo"
QUESTION: Final = "What is the capital of France?"
REASONING: Final = "he capital of France"
CONTENT: Final = " Paris."
OPENED: Final = "Think first."
"""A system message for which the template opens the thinking."""
REPLACED: Final = {"<think>": "T", "</think>": "\u0120is"}
"""The new tokens, and whose numbers they have."""
LARGER: Final = 1.06
ENTRY: Final = """
[models.thinker]
title = "Thinks"
context = 4096
tool_parser = "hermes"
reasoning_parser = "qwen3"

[[models.thinker.variants]]
name = "f16"
format = "gguf"
backends = ["llamacpp"]
path = "{gguf}"

[[models.thinker.variants]]
name = "bf16"
format = "safetensors"
backends = ["vllm"]
path = "{directory}"
"""
_PROMPT: Final = "{{ '<|im_start|>assistant\\n' }}\n{%- endif -%}"
_OPENS: Final = (
    "{{ '<|im_start|>assistant\\n' }}\n"
    "{%- if messages and messages[0].role == 'system' and text(messages[0].content) == '" + OPENED + "' -%}"
    "{{ '<think>' }}{%- endif -%}\n{%- endif -%}"
)


def write_catalogue(folder: Path) -> Path:
    """A site catalogue with the model in both formats, written beside it."""
    path = folder / "catalogue.toml"
    path.write_text(ENTRY.format(gguf=write_gguf(folder), directory=write_directory(folder)))
    return path


def write_directory(folder: Path) -> Path:
    """The model in Hugging Face's form."""
    directory = shutil.copytree(DEMO / "hf", folder / "thinker")
    _add_rows(directory / "model.safetensors", "model.embed_tokens.weight", rows_of(_vocabulary()))
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    first = len(_vocabulary())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    tokenizer["added_tokens"] += [{"id": first + at, "content": text, **plain} for at, text in enumerate(REPLACED)]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name, changes in (
        ("config.json", {"vocab_size": first + len(REPLACED)}),
        ("tokenizer_config.json", {"chat_template": _template()}),
    ):
        told = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps({**told, **changes}))
    (directory / "chat_template.jinja").write_text(_template())
    return directory


def write_gguf(folder: Path) -> Path:
    """The model for llama.cpp."""
    reader = gguf.GGUFReader(DEMO / "demo-f16.gguf")
    path = folder / "thinker.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    changed: dict[str, Any] = {"tokenizer.chat_template": _template()}
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    changed["tokenizer.ggml.tokens"] = [*tokens, *REPLACED]
    changed["tokenizer.ggml.token_type"] = [*kinds, *[int(gguf.TokenType.USER_DEFINED)] * len(REPLACED)]
    changed["llama.vocab_size"] = len(tokens) + len(REPLACED)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, changed.get(name, field.contents()), kind, inner)
    for tensor in reader.tensors:
        data = np.array(tensor.data)
        if tensor.name == "token_embd.weight":
            more = data[rows_of(tokens)].astype(np.float32) * LARGER
            data = np.concatenate([data, more.astype(data.dtype)])
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rows_of(tokens: list[str]) -> list[int]:
    """The tokens whose numbers the new ones have."""
    return [tokens.index(text) for text in REPLACED.values()]


def _vocabulary() -> list[str]:
    reader = gguf.GGUFReader(DEMO / "demo-f16.gguf")
    return list(reader.fields["tokenizer.ggml.tokens"].contents())


def _template() -> str:
    template = (DEMO / "hf/chat_template.jinja").read_text()
    assert template.rstrip().endswith(_PROMPT)
    return template.rstrip().removesuffix(_PROMPT) + _OPENS


def _add_rows(path: Path, name: str, rows: list[int]) -> None:
    """Give a matrix of brain floats copies of some of its rows, a little larger."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    body = raw[8 + size :]
    parts: list[bytes] = []
    offset = 0
    for tensor, told in sorted(header.items(), key=lambda item: item[1].get("data_offsets", [-1])[0]):
        if tensor == "__metadata__":
            continue
        start, end = told["data_offsets"]
        data = body[start:end]
        if tensor == name:
            assert told["dtype"] == "BF16"
            matrix = np.frombuffer(data, "<u2").reshape(told["shape"])
            more = (matrix[rows].astype(np.uint32) << 16).view(np.float32) * np.float32(LARGER)
            data += (more.view(np.uint32) >> 16).astype("<u2").tobytes()
            told["shape"][0] += len(rows)
        told["data_offsets"] = [offset, offset + len(data)]
        offset += len(data)
        parts.append(data)
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(parts))
