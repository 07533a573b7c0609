"""LoRA adapters: what is read of them, and which are refused before an engine sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import BadFile, BadSettings, FileMissing
from serving.registry.adapter import CONFIG, WEIGHTS, read_adapter
from tests.support.lora import write_adapter


def test_the_largest_rank_is_read(tmp_path: Path) -> None:
    """Of `r` and of the patterns over it; the path is whole, since an engine works elsewhere."""
    found = read_adapter("legal", write_adapter(tmp_path / "a"))
    assert (found.name, found.rank, found.path) == ("legal", 4, (tmp_path / "a").resolve())
    assert read_adapter("x", write_adapter(tmp_path / "b", rank_pattern={"q_proj": 24})).rank == 24


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"peft_type": "IA3"}, "`IA3`, not LORA"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"r": 2}, "matrices of rank 4"),
        ({"r": True}, "a rank that is not"),
        ({"r": 513}, "a rank that is not"),
        ({"rank_pattern": {"q_proj": "8"}}, "a rank that is not"),
        ({"rank_pattern": 8.5}, "a rank that is not"),
    ],
)
def test_what_vllm_would_not_compute_is_refused(tmp_path: Path, config: dict[str, object], says: str) -> None:
    """Each refusal says what the adapter has, before a minute of loading."""
    with pytest.raises(BadFile, match=says):
        read_adapter("legal", write_adapter(tmp_path / "a", **config))


def test_only_safetensors_are_taken(tmp_path: Path) -> None:
    """A pickle beside the configuration is no adapter, nor is a directory without configuration."""
    directory = write_adapter(tmp_path / "a")
    (directory / WEIGHTS).rename(directory / "adapter_model.bin")
    with pytest.raises(FileMissing):
        read_adapter("legal", directory)
    (directory / CONFIG).unlink()
    with pytest.raises(FileMissing, match=CONFIG):
        read_adapter("legal", directory)


@pytest.mark.parametrize("name", ["", "-x", "a b", "x" * 129, "a\n"])
def test_a_name_is_one_that_requests_can_use(tmp_path: Path, name: str) -> None:
    """Names go to an engine's command line, into logs and metrics."""
    with pytest.raises(BadSettings):
        read_adapter(name, write_adapter(tmp_path / "a"))
