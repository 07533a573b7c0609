"""What a directory of safetensors is for, and how it says that texts are pooled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.errors import BadFile
from serving.gguf import read_header
from serving.registry import load_catalogue
from serving.registry.directory import model_from_directory
from serving.registry.local import model_of
from serving.registry.model import Kind
from tests.llamacpp.encoders.weights import ENCODERS, POSITIONS, write_gguf, write_transformers


def change(path: Path, **values: Any) -> None:
    """Change a JSON file; None takes a key out."""
    told = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))


@pytest.mark.parametrize(
    ("name", "kind", "pooling"),
    [
        ("bert-cls", "embedding", "cls"),
        ("bert-mean", "embedding", "mean"),
        ("xlmr-mean", "embedding", "mean"),
        ("xlmr-rank", "reranker", "rank"),
    ],
)
def test_a_directory_is_what_the_file_made_of_it_is(name: str, kind: Kind, pooling: str, tmp_path: Path) -> None:
    """The same kind, context and shape as the GGUF of the same weights."""
    found = model_from_directory(write_transformers(ENCODERS[name], tmp_path))
    file = model_of(read_header(write_gguf(ENCODERS[name], tmp_path)))
    assert (found.kind, found.context, found.architecture) == (file.kind, file.context, file.architecture)
    assert (found.kind, found.context) == (kind, POSITIONS)
    (variant,) = found.variants
    assert (variant.pooling, variant.name, variant.backends) == (pooling, "f32", ("vllm",))


def test_how_texts_are_pooled_is_read_or_left_unsaid(tmp_path: Path) -> None:
    """Both spellings of the file; nothing is guessed where it is not there."""
    directory = write_transformers(ENCODERS["xlmr-mean"], tmp_path)
    pooling = directory / "1_Pooling/config.json"
    for told, expected in (
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False}, "last"),
    ):
        pooling.write_text(json.dumps(told))
        assert model_from_directory(directory).variants[0].pooling == expected
    pooling.unlink()
    assert model_from_directory(directory).variants[0].pooling is None


@pytest.mark.parametrize(
    ("file", "values", "says"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "not served"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "not served"),
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    file: str, values: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """By name."""
    directory = write_transformers(ENCODERS["xlmr-mean"], tmp_path)
    change(directory / file, **values)
    with pytest.raises(BadFile, match=says):
        model_from_directory(directory)


def test_a_step_after_pooling_is_refused(tmp_path: Path) -> None:
    """Its matrix would be left out, and the vectors be others."""
    directory = write_transformers(ENCODERS["xlmr-mean"], tmp_path)
    modules = json.loads((directory / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BadFile, match="a step `Dense`"):
        model_from_directory(directory)


def test_a_classifier_of_several_labels_ranks_nothing(tmp_path: Path) -> None:
    """Two are Transformers' own default, where nothing is said."""
    directory = write_transformers(ENCODERS["xlmr-rank"], tmp_path)
    change(directory / "config.json", id2label=None, label2id=None)
    with pytest.raises(BadFile, match="classifies into 2 labels"):
        model_from_directory(directory)


def test_a_decoder_with_a_pooling_beside_it_embeds(tmp_path: Path) -> None:
    """Its class is that of one that writes (Qwen3-Embedding); modules.json tells them apart."""
    demo = next(variant.path for variant in load_catalogue().find("demo").variants if variant.format == "safetensors")
    assert demo is not None
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((demo / name).read_bytes())
    assert model_from_directory(tmp_path).kind == "chat"
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in steps]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    found = model_from_directory(tmp_path)
    assert (found.kind, found.variants[0].pooling) == ("embedding", "last")


def test_texts_are_no_longer_than_any_of_its_files_allows(tmp_path: Path) -> None:
    """sentence-transformers' limit and the tokenizer's; one without a bound says 10^30."""
    directory = write_transformers(ENCODERS["xlmr-mean"], tmp_path)
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128}))
    assert model_from_directory(directory).context == 128
    (directory / "sentence_bert_config.json").unlink()
    change(directory / "tokenizer_config.json", model_max_length=10**30)
    assert model_from_directory(directory).context == POSITIONS


def test_a_catalogue_entry_and_its_directory_agree(tmp_path: Path) -> None:
    """What the directory is for must be what the entry says."""
    directory = write_transformers(ENCODERS["xlmr-rank"], tmp_path)
    entry = f'[[models.bge-m3.variants]]\nname = "f32"\npath = "{directory}"\n'
    site = tmp_path / "site.toml"
    site.write_text(entry)
    with pytest.raises(BadFile, match="of the kind `reranker`"):
        load_catalogue(site).find("bge-m3")
