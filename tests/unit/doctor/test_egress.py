"""What the watcher wrote is read right, and judged by rules that are told here one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.cli import run
from serving.cli.egress import attempt_rows, page, seconds_of, wanted_of
from serving.doctor.egress.addresses import Address, destinations
from serving.doctor.egress.judge import Attempt, Own, attempts_of, decide_destination, own_of, phase_at
from serving.doctor.egress.lines import Call, End, Event, Unread, read_lines
from serving.doctor.egress.processes import Process, processes_of
from serving.doctor.egress.verdict import PHASES, Counted, Phase, Result, Watched, Watching, decide_verdict
from serving.doctor.egress.watchers import find_strace
from serving.errors import UsageError
from serving.settings import Settings

RECORDED = Path(__file__).parent / "recorded"
STRACE = Watching("strace", "6.1", "strace -f")
WALKED = tuple(Phase(name, float(at), at + 1.0) for at, name in enumerate(PHASES))


def recorded(name: str) -> list[Event]:
    """The events of a trace that strace wrote."""
    return list(read_lines((RECORDED / f"{name}.trace").read_text(encoding="utf-8").splitlines()))


def process(pid: int = 7, *doubts: str) -> Process:
    return Process(pid, None, "python -m serving", 0.0, 9.0, "exited with 0", 1, doubts)


def attempts_in(events: list[Event], *directories: str) -> list[tuple[str, str, int | None, str]]:
    _, owners = processes_of(events)
    found = attempts_of(events, owners, own_of(events, directories, frozenset()), [("load", 0.0)])
    return [(one.call, one.address or one.family, one.port, one.result) for one in found]


def test_every_way_out_of_a_recorded_process_is_found() -> None:
    """Refused or not, by any call and family, and none of the ways that stay inside."""
    assert attempts_in(recorded("addresses")) == [
        ("connect", "192.0.2.1", 443, "ENETUNREACH"),
        ("sendto", "127.0.0.53", 53, "ENETUNREACH"),
        ("sendmsg", "192.0.2.7", 53, "ENETUNREACH"),
        ("connect", "2001:db8::1", 53, "EADDRNOTAVAIL"),
        ("connect", "::ffff:192.0.2.9", 53, "ENETUNREACH"),
        ("connect", "::1", 53, "EADDRNOTAVAIL"),
        ("connect", "@abstract", None, "ECONNREFUSED"),
        ("connect", '/run/a "b" \n,c', None, "ENOENT"),
        ("connect", "/run/\ufffd{", None, "ENOENT"),
        ("sendmmsg", "192.0.2.53", 53, "ENETUNREACH"),
        ("socket", "AF_PACKET", None, "12"),
    ]


def test_a_child_that_the_watcher_was_kept_from_is_not_proven() -> None:
    """CLONE_UNTRACED takes a process out of sight: it is listed, and nothing is said of it."""
    processes, _ = processes_of(recorded("addresses"))
    assert [(one.pid, one.parent, bool(one.doubts)) for one in processes] == [
        (17408, None, False),
        (17411, 17408, True),
    ]


def test_a_thread_that_executes_a_program_goes_on_as_its_process() -> None:
    """Its execve returns under another number; process, command and end are one."""
    (one,), _ = processes_of(recorded("execve-in-a-thread"))
    assert (one.pid, one.command, one.end, one.doubts) == (16597, "true", "exited with 0", ())


def test_numbers_of_another_pid_namespace_are_those_of_outside() -> None:
    """What clone returns in there is 2; the process that is watched is another number, and not a second process."""
    processes, _ = processes_of(recorded("pid-namespace"))
    assert [(one.pid, one.parent) for one in processes] == [
        (16645, None),
        (16646, 16645),
        (16647, 16646),
        (16648, 16646),
        (16649, 16648),
    ]
    assert not any(one.doubts for one in processes)


CONNECT = '5 1.0 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("192.0.2.1")}, 16'
UNFINISHED = f"{CONNECT} <unfinished ...>"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([UNFINISHED, "6 1.1 +++ exited with 0 +++", "5 1.2 <... connect resumed>) = -1 EINPROGRESS (x)"],
         ("-1", "EINPROGRESS")),
        ([UNFINISHED, "5 1.2 +++ killed by SIGKILL +++"], ("?", None)),
        ([UNFINISHED], ("?", None)),
        ([f"{CONNECT}) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)"], ("?", "ERESTARTSYS")),
    ],
    ids=["interrupted by another line", "killed in it", "the trace ends in it", "interrupted by a signal"],
)  # fmt: skip
def test_a_call_counts_however_it_ended(lines: list[str], expected: tuple[str, str | None]) -> None:
    """An unfinished connect was a connect."""
    events = list(read_lines(lines))
    (call,) = [event for event in events if isinstance(event, Call)]
    assert (call.result, call.error) == expected
    assert [str(address) for address in destinations(call)] == ["192.0.2.1:80"]
    assert len(attempts_in(events)) == 1


def test_payload_is_no_address() -> None:
    """What a process sends may look like anything; only the call's own address counts."""
    line = r'5 1.0 sendto(3, "{sa_family=AF_INET, x}) = 0 <unfinished ...>\", ", 9, 0, NULL, 0) = 9'
    (call,) = read_lines([line])
    assert isinstance(call, Call)
    assert (call.result, list(destinations(call))) == ("9", [])


