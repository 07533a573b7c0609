"""A program in an engine's place: what it can reach and see, behind the walls of either launcher."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.engines.confinement.launch import NAMESPACES
from serving.engines.confinement.layers import Means, plan_confinement
from serving.engines.confinement.means import look
from serving.engines.confinement.sealing import seal_with
from serving.engines.process import Exit, Process
from serving.engines.runtime import root_of, session_members, socket_in, state_directory
from serving.engines.spec import EngineSpec
from serving.errors import NotSealed
from serving.gateway.upstream import EngineBroke, Upstream
from tests.support.demo import MODEL, llamacpp, needs_demo
from tests.support.harness import is_running

PROBE = Path(__file__).parents[1] / "support" / "hostile_engine.py"
ENVIRONMENT = (("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"))
SECRET = "a secret of the settings"
NOWHERE = {"ENOENT", "EACCES", "ENOTDIR"}


@pytest.fixture(scope="module", params=["bubblewrap", "our own launcher"])
def means(request, tmp_path_factory) -> Means:
    """What this host offers, with bubblewrap and without."""
    scratch = tmp_path_factory.mktemp("scratch")
    if request.param == "bubblewrap":
        if shutil.which("bwrap") is None:
            pytest.skip("bwrap is not installed (apt install bubblewrap)")
        found = look(scratch)
        if found.bwrap is None:
            pytest.skip(f"bubblewrap does not work here: {found.bwrap_lacks}")
        return found
    found = look(scratch, use_bwrap=False)
    if len(found.namespaces) < 7:
        pytest.skip(f"not all namespaces can be made here: {found.lacks}")
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "own.gguf").write_text("the weights")
    (tmp_path / "weights" / "other.gguf").write_text("other weights")
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "cache").mkdir()
    return tmp_path


def spec_for(directory: Path, argv: tuple[str, ...], **more: object) -> EngineSpec:
    """An engine of that command line, whose socket is in a runtime directory beside other engines'."""
    given = {"reads": (PROBE, directory / "weights" / "own.gguf"), "writes": (directory / "cache",), **more}
    own = socket_in(directory / "run", "engine-1")
    return EngineSpec("m", "llamacpp", argv, ENVIRONMENT, own, **given)


async def run(spec: EngineSpec, within_s: float = 30.0) -> tuple[Exit | None, list[str]]:
    """Start it through the real Process; how it ended, and what it said."""
    state = state_directory(spec.socket)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    process = Process(spec, state, lambda _: None)
    try:
        await process.exited(within_s)
        return process.exit, process.words.lines()
    finally:
        process.kill()
        await process.exited(5)


@contextlib.contextmanager
def surroundings(directory: Path) -> Iterator[dict[str, object]]:
    """What is there to be reached: another engine's socket, a port, an abstract socket, secrets."""
    other = socket_in(directory / "run", "engine-2")
    other.parent.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(other))
        listening.listen()
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0perimeter-test-{os.getpid()}")
        abstract.listen()
        port = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield {
            "gateway": os.getpid(),
            "model": str(directory / "weights" / "own.gguf"),
            "other_model": str(directory / "weights" / "other.gguf"),
            "other_state": str(state_directory(other)),
            "other_socket": str(other),
            "runtime": str(root_of(other)),
            "secret": str(directory / "secret"),
            "cache": str(directory / "cache"),
            "abstract": f"perimeter-test-{os.getpid()}",
            "port": port.getsockname()[1],
        }


async def probed(directory: Path, means: Means, *, has_ip: bool) -> dict[str, object]:
    """What the probe found behind the walls."""
    with surroundings(directory) as outside:
        spec = spec_for(directory, (sys.executable, str(PROBE), json.dumps(outside)), has_ip=has_ip)
        (sealed,) = seal_with([spec], "best-effort", means).specs
        ended, said = await run(sealed)
    assert ended == Exit(0, None), (ended, said)
    return json.loads(said[-1])


