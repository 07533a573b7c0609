"""The levels of x86-64 and the flags that make them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import NoFitError
from serving.hardware.cpu import ISA_THAT_MATTERS
from serving.hardware.known import machine
from serving.wheels import LEVELS, flags_of, lacking, level_of, require_level

FLAGS = [*flags_of(4), "avx512_vnni", "asimd"]
NEHALEM = flags_of(2)
SANDY_BRIDGE = (*NEHALEM, "avx", "xsave")


@pytest.mark.parametrize(
    ("flags", "level"),
    [((), 1), (NEHALEM, 2), (SANDY_BRIDGE, 2), (flags_of(3), 3), ((*flags_of(3), "avx512f"), 3), (FLAGS, 4)],
)
def test_a_level_needs_all_of_its_flags(flags: tuple[str, ...], level: int) -> None:
    """AVX alone is no v3, and AVX-512's foundation alone no v4."""
    assert level_of(flags) == level


@given(st.sets(st.sampled_from(FLAGS)), st.sampled_from(FLAGS))
def test_more_flags_are_never_a_lower_level(flags: set[str], another: str) -> None:
    """And the level that is found is the highest one that nothing is lacking of."""
    level = level_of(flags)
    assert not lacking(flags_of(level), flags)
    assert all(lacking(flags_of(above), flags) for above in LEVELS if above > level)
    assert level_of(flags | {another}) >= level


@given(st.sampled_from(sorted(LEVELS)), st.sets(st.sampled_from(FLAGS)))
def test_a_host_is_refused_if_and_only_if_it_is_below(level: int, flags: set[str]) -> None:
    """By the name of each flag that is missing, and of no other."""
    if level_of(flags) >= level:
        require_level(level, "x86_64", flags, "it")
    else:
        with pytest.raises(NoFitError) as refused:
            require_level(level, "x86_64", flags, "it")
        told = {flag for flag in FLAGS if f"`{flag}`" in refused.value.message}
        assert told == set(flags_of(level)) - flags


def test_the_refusal_reads_well() -> None:
    """What asks for which level, what is there, and what is missing."""
    with pytest.raises(NoFitError) as refused:
        require_level(3, "x86_64", (*SANDY_BRIDGE, *set(flags_of(3)) - {"avx2", "fma"}), "wheel `a.whl`")
    assert refused.value.for_terminal() == (
        "error: wheel `a.whl` needs x86-64-v3; this host's processor is x86-64-v2: it lacks `avx2`, `fma`\n"
        "hint: take what was built for x86-64-v2"
    )


@pytest.mark.parametrize(("architecture", "says"), [("aarch64", "is aarch64"), (None, "could not be read")])
def test_another_architecture_is_no_level(architecture: str | None, says: str) -> None:
    """Nor is a processor that nobody could look at, not even the lowest."""
    with pytest.raises(NoFitError, match=says):
        require_level(1, architecture, FLAGS, "it")


def test_the_hardware_reads_what_the_levels_are_made_of() -> None:
    """`Cpu.isa` has every flag that a level asks for, also of a machine that is only known by name."""
    assert set(flags_of(4)) <= set(ISA_THAT_MATTERS)
    assert level_of(machine("H100", 1).cpu.isa) == 4
