"""Write GGUF files of real shapes with random weights, to measure speed without anybody's model.

    python -m benchmarks.synthetic OUT_DIR [--only NAME]

The answers are noise; the time they take is not. Every file has a byte-level BPE vocabulary in which each
three-letter word is one token, so that a text of n random words is about n tokens for any server.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from serving.synthetic.vocabulary import vocabulary


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama-architecture model."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    context: int = 8192


SHAPES = (
    Shape("100m", layers=10, width=768, heads=12, kv_heads=12, ffn=2048, vocabulary=32_000),
    Shape("100m-128k", layers=10, width=768, heads=12, kv_heads=12, ffn=2048, vocabulary=128_256),
)
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""Without a token of its own, so that every server frames a conversation with the same ones."""
TYPES = {
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}


def write(shape: Shape, kind: str, out: Path, *, seed: int = 1) -> None:
    """One GGUF file; the weights depend on the shape and the seed only."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(f"synthetic {shape.name}")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(500_000.0)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    tokens, merges = vocabulary(shape.vocabulary)
    writer.add_chat_template(TEMPLATE)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(value=False)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = rng.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns)
        if kind == "f16":
            writer.add_tensor(name, values.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, TYPES[kind]), raw_dtype=TYPES[kind])

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(shape.width, dtype=np.float32))

    kv_width = shape.width // shape.heads * shape.kv_heads
    matrix("token_embd.weight", shape.vocabulary, shape.width)
    norm("output_norm.weight")
    for layer in range(shape.layers):
        matrix(f"blk.{layer}.attn_q.weight", shape.width, shape.width)
        matrix(f"blk.{layer}.attn_k.weight", kv_width, shape.width)
        matrix(f"blk.{layer}.attn_v.weight", kv_width, shape.width)
        matrix(f"blk.{layer}.attn_output.weight", shape.width, shape.width)
        matrix(f"blk.{layer}.ffn_gate.weight", shape.ffn, shape.width)
        matrix(f"blk.{layer}.ffn_up.weight", shape.ffn, shape.width)
        matrix(f"blk.{layer}.ffn_down.weight", shape.width, shape.ffn)
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write every shape in every type that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help="one shape by name")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for shape in SHAPES:
        for kind in TYPES:
            path = options.out / f"synthetic-{shape.name}-{kind}.gguf"
            if (options.only in (None, shape.name)) and not path.exists():
                write(shape, kind, path)
                print(path, f"{path.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
