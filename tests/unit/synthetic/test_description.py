"""The directory that vLLM makes synthetic weights from says the very shape that the catalogue has."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tokenizers

from serving.errors import BadSettings, UsageError
from serving.hardware.known import machine
from serving.planner import Engines, VllmPlan, Wishes, plan
from serving.registry import Model, load_catalogue
from serving.registry.directory import CONFIG, architecture_of_config
from serving.synthetic import write_description
from serving.synthetic.description import configuration

NOT_MADE = {"demo", "gigachat-20b-a3b"}
"""One whose shape is in its file alone, one whose family Transformers has under a name with code of its own."""
CHATS = [model for model in load_catalogue().models if model.kind == "chat" and model.name not in NOT_MADE]


@pytest.mark.parametrize("model", CHATS, ids=lambda model: model.name)
def test_every_chat_model_of_the_catalogue_is_described(model: Model) -> None:
    """What a reader of the configuration sees is the catalogue's architecture, number for number."""
    (variant,) = [each for each in model.variants if each.format == "safetensors"]
    config = configuration(model, variant)
    assert architecture_of_config(Path("x"), config) == model.architecture
    assert config["max_position_embeddings"] == model.context
    assert ("quantization_config" in config) == (variant.name in ("fp8", "mxfp4-hf"))
    assert "auto_map" not in config


def test_it_is_planned_as_the_model_itself(tmp_path: Path) -> None:
    """On a GPU: the same cache and the same bytes, so that what synthetic weights show there is the model's."""
    model = load_catalogue().find("llama3-8b")
    (variant,) = [each for each in model.variants if each.format == "safetensors"]
    here = dataclasses.replace(variant, path=write_description(model, variant, tmp_path))
    made = dataclasses.replace(model, variants=(here,), dummy=True)
    wishes, engines = Wishes(backend="vllm"), Engines(vllm=True)
    real = plan(machine("H200", 1), model, dataclasses.replace(wishes, variant="bf16"), engines)
    planned = plan(machine("H200", 1), made, wishes, engines)
    assert isinstance(planned, VllmPlan)
    assert planned == dataclasses.replace(real, weights=here.path, dummy=True, rejected=planned.rejected, reasons=())


def test_every_token_of_a_large_vocabulary_has_its_own_number(tmp_path: Path) -> None:
    """A duplicate would leave ids that decode to nothing; and a word of the benchmarks' load is one token."""
    model = load_catalogue().find("llama3-8b")
    (variant,) = [each for each in model.variants if each.format == "safetensors"]
    path = write_description(model, variant, tmp_path) / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    assert set(tokenizer.get_vocab().values()) == set(range(128_256))
    assert len(tokenizer.encode("aqa bqb").ids) == 2


def test_what_cannot_be_described_is_refused() -> None:
    """With another way; nothing else is measured in its place."""
    catalogue = load_catalogue()
    for name in ("gigachat-20b-a3b", "bge-m3"):
        model = catalogue.find(name)
        variant = next(each for each in model.variants if each.format == "safetensors")
        with pytest.raises(UsageError) as caught:
            configuration(model, variant)
        assert "--backend llamacpp" in str(caught.value.hint)


def test_it_is_written_once_and_whole(tmp_path: Path) -> None:
    """A second time it is as it was; what an ended run left half-made is made again."""
    model = load_catalogue().find("llama3-8b")
    (variant,) = [each for each in model.variants if each.format == "safetensors"]
    path = write_description(model, variant, tmp_path / "dummy")
    stamp = (path / CONFIG).stat().st_mtime_ns
    half = path.with_name(f"{path.name}.partial")
    half.mkdir()
    (half / "tokenizer.json").write_text("{")
    assert write_description(model, variant, tmp_path / "dummy") == path
    assert (path / CONFIG).stat().st_mtime_ns == stamp
    (path / CONFIG).unlink()
    (path / "tokenizer.json").unlink()
    (path / "tokenizer_config.json").unlink()
    path.rmdir()
    assert write_description(model, variant, tmp_path / "dummy") == path
    tokens = json.loads((path / "tokenizer.json").read_text())
    assert len(tokens["model"]["vocab"]) + len(tokens["added_tokens"]) == 128_256
    assert not half.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """And the setting that says another."""
    (tmp_path / "file").write_text("")
    model = load_catalogue().find("llama3-8b")
    variant = next(each for each in model.variants if each.format == "safetensors")
    with pytest.raises(BadSettings) as caught:
        write_description(model, variant, tmp_path / "file")
    assert "paths.cache_dir" in str(caught.value.hint)