@pytest.mark.parametrize(
    "text",
    ["0x7ffc0", "{sa_family=AF_INET, sin_port=0x50, sin_addr=?}", "{...}", "{sa_family=AF_INET6}"],
)
def test_an_address_that_cannot_be_read_counts(text: str) -> None:
    """Nobody knows that it was inside."""
    assert attempts_in(list(read_lines([f"5 1.0 connect(3, {text}, 16) = 0"]))) == [
        ("connect", "unreadable", None, "0")
    ]


@pytest.mark.parametrize("line", ["strace: Process 5 attached", "5 1.0 what is this", "5 1.0 <... x resumed>) = 0"])
def test_a_line_that_is_not_understood_is_said(line: str) -> None:
    """Nothing is built on what could not be read."""
    assert [type(event) for event in read_lines([line])] == [Unread]


OWN = Own(
    frozenset({("127.0.0.1", 8000), ("::1", 8000), ("", 9000)}),
    frozenset({"/srv/run/engine.sock", "@own", "worker"}),
    ("/srv/run",),
    frozenset({("10.0.0.7", 80)}),
)


@pytest.mark.parametrize(
    ("address", "is_attempt"),
    [
        (Address("AF_INET", "127.0.0.1", 8000), False),
        (Address("AF_INET", "127.0.0.9", 8000), True),  # somebody else's, at another address of loopback
        (Address("AF_INET", "127.0.0.9", 9000), False),
        (Address("AF_INET6", "::1", 8000), False),
        (Address("AF_INET6", "::ffff:127.0.0.1", 8000), False),
        (Address("AF_INET", "0.0.0.0", 8000), False),
        (Address("AF_INET", "127.0.0.1", 0), False),
        (Address("AF_INET", "10.0.0.7", 80), False),
        (Address("AF_UNIX", "/srv/run/engine.d/worker"), False),
        (Address("AF_UNIX", "/srv/run/engine.d/link"), True),  # nobody of the stack bound it: it may lead anywhere
        (Address("AF_UNIX", "/srv/run/../run/engine.sock"), False),
        (Address("AF_UNIX", "@own"), False),
        (Address("AF_UNIX", ""), False),
        (Address("AF_UNIX", "/var/run/uuidd/request"), False),
        (Address("AF_NETLINK"), False),
        (Address("AF_UNSPEC"), False),
        (Address("AF_INET", "127.0.0.1", 3128), True),
        (Address("AF_INET", "127.0.0.53", 53), True),
        (Address("AF_INET", "10.0.0.7", 81), True),
        (Address("AF_INET", "10.0.0.1", 8000), True),
        (Address("AF_INET", "224.0.0.251", 5353), True),
        (Address("AF_INET6", "fe80::1", 8000), True),
        (Address("AF_INET6", "::ffff:192.0.2.1", 8000), True),
        (Address("AF_UNIX", "/var/run/nscd/socket"), True),
        (Address("AF_UNIX", "/run/systemd/resolve/io.systemd.Resolve"), True),
        (Address("AF_UNIX", "/srv/run/../other.sock"), True),
        (Address("AF_UNIX", "/srv/runner/x.sock"), True),
        (Address("AF_UNIX", "@other"), True),
        (Address("AF_VSOCK"), True),
        (Address("unreadable"), True),
    ],
    ids=str,
)
def test_what_is_inside(address: Address, is_attempt: bool) -> None:
    """The stack's own ports and sockets, engines that the settings name, the kernel; nothing else."""
    assert (decide_destination(address, OWN) is not None) == is_attempt


