"""Directories in Hugging Face's form as models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import BadFile, FileMissing
from serving.registry import load_catalogue, model_from_file
from serving.registry.directory import CONFIG, FAMILIES, architecture_of_config, model_from_directory, template_of

DEMO = load_catalogue().find("demo")
DEMO_DIRECTORY = next(variant.path for variant in DEMO.variants if variant.format == "safetensors")
PUBLISHED = sorted((Path(__file__).parent / "published").glob("*.json"))


def decoders() -> list[Any]:
    """The published configurations of the families that are read from directories."""
    told = [json.loads(path.read_text(encoding="utf-8")) for path in PUBLISHED]
    return [
        pytest.param(one, id=one["model"])
        for one in told
        # embedding models have no output matrix, which their configurations do not say
        if one["architecture"] in FAMILIES and one["kind"] == "chat"
    ]


@pytest.mark.parametrize("told", decoders())
def test_a_published_configuration_is_read_as_the_catalogue_has_it(told: dict[str, Any]) -> None:
    """The same architecture, however it comes in."""
    config = {"architectures": [told["architecture"]], **told["config"]}
    entry = load_catalogue().find(told["model"])
    assert architecture_of_config(Path("m"), config) == entry.architecture


def test_the_demo_models_directory_is_its_gguf() -> None:
    """The same shape from config.json as from the GGUF's header; its weights are counted."""
    assert DEMO_DIRECTORY is not None
    model = model_from_directory(DEMO_DIRECTORY)
    assert model.architecture == DEMO.architecture
    assert model.context == DEMO.context
    assert model.variants[0].size_bytes == (DEMO_DIRECTORY / "model.safetensors").stat().st_size


def test_by_its_path_a_model_calls_tools_as_under_its_name() -> None:
    """The form of its calls is told by the chat template, in a file as in a directory."""
    gguf = next(variant.path for variant in DEMO.variants if variant.format == "gguf")
    assert gguf is not None
    assert DEMO_DIRECTORY is not None
    found = [model_from_file(gguf), model_from_directory(DEMO_DIRECTORY)]
    assert [model.tool_parser for model in found] == [DEMO.tool_parser] * 2
    assert DEMO.tool_parser == "hermes"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ""),
        ({"chat_template.jinja": "a", "tokenizer_config.json": '{"chat_template": "b"}'}, "a"),
        ({"chat_template.json": '{"chat_template": "a"}'}, "a"),
        ({"tokenizer_config.json": '{"chat_template": [{"name": "default", "template": "a"}]}'}, "a"),
        (
            {
                "tokenizer_config.json": json.dumps(
                    {"chat_template": [{"name": name, "template": name} for name in ("default", "tool_use")]}
                )
            },
            "tool_use",
        ),
        ({"tokenizer_config.json": '{"chat_template": 7}'}, ""),
        ({"tokenizer_config.json": '{"chat_template": [{"name": ["tool_use"], "template": "a"}, 7]}'}, ""),
        ({"tokenizer_config.json": "[]"}, ""),
    ],
)
def test_a_chat_template_is_found_where_it_may_be(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    """A file of its own goes before the tokenizer's configuration, as Transformers has it."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert template_of(tmp_path) == expected


def copy_of_demo(directory: Path, **changes: Any) -> Path:
    """The demo model's directory with a changed configuration."""
    assert DEMO_DIRECTORY is not None
    config = json.loads((DEMO_DIRECTORY / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps({**config, **changes}))
    (directory / "model.safetensors").write_bytes((DEMO_DIRECTORY / "model.safetensors").read_bytes())
    return directory


def test_code_beside_the_weights_is_refused(tmp_path: Path) -> None:
    """`auto_map` asks an engine to run it."""
    with pytest.raises(BadFile, match="auto_map"):
        model_from_directory(copy_of_demo(tmp_path, auto_map={"AutoModel": "evil.Model"}))


def test_a_directory_without_what_is_needed_says_so(tmp_path: Path) -> None:
    """No configuration, no weights, only pickles, an unknown class, a cut file: each is one sentence."""
    with pytest.raises(FileMissing, match=r"config\.json"):
        model_from_directory(tmp_path)
    copy_of_demo(tmp_path, architectures=["Strange\x1b[2JForCausalLM"])
    strange = model_from_directory(tmp_path)
    assert strange.architecture is None
    assert "`Strange [2JForCausalLM`, whose shape is not known" in strange.warnings[0]
    assert "--engine transformers" in strange.warnings[0]
    copy_of_demo(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(BadFile):
        model_from_directory(tmp_path)
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileMissing):
        model_from_directory(tmp_path)


@settings(deadline=None)
@given(
    key=st.sampled_from(["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "head_dim"]),
    value=st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans(), st.lists(st.integers())),
)
def test_any_value_is_read_or_refused(key: str, value: Any) -> None:
    """Never an exception of another kind, never a shape out of bounds."""
    assert DEMO_DIRECTORY is not None
    config = json.loads((DEMO_DIRECTORY / CONFIG).read_text())
    refusal = None
    try:
        architecture = architecture_of_config(Path("m"), {**config, key: value})
        assert all(number <= 1 << 24 for number in dataclasses.astuple(architecture) if isinstance(number, int))
    except BadFile as error:
        refusal = error.message
    assert refusal is None or key in refusal