async def test_an_engine_reaches_nothing_but_its_own(directory: Path, means: Means) -> None:
    """No secret, no other model, no other process, no address and no other engine; no rights, and none to be had."""
    found = await probed(directory, means, has_ip=False)
    assert found["reads its model"] == "got 'the weights'"
    assert found["has its name"] == "got 'engine'"
    for name in ("own directory", "cache"):
        assert found[f"writes to its {name}"] == "got 1"
    for name in ("has shared memory", "has a temporary directory", "listens at its socket", "socket pair"):
        assert found[name].startswith("got"), name
    assert found["has randomness"] == "got 8"
    # files
    for name in ("secret", "other model", "other state", "own record", "shadow", "gateway environ", "gateway root"):
        assert found[name] in NOWHERE, (name, found[name])
    assert found["runtime directory"] == "got ['engine-1.d']"
    assert set(json.loads(found["root"].removeprefix("got ").replace("'", '"'))).isdisjoint({"home", "var", "opt"})
    for name in ("write model", "chmod model", "remove model", "replace model", "write root", "write etc", "write usr"):
        assert found[name] in {"EROFS", "EBUSY", "EXDEV"}, (name, found[name])
    for name in ("write core_pattern", "write sysrq"):
        assert found[name] in {"EROFS", "EACCES", "ENOENT"}, (name, found[name])
    assert found["make a device"] == "EPERM"
    # processes
    assert found["processes"] <= 3
    assert found["highest"] < 10
    assert found["gateway memory"] in NOWHERE
    assert found["kill gateway"] == "ESRCH"
    assert found["init memory"] == "ENOENT"
    # network
    assert found["engine socket"] == "ENOENT"
    assert found["abstract socket"] == "ECONNREFUSED"
    for name in ("host port", "tcp", "udp", "tcp6", "raw", "packet", "netlink", "vsock", "kernel crypto"):
        assert found[name] == "EAFNOSUPPORT", (name, found[name])
    # the kernel
    refused(found)
    assert found["interfaces"] in {"EAFNOSUPPORT", "got ['lo']"}
    assert found["become root"] in {"EINVAL", "EPERM"}
    assert found["uid"] == 1000
    assert found["host name"] == "engine"
    assert found["environment"] == sorted(name for name, _ in ENVIRONMENT)
    assert [number for number in found["descriptors"] if number > 3] == []
    assert found["core limit"] == [0, 0]
    assert found["core filter"] == 0


async def test_an_engine_that_needs_ip_has_a_loopback_of_its_own(directory: Path, means: Means) -> None:
    """It talks to itself, and to nobody: not the host's loopback, no address beyond, no raw packets."""
    found = await probed(directory, means, has_ip=True)
    assert found["talks to itself"] == "got True"
    assert found["interfaces"] == "got ['lo']"
    assert found["netlink"].startswith("got")
    assert found["host port"] == "ECONNREFUSED"
    for name in ("tcp", "udp", "tcp6"):
        assert found[name] == "ENETUNREACH", (name, found[name])
    assert found["raw"] == "EPERM"
    for name in ("packet", "vsock", "kernel crypto"):
        assert found[name] == "EAFNOSUPPORT"
    refused(found)


