"""What is refused before Transformers sees it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.errors import BadFile, FileMissing
from serving.hf.directory import inspect

DEMO = Path(__file__).parents[3] / "serving" / "models" / "demo" / "hf"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_a_sound_directory_is_counted(directory: Path) -> None:
    """The elements are those of the headers, the bytes those of the files."""
    contents = inspect(directory)
    assert contents.elements == 2_902_272
    assert contents.stored_bytes == (directory / "model.safetensors").stat().st_size


def test_what_is_not_a_directory_is_said_to_be_none(tmp_path: Path) -> None:
    """Missing, and a file."""
    with pytest.raises(FileMissing, match="there is no directory"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(BadFile, match="not a directory") as raised:
        inspect(DEMO / "config.json")
    assert "llama.cpp" in str(raised.value.hint)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_is_missing_is_named(directory: Path, name: str) -> None:
    """Each of the three that are needed."""
    (directory / name).unlink()
    with pytest.raises(FileMissing, match=name):
        inspect(directory)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '"\ud800'])
def test_a_configuration_that_is_no_object_is_refused(directory: Path, name: str, text: str) -> None:
    """Cut in half, of another kind, nested without end, not UTF-8."""
    (directory / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BadFile, match=name):
        inspect(directory)


def test_weights_that_are_cut_are_refused(directory: Path) -> None:
    """Half a file is no file."""
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3_000_000])
    with pytest.raises(BadFile, match="truncated"):
        inspect(directory)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "tf_model.h5"])
def test_pickled_weights_are_refused_by_name(directory: Path, name: str) -> None:
    """With what to do about it."""
    (directory / "model.safetensors").rename(directory / name)
    with pytest.raises(BadFile, match=name) as raised:
        inspect(directory)
    assert "safetensors" in str(raised.value.hint)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("auto_map", {"AutoModelForCausalLM": "mine.Mine"}),
        ("quantization_config", {"quant_method": "gptq"}),
        ("attn_implementation", "somebody/attention"),
        ("_attn_implementation", {"text_config": "somebody/attention@main:run"}),
        ("_experts_implementation", "somebody/experts"),
    ],
)
@pytest.mark.parametrize("nest", [lambda entry: entry, lambda entry: {"text_config": [entry]}])
def test_what_names_code_is_refused_wherever_it_stands(
    directory: Path,
    name: str,
    entry: str,
    value: object,
    nest: Callable[[dict[str, object]], dict[str, object]],
) -> None:
    """At the top, and inside of another part."""
    change(directory / name, **nest({entry: value}))
    with pytest.raises(BadFile, match=entry):
        inspect(directory)


def test_names_of_transformers_own_are_let_through(directory: Path) -> None:
    """`eager` is no repository, and null is nothing."""
    change(directory / "config.json", attn_implementation="eager", quantization_config=None, auto_map={})
    assert inspect(directory).elements


def test_an_adapter_is_no_model(directory: Path) -> None:
    """It would be followed to whatever base it names."""
    (directory / "adapter_config.json").write_text("{}")
    with pytest.raises(BadFile, match="adapter"):
        inspect(directory)


def test_more_layers_than_tensors_are_never_built(directory: Path) -> None:
    """A configuration of a billion layers ends here, not with all memory taken."""
    change(directory / "config.json", num_hidden_layers=10**9)
    with pytest.raises(BadFile, match="num_hidden_layers"):
        inspect(directory)
