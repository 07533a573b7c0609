"""The runtime and cache directories: ours alone, found where the settings say, and nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.cli import run
from serving.cli.runtime import cache_dir, look_at_cache_dir, look_at_runtime_dir, runtime_dir, runtime_path
from serving.errors import BadSettings

MINE = f"perimeter-{os.getuid()}"


def modes(root: Path) -> dict[Path, int]:
    """Everything beneath a directory, and what may be done with it."""
    return {path: path.lstat().st_mode for path in (root, *root.rglob("*"))}


def test_a_directory_for_everybody_is_not_ours_to_have(tmp_path: Path) -> None:
    """In one like /tmp, there is one of our own; its mode stays."""
    tmp_path.chmod(0o1777)
    assert runtime_dir(tmp_path, {}) == tmp_path / MINE
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / MINE).stat().st_mode & 0o7777 == 0o700
    assert runtime_dir(None, {"TMPDIR": str(tmp_path)}) == tmp_path / MINE


@pytest.mark.parametrize("command", ["doctor", "--model"])
def test_a_directory_that_is_there_keeps_its_mode(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both refuse one that others may enter, with its mode; neither changes it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    config = tmp_path / "serving.toml"
    config.write_text(f"[paths]\nruntime_dir = '{shared}'\n")
    before = modes(tmp_path)
    arguments = ["doctor"] if command == "doctor" else ["--model", "demo", "--port", "0"]
    assert run([*arguments, "--config", str(config)]) == (12 if command == "doctor" else 8)
    shown = " ".join("".join(capsys.readouterr()).split())
    assert "has mode 0755" in shown
    assert "chmod 700" in shown
    assert modes(tmp_path) == before


def test_looking_makes_nothing(tmp_path: Path) -> None:
    """Directories that are not there yet are found good, and still are not there."""
    assert look_at_runtime_dir(tmp_path / "a/b", {}) == tmp_path / "a/b"
    assert look_at_cache_dir(tmp_path / "c", {}) == tmp_path / "c"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/proc/nope", "/etc/passwd", "/etc/passwd/x", "/sys/kernel/x"])
def test_what_cannot_be_a_directory_is_said_without_trying(path: str) -> None:
    """The settings that name it are named."""
    with pytest.raises(BadSettings) as caught:
        look_at_cache_dir(Path(path), {})
    assert "paths.cache_dir" in str(caught.value.hint)
    with pytest.raises(BadSettings) as caught:
        look_at_runtime_dir(Path(path), {})
    assert "paths.runtime_dir" in str(caught.value.hint)


def test_a_relative_directory_starts_where_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines work elsewhere, so that it is made absolute; `~` is the home directory."""
    monkeypatch.chdir(tmp_path)
    assert runtime_path(Path("run"), {}) == tmp_path / "run"
    assert cache_dir(Path("cache"), {}) == tmp_path / "cache"
    assert runtime_path(Path("~/run"), {}) == Path.home() / "run"


@pytest.mark.parametrize("path", ["/proc/nope", "/etc/passwd", "/sys/kernel/x"])
def test_synthetic_weights_that_cannot_be_written_are_a_matter_of_settings(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 8 with the setting's name, and nothing internal about it; `serve doctor` knows before."""
    monkeypatch.setenv("PERIMETER_PATHS__CACHE_DIR", path)
    assert run(["--model", "demo", "--dummy-weights", "--port", "0"]) == 8
    shown = capsys.readouterr().err
    assert path in shown
    assert "hint: set paths.cache_dir" in shown
    run(["doctor"])
    assert f"the cache directory `{path}` cannot be used" in " ".join(capsys.readouterr().out.split())