def refused(found: dict[str, object]) -> None:
    """The rights that nobody has who computes."""
    for name in ("own user namespace", "own network namespace", "clone into namespaces", "setns", "mount", "open_tree"):
        assert found[name] == "EPERM", (name, found[name])
    for name in ("fsopen", "ptrace", "process_vm_readv", "keyctl", "bpf", "perf_event_open", "userfaultfd"):
        assert found[name] == "EPERM", (name, found[name])
    for name in ("clone3", "io_uring_setup"):
        assert found[name] == "ENOSYS", (name, found[name])
    for name in ("pidfd_getfd", "type into a terminal"):
        assert found[name] == "EPERM", (name, found[name])
    none = "0" * 16
    rights = found["rights"]
    assert {rights[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {none}
    assert (rights["NoNewPrivs"], rights["Seccomp"]) == ("1", "2")


async def test_an_engine_that_can_list_processes_cannot_reach_them(directory: Path, means: Means) -> None:
    """Where /proc cannot be mounted anew the host's is shown: no environment, memory or root in it is the engine's."""
    host = replace(means, bwrap=None, namespaces=frozenset(NAMESPACES), proc_lacks="it is covered")
    found = await probed(directory, host, has_ip=False)
    refused(found)
    for name in ("secret", "other model", "other state", "own record", "shadow"):
        assert found[name] in NOWHERE, (name, found[name])
    assert found["kill gateway"] == "ESRCH"
    for name in ("gateway environ", "gateway memory", "gateway root"):
        assert found[name] in {"EACCES", "EPERM"}, (name, found[name])
    for name in ("write core_pattern", "write sysrq"):
        assert found[name] in {"EROFS", "EACCES", "ENOENT"}
    assert found["core filter"] == 0


async def test_calls_are_refused_where_no_namespace_can_be_made(directory: Path, means: Means) -> None:
    """The filter, the rights and the cores need no namespace; what is missing is named."""
    bare = replace(means, bwrap=None, namespaces=frozenset(), lacks=(("user", "the host forbids it"),))
    found = await probed(directory, bare, has_ip=False)
    refused(found)
    for name in ("tcp", "udp", "tcp6", "raw", "packet", "netlink"):
        assert found[name] == "EAFNOSUPPORT"
    assert found["secret"].startswith("got"), "a wall that is not there is not claimed"


async def test_weights_that_are_swapped_after_they_were_verified_are_not_served(directory: Path, means: Means) -> None:
    """The engine finds the very file of the descriptor, wherever it was moved; another in its place ends the start."""
    path, seen = directory / "weights" / "own.gguf", directory / "model.gguf"
    argv = (sys.executable, "-c", f"print(open({str(seen)!r}).read())")
    held = os.open(path, os.O_RDONLY)
    try:
        spec = spec_for(directory, argv, reads=(), weights=((held, seen),))
        path.rename(directory / "weights" / "moved.gguf")
        path.write_text("swapped")
        (sealed,) = seal_with([spec], "best-effort", means).specs
        assert await run(sealed) == (Exit(0, None), ["the weights"])
        # between planning and start, and where the file is nowhere any more
        (directory / "weights" / "other.gguf").rename(directory / "weights" / "moved.gguf")
        ended, said = await run(sealed)
        assert ended == Exit(14, None)
        assert "no longer the file that was verified" in said[-1]
        (again,) = seal_with([spec], "best-effort", means).specs
        ended, said = await run(again)
        assert ended is not None
        assert ended.status != 0
        assert not any("other weights" in line for line in said)
    finally:
        os.close(held)


@pytest.mark.parametrize("whose", ["leader", "engine"])
async def test_everything_ends_with_the_engine_and_with_the_leader(directory: Path, means: Means, whose: str) -> None:
    """A worker in a session of its own, deaf to signals, goes with the engine; and all go with their leader."""
    code = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)\n"
        "print('up', flush=True); time.sleep(99)"
    )
    spec = spec_for(directory, (sys.executable, "-c", code))
    (sealed,) = seal_with([spec], "best-effort", means).specs
    state = state_directory(spec.socket)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    process = Process(sealed, state, lambda _: None)
    await until(lambda: process.words.lines() == ["up"])
    inside = offspring(process.pid)
    assert len(inside) >= 4
    os.kill(process.pid if whose == "leader" else inside[2], signal.SIGKILL)
    assert await process.exited(10)
    await until(lambda: not any(map(is_running, inside)))
    assert process.exit == Exit(None, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGKILL])
async def test_how_an_engine_ended_is_told_as_it_was(directory: Path, means: Means, number: signal.Signals) -> None:
    """A signal is a signal, though a launcher stood between."""
    code = f"import os, signal\nos.kill(os.getpid(), {int(number)})"
    (sealed,) = seal_with([spec_for(directory, (sys.executable, "-c", code))], "best-effort", means).specs
    assert (await run(sealed))[0] == Exit(None, number)


