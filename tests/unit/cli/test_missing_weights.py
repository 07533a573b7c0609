"""What is said of weights that are not here, and that following it works."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from serving.cli import run
from serving.registry import load_catalogue
from serving.synthetic.dummy import write_hollow

SITE = """
[models.own]
title = "Our own"
context = 1024

[models.own.architecture]
family = "llama"
layers = 2
embedding = 64
feed_forward = 128
heads = 4
kv_heads = 2
key_length = 16
value_length = 16
vocabulary = 2000

[[models.own.variants]]
name = "q8_0"
format = "gguf"
backends = ["llamacpp"]
"""


def commands(shown: str) -> list[list[str]]:
    """What is offered, as the arguments of `serve`."""
    return [shlex.split(line)[1:] for line in map(str.strip, shown.splitlines()) if line.startswith("serve models ")]


def test_a_published_model_can_be_pulled_or_imported(capsys: pytest.CaptureFixture[str]) -> None:
    """Both commands name the variant that this machine would serve, and the source to fetch elsewhere is told."""
    assert run(["--model", "llama3.2-1b", "--port", "0"]) == 4
    shown = capsys.readouterr().err
    assert max(map(len, shown.splitlines()[1:])) <= 132  # a published source is one word, and may be that long
    pull, bring = commands(shown)
    assert pull[:3] == ["models", "pull", "llama3.2-1b"]
    assert bring[:2] == ["models", "import"]
    assert pull[3:] == bring[-2:]
    assert pull[3] == "--variant"
    variant = next(each for each in load_catalogue().find("llama3.2-1b").variants if each.name == pull[-1])
    assert f"{variant.source}:" in shown
    assert variant.source is not None
    assert variant.source.partition("@")[0].endswith(Path(bring[2]).name)


def test_a_path_that_is_given_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a known shape too: what the entry says, that nothing is there, and where to correct it."""
    site, config = tmp_path / "site.toml", tmp_path / "serving.toml"
    config.write_text(f"[registry]\nsite_file = '{site}'\n")
    site.write_text(SITE + 'path = "gone.gguf"\n')
    assert run(["--model", "own", "--config", str(config), "--port", "0"]) == 4
    shown = capsys.readouterr().err
    assert f"`{tmp_path}/gone.gguf` (q8_0) does not exist" in shown
    assert f"correct the `path` of variant `q8_0` in `{site}`" in shown
    assert run(["models", "show", "own", "--config", str(config)]) == 0
    assert f"{tmp_path}/gone.gguf does not exist" in capsys.readouterr().out


def test_a_directory_that_is_not_there_is_named_where_another_engine_is_missing_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Safetensors alone, on a host without GPUs: whoever brings vLLM should know of the path as well."""
    site, config = tmp_path / "site.toml", tmp_path / "serving.toml"
    config.write_text(f"[registry]\nsite_file = '{site}'\n")
    entry = SITE.replace('"gguf"', '"safetensors"').replace('"llamacpp"', '"vllm"').replace("q8_0", "bf16")
    site.write_text(entry + 'path = "gone"\n')
    assert run(["plan", "own", "--backend", "llamacpp", "--config", str(config)]) == 6
    assert f"`{tmp_path}/gone` (bf16) does not exist" in capsys.readouterr().err


def test_what_is_offered_can_be_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import, with the path that the file has here, is all it takes; the model is then planned from the store."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    site, config = tmp_path / "site.toml", tmp_path / "serving.toml"
    config.write_text(f"[registry]\nsite_file = '{site}'\n")
    site.write_text(SITE)
    assert run(["--model", "own", "--config", str(config), "--port", "0"]) == 4
    ((*bring,),) = commands(capsys.readouterr().err)
    model = load_catalogue(site).find("own")
    here = tmp_path / Path(bring[2]).name
    write_hollow(model, model.variants[0], here)
    assert run([*bring[:2], str(here), *bring[3:], "--config", str(config)]) == 0
    assert run(["plan", "own", "--config", str(config)]) == 0
    assert str(tmp_path / "data" / "perimeter" / "store" / "trees" / "own") in capsys.readouterr().out


def test_a_model_without_shape_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What its entry says can be looked at before its file is there."""
    site, config = tmp_path / "site.toml", tmp_path / "serving.toml"
    config.write_text(f"[registry]\nsite_file = '{site}'\n")
    head, tail = SITE.split("[models.own.architecture]")
    site.write_text(head + tail[tail.index("[[") :])
    assert run(["models", "show", "own", "--config", str(config)]) == 0
    assert "no path given" in capsys.readouterr().out
    assert run(["plan", "own", "--config", str(config)]) == 4
    assert "None" not in capsys.readouterr().err
