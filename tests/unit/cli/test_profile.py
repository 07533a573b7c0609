"""A profile is beneath everything that a person asks for, and of one machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from serving.cli.options import PlanOptions, wishes_from
from serving.cli.profile import (
    Profile,
    Profiles,
    TunedWishes,
    fingerprint,
    profile_path,
    read_profile,
    tuned_by,
    write_profile,
)
from serving.errors import BadSettings, NoFitError
from serving.hardware import Cpu, Machine
from serving.settings import Settings

MACHINE = Machine(cpu=Cpu(model="x", usable=(0, 1), cores=(0, 1)))


def settings_in(directory: Path, **engines: object) -> Settings:
    """Those whose cache is there."""
    return Settings.model_validate({"paths": {"cache_dir": str(directory)}, "engines": engines})


def profile(**wishes: str | int) -> Profile:
    """One of this machine."""
    told = TunedWishes.model_validate(wishes)
    return Profile("m/x", fingerprint(MACHINE), "llamacpp", told, "chat", "2026-01-01T00:00:00+00:00", 1.2)


def test_what_was_kept_is_found_again_here_alone(tmp_path: Path) -> None:
    """Not on a machine with another processor, not for another model, not where it is broken or was not wanted."""
    settings = settings_in(tmp_path)
    kept = profile(variant="q4_0", threads=1)
    path = profile_path(settings, "m/x")
    write_profile(path, kept)
    assert path.parent.parent == tmp_path
    assert read_profile(settings, "m/x", MACHINE) == kept
    assert read_profile(settings, "m/x", replace(MACHINE, cpu=replace(MACHINE.cpu, usable=(0,)))) is None
    assert read_profile(settings, "m_x", MACHINE) is None, "another model whose file has this name"
    assert Profiles(settings, MACHINE, are_wanted=False).wishes_of("m/x", PlanOptions()) == {}
    off = settings_in(tmp_path, profiles=False)
    assert Profiles(off, MACHINE).wishes_of("m/x", PlanOptions()) == {}
    whole = path.read_text()
    for was, now in (("threads", "rm -rf"), ('"threads": 1', '"threads": -1'), ("llamacpp", "sh")):
        path.write_text(whole.replace(was, now))
        assert read_profile(settings, "m/x", MACHINE) is None
    path.write_text("{")
    assert read_profile(settings, "m/x", MACHINE) is None
    write_profile(path, None)
    assert not path.exists()


def test_a_person_has_their_way(tmp_path: Path) -> None:
    """A flag, or a setting, of the same name; another engine or variant makes all of it void."""
    found = profile(variant="q4_0", threads=1, ubatch=256)
    assert tuned_by(found, PlanOptions()) == {"backend": "llamacpp", "variant": "q4_0", "threads": 1, "ubatch": 256}
    assert tuned_by(found, PlanOptions(variant="f16")) == {}
    assert tuned_by(found, PlanOptions(backend="vllm")) == {}
    assert tuned_by(None, PlanOptions()) == {}
    plain = wishes_from(settings_in(tmp_path), PlanOptions(), tuned_by(found, PlanOptions()))
    assert (plain.variant, plain.threads, plain.ubatch, plain.backend) == ("q4_0", 1, 256, "llamacpp")
    flagged = wishes_from(settings_in(tmp_path), PlanOptions(threads=2, ubatch=64), tuned_by(found, PlanOptions()))
    assert (flagged.threads, flagged.ubatch) == (2, 64)
    configured = settings_in(tmp_path, llamacpp={"threads": 4, "ubatch": 1024})
    told = wishes_from(configured, PlanOptions(), tuned_by(found, PlanOptions()))
    assert (told.threads, told.ubatch, told.variant) == (4, 1024, "q4_0")


def test_a_profile_that_no_longer_fits_is_given_up_and_said(tmp_path: Path) -> None:
    """A refusal that is none of its making stays one."""
    settings = settings_in(tmp_path)
    write_profile(profile_path(settings, "m/x"), profile(concurrency=200))
    profiles = Profiles(settings, MACHINE)
    assert profiles.wishes_of("m/x", PlanOptions()) == {"backend": "llamacpp", "concurrency": 200}
    assert "concurrency 200" in profiles.lines()[0]
    (said,) = profiles.given_up(NoFitError("too much"))
    assert "too much" in said
    assert profiles.lines() == []
    with pytest.raises(NoFitError):
        profiles.given_up(NoFitError("still too much"))


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """With the setting that moves it."""
    (tmp_path / "profiles").write_text("in the way")
    with pytest.raises(BadSettings, match="cannot be written"):
        write_profile(profile_path(settings_in(tmp_path), "m"), profile())