async def test_a_program_that_cannot_be_started_is_said_to(directory: Path, means: Means) -> None:
    """It is the engine that failed, and not its walls."""
    (sealed,) = seal_with([spec_for(directory, ("/opt/none/bin/python", "-c", ""))], "best-effort", means).specs
    ended, said = await run(sealed)
    assert ended == Exit(9, None)
    assert json.loads(said[-1])["code"] == "engine_failed"
    assert "`/opt/none/bin/python`" in said[-1]


async def test_an_orderly_stop_stays_orderly(directory: Path, means: Means) -> None:
    """SIGTERM reaches the engine, which ends as it likes; the launcher waits for it."""
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'in order\\n'), os._exit(5)))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(9)"
    )
    spec = spec_for(directory, (sys.executable, "-c", code))
    (sealed,) = seal_with([spec], "best-effort", means).specs
    state = state_directory(spec.socket)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    process = Process(sealed, state, lambda _: None)
    await until(lambda: process.words.lines() == ["up"])
    assert len(session_members(process.pid)) >= 3
    process.terminate()
    assert await process.exited(10)
    assert process.exit == Exit(5, None)
    assert process.words.lines() == ["up", "in order"]


def test_require_names_what_is_missing(directory: Path, means: Means) -> None:
    """Each layer with its reason; best-effort starts all the same."""
    lacking = replace(
        means,
        bwrap=None,
        bwrap_lacks="it is not installed",
        namespaces=frozenset({"net"}),
        lacks=(("user", "forbidden"),),
        swap="it swaps",
    )
    spec = spec_for(directory, (sys.executable, "-c", ""))
    with pytest.raises(NotSealed) as caught:
        seal_with([spec], "require", lacking)
    assert "users (forbidden; bubblewrap: it is not installed)" in caught.value.message
    assert "swap (it swaps)" in caught.value.message
    assert "network" not in caught.value.message
    assert plan_confinement(spec, lacking).argv
    told = seal_with([spec], "best-effort", lacking)
    assert ("swap", "it swaps") in told.missing
    assert "network" in told.active


def offspring(pid: int) -> list[int]:
    """Every process that descends from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


async def until(condition, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.01)


@needs_demo
async def test_the_real_engine_answers_behind_the_walls(directory: Path, means: Means) -> None:
    """llama.cpp with the demo model: ready, asked by somebody who looks who it is, and gone in order."""
    given = llamacpp(directory)
    spec = EngineSpec(
        "m", "llamacpp", tuple(given["argv"]), tuple(given["env"].items()), Path(given["socket"]), reads=(MODEL,)
    )
    (sealed,) = seal_with([spec], "best-effort", means).specs
    state = state_directory(sealed.socket)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    process = Process(sealed, state, lambda _: None)
    upstream = Upstream(sealed.socket, lambda pid: os.getsid(pid) == process.pid)

    async def asked(method: str, path: str, **body: object) -> tuple[int, bytes]:
        head = "content-type: application/json\r\n" if body else ""
        response = await upstream.request(method, path, head, json.dumps(body).encode() if body else b"")
        try:
            return response.status, await response.read_all(1 << 20)
        finally:
            response.close()

    try:
        async with asyncio.timeout(60):
            status = 0
            while status != 200:
                assert process.exit is None, process.words.lines()
                with contextlib.suppress(EngineBroke):
                    status, said = await asked("GET", "/ready")
                await asyncio.sleep(0.02)
        assert json.loads(said)["memory"]["RssAnon"] > 0
        question = [{"role": "user", "content": "Who are you?"}]
        status, said = await asked("POST", "/v1/chat/completions", model="m", messages=question, max_tokens=8)
        assert status == 200, said
        assert json.loads(said)["choices"][0]["message"]["content"]
    finally:
        upstream.close()
        process.terminate()
        in_order = await process.exited(10)
        process.kill()
    assert in_order
    assert process.exit in {Exit(0, None), Exit(None, signal.SIGTERM)}
