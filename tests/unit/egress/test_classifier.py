"""The model as a detector: what it is asked, what its answers say, and that it can only add."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.egress.classifier import (
    LABELS,
    MODEL,
    SCHEMA,
    Classifier,
    _Inside,
    classifying,
    is_inside,
    question,
    read_answer,
    spans_of,
    windows,
)
from serving.errors import BadSettings, FileMissing, StartError, Untrusted
from serving.policy.detect import Finding, Part, Span, Verdict
from serving.settings.outside import Classifier as Settings
from tests.support.local_model import FAULTS, LocalModel, answer, content, text_of

CLEAN = Finding(Verdict.CLEAN)
FOUND = Finding(Verdict.SENSITIVE, (Span("/x", 0, 1, "email", "emails"),))
UNKNOWN = Finding(Verdict.UNKNOWN, reasons=("too_long",))
GROUPS = st.lists(
    st.lists(
        st.builds(lambda where, text: Part(f"/{where}", text), st.integers(0, 99), st.text(max_size=80)), max_size=8
    ),
    max_size=3,
).map(lambda groups: [[Part(f"/{g}/{i}", p.text) for i, p in enumerate(group)] for g, group in enumerate(groups)])


@given(GROUPS, st.integers(4, 60), st.integers(0, 30))
def test_every_text_is_shown_whole_and_once(groups: list[list[Part]], size: int, overlap: int) -> None:
    """In stretches that are no longer than asked, each with its places; blank ones and repetitions apart."""
    cut = windows(groups, size, overlap)
    texts = {part.where: part.text for group in groups for part in group}
    shown: dict[str, set[int]] = {}
    for window in cut:
        assert 0 < len(window.text) <= size
        assert "\n".join(texts[where][start:end] for where, start, end in window.pieces) in window.text
        for where, start, end in window.pieces:
            shown.setdefault(where, set()).update(range(start, end))
    whole = {texts[where] for where, places in shown.items() if places == set(range(len(texts[where])))}
    assert whole == {text for text in texts.values() if text.strip()}


@given(st.lists(st.text("abc ", min_size=1, max_size=40), min_size=1, max_size=5), st.text(max_size=50))
def test_what_was_asked_is_asked_again_as_it_was(texts: list[str], more: str) -> None:
    """A conversation that grows, and what is sent of it: the stretches of before are the same, but for the last."""
    asked = [Part(f"/{index}", text) for index, text in enumerate(texts)]
    before = [window.text for window in windows([asked], 20)]
    grown = [window.text for window in windows([[*asked, Part("/more", more)]], 20)]
    assert grown[: len(before) - 1] == before[:-1]
    assert [window.text for window in windows([asked, [Part("/sent", more), *asked]], 20)][: len(before)] == before


@given(st.text(), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_a_text_is_data_between_marks_and_nowhere_else(text: str, mark: str) -> None:
    """The instructions are the same whatever it says."""
    body = question("m", text, mark)
    told, asked = body["messages"]  # type: ignore[misc]
    assert asked["content"] == f"{mark}\n{text}\n{mark}"
    assert told["content"] == question("m", "", mark)["messages"][0]["content"]  # type: ignore[index]
    assert mark in told["content"]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA  # type: ignore[index]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([*LABELS, "clean"]),
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.sampled_from(["labels", "verdict", "x"]), below, max_size=3)
    ),
    max_leaves=9,
)


@given(JSON | st.fixed_dictionaries({"labels": JSON, "verdict": JSON}))
def test_an_answer_says_labels_or_nothing_at_all(told: object) -> None:
    """Whatever the JSON is: labels of the list, or it is no answer."""
    try:
        labels = read_answer(answer(json.dumps(told)))
    except ValueError:
        return
    assert labels <= LABELS.keys()
    assert isinstance(told, dict)
    assert (not labels) == (told["verdict"] == "clean" and told["labels"] == [])


@given(JSON | st.binary() | st.fixed_dictionaries({"choices": st.lists(JSON, max_size=2)}))
def test_what_is_no_answer_is_a_value_error(told: object) -> None:
    """And nothing else."""
    with pytest.raises(ValueError):
        read_answer(told if isinstance(told, bytes) else json.dumps(told).encode())


@given(st.lists(st.sampled_from([*LABELS]), max_size=3), st.sampled_from(["clean", "sensitive"]), st.data())
def test_an_answer_that_was_cut_says_nothing(labels: list[str], verdict: str, data: st.DataObject) -> None:
    """At any place; whole, it says no less than its labels, whatever its verdict."""
    said = content(*labels, verdict=verdict)
    assert read_answer(answer(said)) >= set(labels)
    assert read_answer(answer(said)) or verdict == "clean"
    for raw in (
        answer(said[: data.draw(st.integers(0, len(said) - 1))]),
        answer(said)[: data.draw(st.integers(0, 99))],
    ):
        with pytest.raises(ValueError):
            read_answer(raw)
    with pytest.raises(ValueError):
        read_answer(answer(said, "length"))


def test_nesting_without_end_is_no_answer() -> None:
    """Nor a crash."""
    for raw in (b"[" * 100_000, answer("[" * 100_000), answer('{"labels": ' + "[" * 50_000)):
        with pytest.raises(ValueError):
            read_answer(raw)


@pytest.mark.parametrize(
    ("address", "is_so"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("10.1.2.3", True),
        ("172.31.255.255", True),
        ("172.32.0.0", False),
        ("192.168.0.1", True),
        ("::1", True),
        ("fd12::1", True),
        ("8.8.8.8", False),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("2606:4700::1111", False),
        ("fe80::1", False),
        ("::", False),
        ("::ffff:8.8.8.8", False),
        ("2002:0808:0808::1", False),
        ("64:ff9b::808:808", False),
    ],
)
def test_only_this_host_and_private_networks_are_inside(address: str, is_so: bool) -> None:
    """Whole texts go there."""
    assert is_inside(ip_address(address)) == is_so


@asynccontextmanager
async def asking(url: str, **given: object) -> AsyncIterator[Classifier]:
    settings = Settings(url=url, model="m", **{"timeout_s": 2.0, **given})  # type: ignore[arg-type]
    async with classifying(settings) as made:
        assert made is not None
        yield made


@pytest.mark.parametrize(
    "url",
    [
        "http://8.8.8.8/v1",
        "https://1.1.1.1",
        "http://134744072/v1",
        "http://127.1/v1",
        "http://0.0.0.0:8000",
        "http://169.254.169.254/v1",
        "http://[2606:4700::1111]/v1",
        "http://[::ffff:8.8.8.8]/v1",
        "http://[fe80::1]/v1",
    ],
)
async def test_an_address_outside_is_refused(url: str) -> None:
    """Before anything is asked: it would be a way out."""
    with pytest.raises(BadSettings, match=r"egress\.classifier\.url"):
        async with asking(url):
            pass


async def test_a_name_of_an_address_outside_is_not_connected_to() -> None:
    """Whoever answers for the name."""
    resolver = _Inside()
    assert await resolver.resolve("localhost", 80)
    with pytest.raises(OSError):
        await resolver.resolve("8.8.8.8", 80)


async def test_half_of_the_settings_is_refused_and_none_is_no_model() -> None:
    """Nobody should believe that a model is asked where none is."""
    async with classifying(Settings()) as made:
        assert made is None
    for half in (Settings(url="http://127.0.0.1:1/v1"), Settings(model="m")):
        with pytest.raises(StartError):
            async with classifying(half):
                pass


async def test_a_credential_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """When it starts; and a good one goes with each question."""
    path = tmp_path / "key"
    with pytest.raises(FileMissing):
        async with asking("http://127.0.0.1:1", credentials=path):
            pass
    path.write_text("secret-key\n")
    path.chmod(0o644)
    with pytest.raises(Untrusted):
        async with asking("http://127.0.0.1:1", credentials=path):
            pass
    path.chmod(0o600)
    with LocalModel() as model:
        async with asking(model.url, credentials=path) as classifier:
            assert await classifier.add(CLEAN, [[Part("", "hello")]], is_required=True) == CLEAN
            path.unlink()
            unread = await classifier.add(CLEAN, [[Part("", "another")]], is_required=True)
    ((where, headers, body),) = model.received
    assert (where, headers["authorization"]) == ("/v1/chat/completions", "Bearer secret-key")
    assert headers["x-perimeter-route"] == "local"
    assert (body["model"], text_of(body)) == ("m", "hello")
    assert unread.reasons == ("detector_failed:model",)


@pytest.mark.parametrize("verdict", ["clean", "sensitive"])
@pytest.mark.parametrize("labels", [(), ("health",), ("health", "legal")])
@pytest.mark.parametrize("finding", [CLEAN, FOUND, UNKNOWN], ids=lambda finding: finding.verdict.value)
async def test_it_adds_and_never_clears(finding: Finding, labels: tuple[str, ...], verdict: str) -> None:
    """Whatever it says: what was found stays found, and it is not even asked."""
    with LocalModel() as model:
        model.say = content(*labels, verdict=verdict)
        async with asking(model.url) as classifier:
            told = await classifier.add(finding, [[Part("/messages/0/content", "some text")]], is_required=True)
    if finding is not CLEAN:
        assert told is finding
        assert model.received == []
        return
    wanted = set(labels) or ({"other"} if verdict == "sensitive" else set())
    assert told.labels == {f"model.{label}" for label in wanted}
    assert told.verdict is (Verdict.SENSITIVE if wanted else Verdict.CLEAN)
    assert {(each.where, each.start, each.end, each.detector) for each in told.spans} <= {
        ("/messages/0/content", 0, 9, MODEL)
    }


@pytest.mark.parametrize("fault", [*FAULTS, "hang", "drip"])
async def test_what_is_no_answer_is_unknown_where_it_is_required(fault: str) -> None:
    """And what it was, where it is not; neither is remembered."""
    with LocalModel() as model:
        model.say = fault
        async with asking(model.url, timeout_s=0.7) as classifier:
            parts = [[Part("", "some text")]]
            told = await classifier.add(CLEAN, parts, is_required=True)
            assert told.verdict is Verdict.UNKNOWN, told
            assert told.reasons == (("timeout:model" if fault in ("hang", "drip") else "detector_failed:model"),)
            assert await classifier.add(CLEAN, parts, is_required=False) == CLEAN
            model.say = content()
            assert await classifier.add(CLEAN, parts, is_required=True) == CLEAN
        assert all(path == "/v1/chat/completions" for path, _, _ in model.received)
        assert len(model.received) == 3


async def test_nobody_there_is_unknown() -> None:
    """A port that nothing listens at; a socket that is none."""
    with LocalModel() as gone:
        pass
    for url in (gone.url, "unix:/nowhere/at/all"):
        async with asking(url) as classifier:
            assert (await classifier.add(CLEAN, [[Part("", "x")]], is_required=True)).verdict is Verdict.UNKNOWN


async def test_a_long_text_is_asked_about_in_stretches_some_at_a_time() -> None:
    """What one of them holds makes the whole sensitive, at its place; answers are known again, failures are not."""
    text = "".join(f"line {number}\n" for number in range(400))
    with LocalModel() as model:
        model.say = lambda asked: content("trade_secret", verdict="sensitive") if "line 390" in asked else content()
        async with asking(model.url, window_chars=500, parallel=3) as classifier:
            told = await classifier.add(CLEAN, [[Part("/a", text)]], is_required=True)
            count = len(model.received)
            assert told.labels == {"model.trade_secret"}
            assert all(text[each.start : each.end].count("line 390") for each in told.spans)
            assert 1 < model.most_at_once <= 3
            assert await classifier.add(CLEAN, [[Part("/a", text)]], is_required=True) == told
            assert len(model.received) == count
            model.say = lambda asked: "hang" if "hang" in asked else content("legal")
            mixed = await classifier.add(CLEAN, [[Part("/a", "hang")], [Part("/b", "law")]], is_required=True)
    assert (mixed.verdict, mixed.labels, mixed.reasons) == (Verdict.SENSITIVE, {"model.legal"}, ("timeout:model",))


async def test_a_text_beyond_the_bound_is_not_asked_about() -> None:
    """It is unknown, where the model is required."""
    with LocalModel() as model:
        async with asking(model.url, most_chars=100) as classifier:
            told = await classifier.add(CLEAN, [[Part("", "x" * 101)]], is_required=True)
            assert (told.verdict, told.reasons) == (Verdict.UNKNOWN, ("too_long:model",))
            assert await classifier.add(CLEAN, [[Part("", "x" * 101)]], is_required=False) == CLEAN
    assert model.received == []


async def test_each_question_has_a_mark_of_its_own() -> None:
    """Nobody can have written it into a text."""
    with LocalModel() as model:
        async with asking(model.url) as classifier:
            for text in ("a", "b", "c"):
                await classifier.add(CLEAN, [[Part("", text)]], is_required=True)
    marks = {body["messages"][1]["content"].split("\n")[0] for _, _, body in model.received}
    assert len(marks) == 3
    assert all(len(mark) == 32 for mark in marks)


def test_many_places_of_one_stretch_are_not_all_named() -> None:
    """It does not say where, and a hundred places say no more than a few."""
    (window,) = windows([[Part(f"/{number}", f"t{number}") for number in range(100)]], 6000)
    assert len(spans_of(window, ["legal", "health"])) == 16