def test_a_ring_is_not_proven_and_a_refused_one_is_none() -> None:
    """What goes through a ring is no system call; a kernel that refuses it has left only those that are watched."""
    made = "5 1.0 io_uring_setup(256, {flags=0, sq_entries=256}) = 4"
    refused = "5 1.0 io_uring_setup(256, {flags=0}) = -1 ENOSYS (Function not implemented)"
    for line, doubtful in ((made, True), (refused, False)):
        processes, _ = processes_of(list(read_lines([line, "5 1.1 +++ exited with 0 +++"])))
        assert bool(processes[0].doubts) == doubtful


def test_a_process_that_nobody_saw_end_is_not_proven() -> None:
    """Whatever it did after the last line is not known; one whose maker nobody saw was running before."""
    lines = ['5 1.0 execve("/bin/a", ["a"], 0x1) = 0', "6 1.1 +++ exited with 0 +++"]
    first, second = processes_of(list(read_lines(lines)))[0]
    assert first.doubts == ("was not seen to its end",)
    assert second.doubts == ("was not seen from its beginning",)


def test_a_filter_of_its_own_is_told() -> None:
    """Its children have it too; a socket that leads out and is refused by it is an attempt, and by the kernel none."""
    lines = ["5 1.0 seccomp(SECCOMP_SET_MODE_FILTER, 0x5, {len=5, filter=0x1}) = 0", "5 1.1 +++ exited with 0 +++"]
    (one,) = processes_of(list(read_lines(lines)))[0]
    assert (one.has_own_filter, one.doubts) == (True, ())
    (other,) = processes_of(list(read_lines(["5 1.0 prctl(PR_SET_PDEATHSIG, SIGKILL) = 0", lines[1]])))[0]
    assert not other.has_own_filter
    lines = [
        '5 1.0 execve("/bin/a", ["a"], 0x1) = 0',
        "5 1.2 seccomp(SECCOMP_SET_MODE_FILTER, 0x5, {len=5, filter=0x1}) = 0",
        "5 1.3 clone(child_stack=NULL, flags=SIGCHLD) = 6",
        "6 1.4 socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = -1 EAFNOSUPPORT (Address family not supported by protocol)",
        "6 1.5 socket(AF_UNIX, SOCK_STREAM, 0) = -1 EACCES (Permission denied)",
        "6 1.6 +++ exited with 0 +++",
        "5 1.7 +++ exited with 0 +++",
    ]
    assert not attempts_of(list(read_lines(lines[3:4])), {0: other}, Own(), [("load", 0.0)]), "a kernel without IP, say"
    events = list(read_lines(lines))
    processes, owners = processes_of(events)
    assert [each.has_own_filter for each in processes] == [True, True]
    (found,) = attempts_of(events, owners, Own(), [("load", 0.0)])
    assert (found.pid, found.family, found.phase) == (6, "AF_INET", "load")


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ('sendto(3, "x", 1, 0, {sa_family=AF_UNSPEC, sa_data="\\0\\65\\300\\0\\2\\1"}, 16) = 1', True),
        ('connect(3, {sa_family=AF_UNSPEC, sa_data=""}, 16) = 0', False),
        ('setsockopt(3, SOL_IP, IP_OPTIONS, "\\211\\7\\4", 12) = 0', True),
        ("setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0", False),
        ("setsockopt(3, SOL_IPV6, IPV6_RTHDR, [1], 4) = 0", True),
        ("pidfd_getfd(5, 3, 0) = 7", True),
        ("pidfd_getfd(5, 3, 0) = -1 EPERM (Operation not permitted)", False),
    ],
)
def test_ways_round_the_address_count(line: str, counts: bool) -> None:
    """What UDP takes for IP's, a route in a packet's options, a descriptor that was taken."""
    events = list(read_lines([f"5 1.0 {line}", "5 1.1 +++ exited with 0 +++"]))
    _, owners = processes_of(events)
    assert bool(attempts_of(events, owners, OWN, [("load", 0.0)])) is counts


