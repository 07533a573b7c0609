"""Directories that only Transformers itself can judge: one line that says why, and the status of that error."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hf.conftest import MODELS

pytestmark = pytest.mark.transformers

LastWords = Callable[..., dict[str, object]]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODELS / "hf", tmp_path / "model"))


def change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


class Trap:
    """A pickle that writes a file where it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_nothing_that_a_directory_brings_is_run(directory: Path, tmp_path: Path, last_words: LastWords) -> None:
    """Neither its pickles nor its Python."""
    mark = tmp_path / "was-run"
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(mark)))
    (directory / "mine.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Mine: pass\n")
    change(directory / "config.json", auto_map={"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"})
    told = last_words(directory)
    assert (told["status"], told["code"]) == (5, "bad_file")
    assert "auto_map" in str(told["message"])
    change(directory / "config.json", auto_map=None)
    (directory / "model.safetensors").unlink()
    told = last_words(directory)
    assert (told["status"], told["code"]) == (5, "bad_file")
    assert "pytorch_model.bin" in str(told["message"])
    assert not mark.exists()


def test_a_directory_that_is_not_there_is_said_at_once(tmp_path: Path, last_words: LastWords) -> None:
    """With the status of a missing file."""
    told = last_words(tmp_path / "nowhere")
    assert (told["status"], told["code"]) == (4, "file_missing")
    assert told["hint"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"model_type": "of-tomorrow"}, "does not accept"),
        ({"model_type": "bert"}, "bert|parameters|lack"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "t5"),
        ({"num_hidden_layers": 6}, "parameters"),
        ({"hidden_size": 255}, "could not load|cannot build|parameters|does not accept"),
        ({"vocab_size": 10**12}, "parameters|cannot build"),
        ({"intermediate_size": 600}, "could not load|lack"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    directory: Path, last_words: LastWords, entries: dict[str, object], said: str
) -> None:
    """Weights that are missing are never made up."""
    change(directory / "config.json", **entries)
    told = last_words(directory)
    assert (told["status"], told["code"]) == (5, "bad_file"), told
    assert any(word in str(told["message"]) for word in said.split("|")), told
    assert told["hint"]


def test_a_tokenizer_and_a_template_that_are_none_are_refused(directory: Path, last_words: LastWords) -> None:
    """By name of what is wrong."""
    template = directory / "chat_template.jinja"
    template.write_text("{% if %}")
    assert "chat template" in str(last_words(directory)["message"])
    (directory / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}')
    told = last_words(directory)
    assert (told["status"], told["code"]) == (5, "bad_file")
    assert "tokenizer" in str(told["message"])


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(directory: Path, last_words: LastWords) -> None:
    """A file with a hole of 512 GiB in it: nothing of that is allocated."""
    weights = directory / "model.safetensors"
    data = weights.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    huge = 1 << 39
    header["zz.huge"] = {"dtype": "BF16", "shape": [huge // 2], "data_offsets": [end, end + huge]}
    raw = json.dumps(header).encode()
    with weights.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw + data[8 + length :])
        file.truncate(8 + len(raw) + end + huge)
    told = last_words(directory)
    assert (told["status"], told["code"]) == (6, "no_fit"), told
    assert "512.0 GiB" in str(told["message"])


def test_a_gpu_that_is_not_there_is_no_cpu(last_words: LastWords, hf_python: str) -> None:
    """`--device cuda` without one is refused, never served slowly."""
    asked = [hf_python, "-c", "import torch; print(torch.cuda.is_available())"]
    if "True" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout:
        pytest.skip("there is a GPU here")
    told = last_words(MODELS / "hf", "--device", "cuda")
    assert (told["status"], told["code"]) == (11, "gpu_missing")
