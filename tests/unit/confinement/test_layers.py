"""What is run for an engine on a host that offers this and not that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.confinement.launch import NAMESPACES
from serving.engines.confinement.layers import FILES, Means, Mount, check_sealed, plan_confinement
from serving.engines.confinement.walls import Confinement
from serving.engines.spec import EngineSpec
from serving.errors import EngineFailed, NotSealed

OWN = Path("/run/perimeter/engine-7.d/own")
SYSTEM = (Mount("ro", Path("/usr"), "/usr"), Mount("link", Path("/bin"), "usr/bin"))
MEANS = Means(
    python=Path("/opt/venv/bin/python"),
    package=Path("/opt/venv/lib/serving"),
    machine="x86_64",
    system=SYSTEM,
    proc=(Mount("ro", Path("/proc/sys"), "/proc/sys"),),
    gpu=(Mount("dev", Path("/dev/nvidia0"), "/dev/nvidia0"),),
    pythons=(("/opt/venv/bin/python", (Path("/opt/venv"),)), ("/opt/vllm/bin/python", (Path("/opt/vllm"),))),
)
SPEC = EngineSpec(
    "m",
    "vllm",
    argv=("/opt/vllm/bin/python", "-I", "-m", "vllm"),
    env=(("PATH", "/usr/bin"), ("HOME", str(OWN))),
    socket=OWN / "engine.sock",
    reads=(Path("/srv/models/m"),),
    writes=(Path("/var/cache/m"),),
)
namespaces = st.frozensets(st.sampled_from(sorted(NAMESPACES)))
means = st.builds(
    Means,
    python=st.just(MEANS.python),
    package=st.just(MEANS.package),
    bwrap=st.none() | st.just(Path("/usr/bin/bwrap")),
    namespaces=namespaces,
    machine=st.sampled_from([None, "x86_64", "aarch64"]),
    calls_lack=st.just("no seccomp"),
    swap=st.none() | st.just("it swaps"),
    system=st.just(SYSTEM),
    proc=st.just(MEANS.proc),
    gpu=st.just(MEANS.gpu),
    pythons=st.just(MEANS.pythons),
)
specs = st.builds(
    EngineSpec,
    model=st.just("m"),
    backend=st.just("vllm"),
    argv=st.just(SPEC.argv),
    env=st.just(SPEC.env),
    socket=st.just(SPEC.socket),
    reads=st.lists(st.sampled_from([Path("/srv/a"), Path("/srv/a/b"), Path("/usr/share/m"), OWN / "x"])).map(tuple),
    writes=st.lists(st.sampled_from([Path("/var/cache/m"), Path("/srv/a/cache")])).map(tuple),
    has_gpu=st.booleans(),
    has_ip=st.booleans(),
)


def box_of(confinement: Confinement) -> dict:
    at = next(at for at, word in enumerate(confinement.argv) if word in {"enter", "finish"})
    return json.loads(confinement.argv[at + 1])


def binds(confinement: Confinement) -> list[tuple[str, str, str]]:
    """(kind, source, target) in order, whoever makes them."""
    if confinement.by != "bubblewrap":
        return [tuple(each) for each in box_of(confinement)["mounts"]]
    kinds = {"--ro-bind": "ro", "--bind": "rw", "--dev-bind": "dev", "--symlink": "link"}
    found, words = [], list(confinement.argv)
    for at, word in enumerate(words[: words.index("--")]):
        if word in kinds:
            found.append((kinds[word], words[at + 1], words[at + 2]))
        elif word in {"--tmpfs", "--proc", "--dir"}:
            found.append((word[2:], "", words[at + 1]))
    return found


@given(specs, means)
def test_every_layer_is_told_once_and_truly(spec: EngineSpec, host: Means) -> None:
    """A namespace is active exactly where it is made, and what is missing has a reason."""
    confinement = plan_confinement(spec, host)
    names = [layer.name for layer in confinement.layers]
    assert len(names) == len(set(names))
    missing = {layer.name for layer in confinement.layers if layer.missing is not None}
    assert all(layer.missing for layer in confinement.layers if layer.name in missing)
    made = set(NAMESPACES) if host.bwrap else set(box_of(confinement)["namespaces"])
    assert ("users" in missing) == ("user" not in made)
    assert ("processes" in missing) == ("pid" not in made)
    assert ("files" in missing) == ("mount" not in made)
    assert ("network" in missing) == ("net" not in made)
    assert ("calls" in missing) == (host.machine is None)
    assert bool(box_of(confinement)["filter"]) == (host.machine is not None)
    assert ("swap" in missing) == (host.swap is not None)
    check_sealed(confinement, "best-effort")
    if missing:
        with pytest.raises(NotSealed) as caught:
            check_sealed(confinement, "require")
        assert all(name in caught.value.message for name in missing)
    else:
        check_sealed(confinement, "require")


@given(specs, means)
def test_the_engine_is_what_runs_in_the_end(spec: EngineSpec, host: Means) -> None:
    """Its command line is the tail of ours, with its variables and in its directory."""
    confinement = plan_confinement(spec, host)
    assert confinement.argv[-len(spec.argv) :] == spec.argv
    box = box_of(confinement)
    assert box["environment"] == [name for name, _ in spec.env]
    assert box["directory"] == str(OWN)
    assert confinement.argv[0] == str(host.bwrap or host.python)


@given(specs, means)
def test_both_launchers_make_the_same_root(spec: EngineSpec, host: Means) -> None:
    """Nothing in sight depends on who builds it."""
    everything = frozenset(NAMESPACES)
    ours = plan_confinement(spec, Means(**{**parts(host), "bwrap": None, "namespaces": everything}))
    theirs = plan_confinement(spec, Means(**{**parts(host), "bwrap": Path("/usr/bin/bwrap")}))
    assert binds(ours) == binds(theirs)
    assert box_of(ours)["filter"] == box_of(theirs)["filter"]


@given(specs)
def test_only_its_own_places_can_be_written_to(spec: EngineSpec) -> None:
    """Its directory and its caches; of its state directory not the record and not the log."""
    confinement = plan_confinement(spec, Means(**{**parts(MEANS), "namespaces": frozenset(NAMESPACES)}))
    found = binds(confinement)
    assert {target for kind, _, target in found if kind == "rw"} == {str(path) for path in (OWN, *spec.writes)}
    shown = {target for _, _, target in found}
    assert not shown & {str(OWN.parent), str(OWN.parent.parent), "/", "/etc", "/run", "/home", "/sys", "/dev/tty"}
    assert ("/dev/nvidia0" in shown) == spec.has_gpu
    assert {f"/etc/{name}" for name in FILES} <= shown


@given(specs)
def test_what_lies_in_another_directory_comes_after_it(spec: EngineSpec) -> None:
    """A mount over a parent would hide what was put beneath it before."""
    confinement = plan_confinement(spec, Means(**{**parts(MEANS), "namespaces": frozenset(NAMESPACES)}))
    targets = [Path(target) for kind, _, target in binds(confinement) if kind != "link"]
    for at, target in enumerate(targets):
        assert not any(later in target.parents for later in targets[at + 1 :])


def test_an_engine_sees_its_own_interpreter_weights_and_package() -> None:
    """And its verified files where it is to find them, from where they lie now."""
    held = EngineSpec("m", "vllm", SPEC.argv, SPEC.env, SPEC.socket, weights=((9, Path("/weights/m.gguf")),))
    full = Means(**{**parts(MEANS), "namespaces": frozenset(NAMESPACES)})
    found = binds(plan_confinement(SPEC, full))
    for path in ("/opt/vllm", "/opt/venv", "/srv/models/m"):
        assert ("ro", path, path) in found
    moved = plan_confinement(held, full, {9: Path("/store/blobs/abc")})
    assert ("ro", "/store/blobs/abc", "/weights/m.gguf") in binds(moved)
    assert box_of(moved)["weights"] == [[9, "/weights/m.gguf"]]


def test_a_server_elsewhere_is_not_shut_in() -> None:
    """There is no process of ours."""
    with pytest.raises(EngineFailed):
        plan_confinement(EngineSpec("m", "remote"), MEANS)


def parts(host: Means) -> dict:
    return {name: getattr(host, name) for name in Means.__dataclass_fields__}