def test_remarks_of_the_watcher_are_no_events() -> None:
    """Signals, and that a process is of another architecture."""
    remarks = ["5 1.0 --- SIGCHLD {si_signo=SIGCHLD} ---", "5 1.0 [ Process PID=5 runs in 32 bit mode. ]"]
    assert list(read_lines(remarks)) == []


def test_a_number_that_is_used_again_is_another_process() -> None:
    """Pids come round in a long run."""
    lines = [
        '5 1.0 execve("/bin/a", ["a"], 0x1) = 0',
        "5 1.1 clone(child_stack=NULL, flags=SIGCHLD) = 6",
        "6 1.2 +++ exited with 0 +++",
        "6 1.3 +++ exited with 1 +++",
        "5 1.4 vfork() = 6",
        "5 1.5 +++ exited with 0 +++",
    ]
    processes, _ = processes_of(list(read_lines(lines)))
    assert [(one.pid, one.end, one.doubts) for one in processes] == [
        (5, "exited with 0", ()),
        (6, "exited with 0", ()),
        (6, "exited with 1", ()),
    ]


def attempt() -> Attempt:
    return Attempt(3.5, "load", 7, "python", "python x", "connect", "AF_INET", "192.0.2.1", 80, "ENETUNREACH", "beyond")


def test_the_verdict() -> None:
    """An attempt outweighs a doubt, a doubt outweighs the absence of attempts."""
    none: tuple[Attempt, ...] = ()
    assert decide_verdict(none, (), [process()], WALKED, STRACE) == ("passed", ())
    word, reasons = decide_verdict([attempt()], (), [process(7, "x")], (), STRACE)
    assert (word, reasons[0]) == ("failed", "1 attempt to reach out")
    assert len(reasons) == 1 + 1 + len(PHASES)  # the doubts are told as well
    assert decide_verdict(none, [Counted("asked", 1)], [process()], WALKED, STRACE)[0] == "failed"
    assert decide_verdict(none, [Counted("asked", 0)], [process()], WALKED, STRACE)[0] == "passed"
    assert decide_verdict(none, (), [process(7, "was not seen")], WALKED, STRACE)[0] == "not proven"
    assert decide_verdict(none, (), [], WALKED, STRACE)[0] == "not proven"
    died = Watching("strace", "6.1", "strace -f", "strace died")
    assert decide_verdict(none, (), [process()], WALKED, died) == ("not proven", ("strace died",))


@pytest.mark.parametrize("left_out", PHASES)
def test_a_phase_that_was_not_reached_proves_nothing(left_out: str) -> None:
    """Each of them, left out or broken off."""
    others = tuple(phase for phase in WALKED if phase.name != left_out)
    broken = (*others, Phase(left_out, 0.0, 1.0, (), "it ended"))
    for phases in (others, broken):
        word, reasons = decide_verdict((), (), [process()], phases, STRACE)
        assert word == "not proven"
        assert left_out in reasons[0]


