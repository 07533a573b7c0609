"""What an engine leaves in its directory harms neither the next life nor the gateway."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from serving.engines import vllm_output
from serving.engines.confinement.means import targets_of
from serving.engines.runtime import clear, release
from serving.errors import NoFitError, StartError
from serving.gateway.engine import loading_of
from serving.telemetry.metrics import relabel

DEPTH = 1500


def _deep(directory: Path) -> None:
    """Directories in each other, deeper than recursion and a path's length can go."""
    directory.mkdir(parents=True, exist_ok=True)
    at = os.open(directory, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def test_a_directory_of_any_depth_is_removed(tmp_path):
    """With what is not ours to enter in it, links that lead out, sockets and names in the way."""
    state = tmp_path / "engine.d"
    _deep(state / "own")
    (state / "own" / "engine.sock").mkdir()
    (state / "own" / "closed").mkdir(mode=0)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("here")
    (state / "own" / "link").symlink_to(kept)
    os.mkfifo(state / "own" / "pipe")
    began = time.monotonic()
    release(state)
    assert not state.exists()
    assert (kept / "file").read_text() == "here"
    assert time.monotonic() - began < 10


def test_a_directory_is_emptied_and_stays(tmp_path):
    """For the next life."""
    own = tmp_path / "own"
    _deep(own)
    (own / "serving").mkdir()
    (own / "serving" / "__init__.py").write_text("raise SystemExit")
    clear(own)
    assert list(own.iterdir()) == []
    clear(tmp_path / "none")


def test_links_in_a_model_show_weights_and_nothing_else(tmp_path):
    """Neither directories, nor this user's files, whatever the link is called."""
    secret, weights = tmp_path / "settings.toml", tmp_path / "elsewhere" / "model.safetensors"
    secret.write_text("key")
    weights.parent.mkdir()
    weights.write_text("weights")
    model = tmp_path / "models" / "snapshots" / "abc"
    model.mkdir(parents=True)
    blob = tmp_path / "models" / "blobs" / "123"
    blob.parent.mkdir()
    blob.write_text("{}")
    for name, target in {
        "config.json": blob,
        "model.safetensors": weights,
        "assets": tmp_path,
        "root": Path("/"),
        "tokenizer.json": secret,
        "model-2.safetensors": secret,
        "gone.safetensors": tmp_path / "gone.safetensors",
    }.items():
        (model / name).symlink_to(target)
    assert set(targets_of([model])) == {model, blob, weights}
    named = tmp_path / "named"
    named.symlink_to(model)
    assert set(targets_of([named])) >= {named, model}


@pytest.mark.parametrize("numbers", ["(1/0 GiB)", "(1.1.1/2 GiB)", "(9999999999/1 GiB)", "(./. GiB)"])
def test_last_words_with_impossible_numbers_are_an_error_like_others(numbers):
    """They come from the engine."""
    line = f"Free memory on device cuda:0 {numbers} on startup is less than desired GPU memory utilization (0.9, 1 GiB)"
    assert isinstance(vllm_output.failure_of("m", [line]), NoFitError | None)


def test_endless_numbers_of_progress_are_bounded():
    """No more than a line of text."""
    many = "9" * 6000
    told = vllm_output.stage_of([f"Loading safetensors checkpoint shards: {many}% Completed"])
    assert told is None or 0 <= told[0] <= 1
    assert vllm_output.capacity_of([f"GPU KV cache size: {many} tokens"]) is not None
    assert vllm_output.capacity_of(["GPU KV cache size: , tokens"]) in (None, 0)


@pytest.mark.parametrize("progress", ["1" + "0" * 400, "-1", "true", '"x"', "null", "NaN", "Infinity"])
def test_progress_that_is_none_is_not_taken(progress):
    """Nor is a stage that nobody can print."""
    loading = loading_of(503, f'{{"progress": {progress}, "stage": "a\\ud800\\u001b[2Jb"}}'.encode())
    assert loading is not None
    assert loading.fraction is None
    assert loading.stage == "a[2Jb"


@pytest.mark.parametrize(
    "line",
    [
        'x{a="1",a="2"} 1',
        'x{model="other",exported_model="m"} 1',
        "x{anything} 1",
        "x 1_0",
        "x \N{FULLWIDTH DIGIT ONE}",
        "# TYPE x evil",
        'x{a="1"b="2"} 1',
    ],
)
def test_an_engine_cannot_break_the_page_of_metrics(line):
    """What the format does not know, or what has a label twice, is dropped; the rest stays."""
    page = relabel([({"model": "m"}, f"{line}\n# TYPE y counter\ny 2\ny 3\n")])
    assert page == '# TYPE y counter\ny{model="m"} 2\n'


def test_an_error_cannot_steer_the_terminal():
    """Words of engines and files are in it."""
    shown = StartError("a\x1b]0;title\x07b\ud800", hint="c\x1b[2J").for_terminal()
    assert "\x1b" not in shown
    assert shown.count("\n") == 1
    shown.encode()
