"""What is said of weights that are not here, and that following it works."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from serving.cli import run
from serving.cli.plan import SITE_CATALOGUE
from serving.registry import load_catalogue
from serving.store.dummy import write_hollow

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


def blocks(hint: str) -> list[str]:
    """The indented paragraphs that are TOML."""
    return [textwrap.dedent(part) for part in hint.split("\n\n") if "=" in part]


def test_what_is_offered_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both blocks go into their files as they stand, with the paths of this host; the model is then here."""
    assert run(["--model", "llama3.2-1b", "--port", "0"]) == 4
    shown = capsys.readouterr().err
    assert max(map(len, shown.splitlines()[1:])) <= 132  # a published source is one word, and may be that long
    catalogue, settings = blocks(shown)
    model = load_catalogue().find("llama3.2-1b")
    site, config = tmp_path / "models.toml", tmp_path / "serving.toml"
    site.write_text(catalogue.replace("/models/", f"{tmp_path}/"))
    config.write_text(settings.replace(str(SITE_CATALOGUE), str(site)))
    name = site.read_text().split("/")[-1].split('"')[0]
    variant = next(variant for variant in model.variants if f'name = "{variant.name}"' in catalogue)
    write_hollow(model, variant, tmp_path / name)
    assert run(["plan", "llama3.2-1b", "--config", str(config), "--variant", variant.name]) == 0
    assert str(tmp_path / name) in capsys.readouterr().out


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


def test_an_entry_of_the_site_is_completed_where_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line goes into the variant; no second entry is made."""
    site, config = tmp_path / "site.toml", tmp_path / "serving.toml"
    config.write_text(f"[registry]\nsite_file = '{site}'\n")
    site.write_text(SITE)
    assert run(["--model", "own", "--config", str(config), "--port", "0"]) == 4
    shown = capsys.readouterr().err
    assert f"add to its variant `q8_0` in {site}" in shown
    (line,) = blocks(shown)
    site.write_text(SITE + line.replace("/models/", f"{tmp_path}/"))
    model = load_catalogue(site).find("own")
    write_hollow(model, model.variants[0], tmp_path / "own-q8_0.gguf")
    assert run(["plan", "own", "--config", str(config)]) == 0
    assert str(tmp_path / "own-q8_0.gguf") in capsys.readouterr().out


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