def test_an_attempt_belongs_to_the_phase_of_its_beginning() -> None:
    """Also one before the first phase was noted."""
    starts = [("import", 10.0), ("load", 12.0), ("requests", 20.0)]
    assert [phase_at(at_s, starts) for at_s in (9.0, 10.0, 11.9, 12.0, 99.0)] == [
        "import", "import", "import", "load", "requests",
    ]  # fmt: skip
    assert phase_at(1.0, []) == ""


def test_the_page_names_the_culprit_and_ends_with_the_verdict() -> None:
    """Who, in which phase, where to, by which call, with what result."""
    result = Result(
        verdict="failed",
        reasons=("2 attempts to reach out",),
        attempts=(attempt(), attempt()),
        counted=(),
        processes=(Watched(process(7, "was not seen"), None),),
        phases=WALKED,
        watching=STRACE,
        version="1",
        kernel="6",
        host="h",
        command=("serve",),
        began="2026-01-01T00:00:00+00:00",
        seconds=3.0,
    )
    shown = page(result)
    row = next(line for line in shown.splitlines() if "192.0.2.1" in line)
    for part in ("+3.5 s", "2 ×", "load", "python (7)", "connect", "192.0.2.1:80", "ENETUNREACH"):
        assert part in row
    assert "nobody" in shown
    assert shown.splitlines()[-1].startswith("failed: 2 attempts")
    assert len(attempt_rows(result.attempts, 0.0)) == 1


@pytest.mark.parametrize(("text", "seconds"), [("15m", 900.0), ("30s", 30.0), ("2", 2.0), ("1.5h", 5400.0)])
def test_how_long_it_idles(text: str, seconds: float) -> None:
    """As a person writes it."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1s", "1d", "1 m", "inf", "nan"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    """By the flag's name."""
    with pytest.raises(UsageError, match="--idle"):
        seconds_of(text)


def test_ends_are_not_lost() -> None:
    """Exited, killed with and without a core."""
    lines = ["5 1.0 +++ exited with 3 +++", "6 1.0 +++ killed by SIGSEGV (core dumped) +++"]
    assert [event.how for event in read_lines(lines) if isinstance(event, End)] == [
        "exited with 3",
        "killed by SIGSEGV (core dumped)",
    ]


@pytest.mark.parametrize("flags", [["--idle", "5s"], ["--watch", "strace"], ["--model", "demo"], ["--engine", "vllm"]])
def test_flags_of_the_observation_go_with_it(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that nothing would be done with is a mistake, not ignored."""
    assert run(["doctor", *flags]) == 2
    assert "--egress" in capsys.readouterr().err


def test_a_watcher_that_is_asked_for_has_to_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without strace, `--watch strace` proves nothing, and starts nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["doctor", "--egress", "--watch", "strace"]) == 16
    assert "strace is not installed" in capsys.readouterr().err


def test_a_tracer_that_sees_nothing_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where tracing is forbidden: the program is there, and what it says is passed on."""
    refusal = "echo 'strace: ptrace(PTRACE_TRACEME): Operation not permitted' >&2; exit 1"
    for name, script in (("strace", refusal), ("true", "")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    strace, why = find_strace()
    assert strace is None
    assert "Operation not permitted" in why


def test_engines_that_the_settings_name_by_address_are_wanted() -> None:
    """One that is named by its name has to be looked up first, which is an attempt."""
    models = [
        {"name": "a", "url": "http://10.0.0.7"},
        {"name": "b", "url": "https://[2001:db8::7]:8443/v1"},
        {"name": "c", "url": "http://c.invalid"},
        {"name": "d"},
    ]
    settings = Settings.model_validate({"models": models})
    assert wanted_of(settings) == {("10.0.0.7", 80), ("2001:db8::7", 8443)}
