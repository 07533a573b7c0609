"""Reading a trace and judging it, over traces that nobody recorded."""

from hypothesis import given
from hypothesis import strategies as st

from serving.doctor.egress.addresses import destinations
from serving.doctor.egress.judge import Own, attempts_of
from serving.doctor.egress.lines import Call, End, Event, Unread, read_lines, split, text_of
from serving.doctor.egress.processes import processes_of

payloads = st.text(st.sampled_from('ab"\\,(){}[]=<>. \n') | st.sampled_from("sa_family"), max_size=30)
ipv4 = st.builds(lambda a, b: f"192.{a}.2.{b}", st.integers(0, 255), st.integers(0, 255))
errors = st.sampled_from(["0", "-1 EINPROGRESS (x)", "-1 ENETUNREACH (x (y))", "?", "-1 ECONNREFUSED (x) = 0"])


def quoted(text: str) -> str:
    """A string as strace writes it."""
    escapes = {'"': r"\"", "\\": r"\\", "\n": r"\n"}
    return '"' + "".join(escapes.get(letter, letter) for letter in text) + '"'


def sending(host: str, port: int, payload: str) -> str:
    address = f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{host}")}}'
    return f"sendto(3, {quoted(payload)}, {len(payload)}, MSG_NOSIGNAL, {address}, 16"


def judged(events: list[Event]) -> list[tuple[int, str]]:
    _, owners = processes_of(events)
    return [(one.pid, one.address) for one in attempts_of(events, owners, Own(), [("load", 0.0)])]


@given(host=ipv4, port=st.integers(1, 65535), payload=payloads, result=errors)
def test_what_is_sent_never_hides_where_to(host: str, port: int, payload: str, result: str) -> None:
    """Whatever the payload looks like and whatever came of it, on one line or on two."""
    call = sending(host, port, payload)
    whole = [f"5 1.0 {call}) = {result}"]
    halves = [
        f"5 1.0 {call} <unfinished ...>",
        "6 1.1 +++ exited with 0 +++",
        f"5 1.2 <... sendto resumed>) = {result}",
    ]
    for lines in (whole, halves):
        events = list(read_lines(lines))
        assert judged(events) == [(5, host)]
        assert not any(isinstance(event, Unread) for event in events)


@given(text=payloads)
def test_a_string_is_read_as_it_was_written(text: str) -> None:
    """Quoting and reading give the same text, and it is one argument."""
    assert text_of(quoted(text)) == text
    assert split(f"3, {quoted(text)}, 5") == ("3", quoted(text), "5")


@given(lines=st.lists(st.text(max_size=60) | st.builds("{} 1.0 {}".format, st.integers(1, 9), payloads), max_size=20))
def test_no_line_is_too_strange(lines: list[str]) -> None:
    """Anything is read without a failure; what is not understood is said, never passed over."""
    whole = [line.replace("\n", " ").replace("\r", " ") for line in lines]
    events = list(read_lines(whole))
    processes_of(events)
    judged(events)
    told = [line for line in whole if line and not line.partition(" 1.0 ")[2].startswith("--- ")]
    assert len(events) >= len([line for line in told if line.strip()]) - sum("unfinished" in line for line in told)


@st.composite
def family_trees(draw: st.DrawFn) -> tuple[list[str], int]:
    """Lines of processes that fork each other, each parent's line before or after its child's; how many there are."""
    count = draw(st.integers(1, 8))
    lines = ['100 1.0 execve("/bin/a", ["a"], 0x1) = 0']
    ends = ["100 9.0 +++ exited with 0 +++"]
    for child in range(101, 100 + count):
        parent = draw(st.integers(100, child - 1))
        fork = f"{parent} 2.0 clone(child_stack=NULL, flags=SIGCHLD) = {child}"
        did = f"{child} 2.1 socket(AF_UNIX, SOCK_STREAM, 0) = 3"
        lines += draw(st.permutations([fork, did])) if draw(st.booleans()) else [fork]
        ends.append(f"{child} 9.0 +++ exited with 0 +++")
    return [*lines, *draw(st.permutations(ends))], count


@given(tree=family_trees())
def test_every_process_is_listed_once_and_seen_whole(tree: tuple[list[str], int]) -> None:
    """In whatever order the lines of parent and child come."""
    lines, count = tree
    processes, _ = processes_of(list(read_lines(lines)))
    assert sorted(one.pid for one in processes) == list(range(100, 100 + count))
    assert [one.doubts for one in processes] == [()] * count


@given(tree=family_trees(), data=st.data())
def test_an_end_that_is_missing_is_a_doubt(tree: tuple[list[str], int], data: st.DataObject) -> None:
    """Exactly the process whose end nobody saw."""
    lines, count = tree
    lost = data.draw(st.integers(100, 99 + count))
    kept = [line for line in lines if not line.startswith(f"{lost} 9.0")]
    processes, _ = processes_of(list(read_lines(kept)))
    assert [one.pid for one in processes if one.doubts] == [lost]


@given(hosts=st.lists(ipv4, max_size=6))
def test_all_messages_of_a_call_count(hosts: list[str]) -> None:
    """One call of sendmmsg sends to many."""
    name = '{{sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("{}")}}'
    rest = 'msg_namelen=16, msg_iov=[{iov_base="}", iov_len=1}]}, msg_len=1}'
    messages = ", ".join(f"{{msg_hdr={{msg_name={name.format(host)}, {rest}" for host in hosts)
    (call,) = read_lines([f"5 1.0 sendmmsg(3, [{messages}], {len(hosts)}, 0) = {len(hosts)}"])
    assert isinstance(call, Call)
    assert [address.host for address in destinations(call)] == hosts


def test_an_end_is_an_end() -> None:
    """The kinds of events are told apart."""
    (event,) = read_lines(["5 1.0 +++ exited with 0 +++"])
    assert isinstance(event, End)
