"""Write the files that ship from a checkpoint of `demo.train`.

    python -m demo.export RUN_DIR [--to serving/models/demo]

The weights are rounded to bfloat16 once, and all files are made from the rounded ones, so that
Transformers and llama.cpp run the same model. The stock GGUF converter knows only the
pre-tokenizers of published models, so the GGUF is written here, with gguf-py.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from demo.model import Shape
from demo.questions import PARAMETERS_SPOKEN
from demo.tokenizer import CONTROL_TOKENS, END_OF_TEXT, IM_END

HERE: Final = Path(__file__).parent
SHIPPED: Final = HERE.parent / "serving" / "models" / "demo"
MOST_BYTES: Final = 16_000_000
NAME: Final = "Perimeter Demo"
DESCRIPTION: Final = (
    "A demonstration model for tests of an inference server, trained on generated conversations. Not an assistant."
)

_LAYER_NAMES: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _gguf_name(name: str) -> str:
    if name == "embed_tokens.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{_LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def _interleave(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of Q or K from the half-split rotary layout to llama.cpp's pairs."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write_gguf(
    path: Path,
    weights: dict[str, Tensor],
    shape: Shape,
    tokenizer: dict[str, Any],
    template: str,
    kind: gguf.GGMLQuantizationType,
) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    file_types = {
        gguf.GGMLQuantizationType.F16: gguf.LlamaFileType.MOSTLY_F16,
        gguf.GGMLQuantizationType.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_license("apache-2.0")
    writer.add_languages(["en", "ru"])
    writer.add_file_type(file_types[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.vocabulary)

    ids: dict[str, int] = dict(tokenizer["model"]["vocab"])
    ids.update({token["content"]: token["id"] for token in tokenizer["added_tokens"]})
    tokens = sorted(ids, key=ids.__getitem__)
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in CONTROL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges(merges)
    # llama.cpp would take id 11 for a beginning token that is not named; none is ever added.
    writer.add_bos_token_id(ids[END_OF_TEXT])
    writer.add_eos_token_id(ids[IM_END])
    writer.add_pad_token_id(ids[END_OF_TEXT])
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(template)

    for name, weight in weights.items():
        array = weight.float().numpy()
        if name.endswith("q_proj.weight"):
            array = _interleave(array, shape.heads)
        elif name.endswith("k_proj.weight"):
            array = _interleave(array, shape.kv_heads)
        if array.ndim == 1:
            writer.add_tensor(_gguf_name(name), array)
        else:
            data = gguf.quants.quantize(np.ascontiguousarray(array), kind)
            writer.add_tensor(_gguf_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_huggingface(
    folder: Path, weights: dict[str, Tensor], shape: Shape, tokenizer_file: Path, template: str
) -> None:
    ids = {t["content"]: t["id"] for t in json.loads(tokenizer_file.read_text())["added_tokens"]}
    folder.mkdir()
    save_file(
        {f"model.{name}": weight for name, weight in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    ends = {
        "bos_token_id": None,
        "eos_token_id": ids[IM_END],
        "pad_token_id": ids[END_OF_TEXT],
    }
    _dump(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "bfloat16",
            "torch_dtype": "bfloat16",
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.width,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "max_position_embeddings": shape.context,
            "rope_theta": shape.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
            "rms_norm_eps": shape.norm_eps,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
            "use_cache": True,
            **ends,
        },
    )
    _dump(
        folder / "generation_config.json",
        {
            "do_sample": False,
            "eos_token_id": [ids[IM_END], ids[END_OF_TEXT]],
            "pad_token_id": ids[END_OF_TEXT],
        },
    )
    _dump(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": False,
            "add_eos_token": False,
            "add_prefix_space": False,
            "bos_token": None,
            "eos_token": IM_END,
            "pad_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
            "model_max_length": shape.context,
            "chat_template": template,
        },
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    shutil.copyfile(tokenizer_file, folder / "tokenizer.json")


def export(run: Path, to: Path) -> None:
    """Write all files to a folder beside `to`, then move them into place one by one.

    Raises ValueError where the model would be larger than it may be, or other than it says.
    """
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    shape = Shape(**saved["shape"])
    weights = {name: weight.to(torch.bfloat16).contiguous() for name, weight in saved["model"].items()}
    parameters = sum(weight.numel() for weight in weights.values())
    if f"{parameters / 1e6:.1f} million" != PARAMETERS_SPOKEN:
        raise ValueError(f"{parameters} parameters, but the model says {PARAMETERS_SPOKEN}")
    template = (HERE / "chat_template.jinja").read_text(encoding="utf-8").removesuffix("\n")
    tokenizer = json.loads((run / "tokenizer.json").read_text(encoding="utf-8"))
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".export-") as temporary:
        folder = Path(temporary)
        for name, kind in (
            ("demo-f16.gguf", gguf.GGMLQuantizationType.F16),
            ("demo-q8_0.gguf", gguf.GGMLQuantizationType.Q8_0),
        ):
            _write_gguf(folder / name, weights, shape, tokenizer, template, kind)
        _write_huggingface(folder / "hf", weights, shape, run / "tokenizer.json", template)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        if size > MOST_BYTES:
            raise ValueError(f"the files have {size} bytes, more than {MOST_BYTES}")
        (to / "hf").mkdir(exist_ok=True)
        for path in files:
            path.chmod(0o644)
            path.replace(to / path.relative_to(folder))
    print(f"{parameters} parameters, {size} bytes in {len(files)} files, step {saved['step']}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.export")
    parser.add_argument("run", type=Path, help="folder that demo.train wrote")
    parser.add_argument("--to", type=Path, default=SHIPPED)
    options = parser.parse_args()
    export(options.run, options.to)


if __name__ == "__main__":
    main()
