"""Lines of a user's file or a trace are read as they are meant, and a wrong one is named by its number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.bench.answer import Answer
from serving.bench.drive import judge
from serving.bench.prepare import Request, Turn
from serving.bench.scenario import Loaded, Wanted, load_scenario, timetable
from serving.bench.work import Line, is_of_form, read_lines
from serving.errors import BadFile, BadSettings, FileMissing

LENGTHS = 'prompt = {kind = "fixed", tokens = 30}\noutput = {kind = "fixed", tokens = 5}\n'


def test_a_line_says_when_and_how_long_by_either_name() -> None:
    """Seconds, or the milliseconds of published traces; what is nobody's business is passed over."""
    text = (
        '{"at_s": 1.5, "prompt_tokens": 10, "output_tokens": 3}\n\n'
        '{"timestamp": 250, "input_length": 7, "output_length": 2, "hash_ids": [1, 2]}\n'
        '{"messages": [], "temperature": 0, "model": "theirs", "stream": false}\n'
    )
    assert read_lines(text, "t") == (
        Line(1.5, 10, 3),
        Line(0.25, 7, 2),
        Line(asked={"messages": [], "temperature": 0}),
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "it is not JSON"),
        ("[1]", "it is not an object"),
        ('{"at_s": -1}', "`at_s` is -1"),
        ('{"prompt_tokens": 1.5}', "`prompt_tokens` is 1.5"),
        ('{"output_tokens": true}', "`output_tokens` is true"),
        ('{"temperature": 0}', "neither `messages` nor `prompt`"),
        ('{"messages": [], "prompt": ""}', "both"),
    ],
)
def test_a_wrong_line_is_named(line: str, words: str) -> None:
    """By its number."""
    with pytest.raises(BadFile) as caught:
        read_lines(f'{{"prompt": "a"}}\n{line}\n', "own.jsonl")
    assert "`own.jsonl`, line 2: " in caught.value.message
    assert words in caught.value.message


def loaded(directory: Path, tables: str, lines: str) -> Loaded:
    """A scenario beside a file of lines."""
    (directory / "lines.jsonl").write_text(lines)
    (directory / "s.toml").write_text(f'title = "t"\nrequests = 10\n{tables}')
    return load_scenario(str(directory / "s.toml"))


def test_a_trace_is_replayed_in_the_order_of_its_time(tmp_path: Path) -> None:
    """From its first request on, faster where that is wished; lengths it lacks are the scenario's."""
    lines = '{"at_s": 9, "prompt_tokens": 50}\n{"at_s": 5}\n{"at_s": 6, "prompt": "Once", "output_tokens": 2}\n'
    found = loaded(tmp_path, LENGTHS + '[load]\nkind = "trace"\npath = "lines.jsonl"\nspeed = 2\n', lines)
    assert found.scenario.requests == 3
    first, second, third = timetable(found.scenario, found.lines)
    assert (first.due, first.prompt_tokens, first.output_tokens) == (0.0, 30, 5)
    assert (second.due, second.prompt_tokens, second.output_tokens) == (0.5, None, 2)
    assert second.line is not None
    assert second.line.asked == {"prompt": "Once"}
    assert (third.due, third.prompt_tokens) == (2.0, 50)


def test_a_users_lines_are_asked_again_until_there_are_enough(tmp_path: Path) -> None:
    """In their order; the digest is of them too."""
    tables = '[load]\nkind = "closed"\nclients = 2\n[work]\nkind = "file"\npath = "lines.jsonl"\n'
    found = loaded(tmp_path, tables, '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}\n')
    asked = [one.line.asked["prompt"] for one in timetable(found.scenario, found.lines) if one.line is not None]
    assert asked == list("abcabcabca")
    other = loaded(tmp_path, tables, '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "d"}\n')
    assert other.sha256 != found.sha256


@pytest.mark.parametrize(
    ("tables", "lines", "kind", "words"),
    [
        (LENGTHS + '[load]\nkind = "trace"\npath = "none.jsonl"\n', "", FileMissing, "none.jsonl"),
        (LENGTHS + '[load]\nkind = "trace"\npath = "lines.jsonl"\n', "", BadFile, "has no line"),
        (LENGTHS + '[load]\nkind = "trace"\npath = "lines.jsonl"\n', '{"prompt": "a"}', BadFile, "has no time"),
        ('[load]\nkind = "trace"\npath = "lines.jsonl"\n', '{"at_s": 1}', BadFile, "neither a request nor lengths"),
        (
            'warm_up = 3\n[load]\nkind = "trace"\npath = "lines.jsonl"\n',
            '{"at_s": 1, "prompt": "a"}',
            BadSettings,
            "all 1 requests of the trace are `warm_up`",
        ),
        (
            '[load]\nkind = "closed"\nclients = 1\n[work]\nkind = "file"\npath = "lines.jsonl"\n',
            '{"at_s": 1}',
            BadFile,
            "asks for nothing",
        ),
        (
            LENGTHS + '[load]\nkind = "closed"\nclients = 1\n[work]\nkind = "conversation"\nturns = 3\n',
            "",
            BadSettings,
            "`requests` (10) is no multiple of the turns (3)",
        ),
        ('[load]\nkind = "closed"\nclients = 1\n', "", BadSettings, "`prompt` is missing"),
        (
            LENGTHS + 'route = "completions"\n[load]\nkind = "closed"\nclients = 1\n[work]\nkind = "tools"\n',
            "",
            BadSettings,
            "goes with the route `chat`",
        ),
        (
            LENGTHS + '[load]\nkind = "sweep"\nover = "clients"\nleast = 1.5\nmost = 4\n',
            "",
            BadSettings,
            "clients are whole numbers",
        ),
    ],
)
def test_what_does_not_go_together_is_said(
    tmp_path: Path, tables: str, lines: str, kind: type[Exception], words: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(kind) as caught:
        loaded(tmp_path, tables, lines)
    assert words in str(caught.value)


def test_a_turn_carries_the_real_answers() -> None:
    """Questions and answers in turns, the last question at the end."""
    body = json.loads(Turn("m", ("one?", "two?", "three?"), 5).body(("1.", "2.")))
    said = [(message["role"], message["content"]) for message in body["messages"]]
    assert said == [
        ("user", "one?"),
        ("assistant", "1."),
        ("user", "two?"),
        ("assistant", "2."),
        ("user", "three?"),
    ]
    assert body["max_tokens"] == 5
    assert body["ignore_eos"] is True


def answered(*events: object) -> Answer:
    """What came of these events."""
    answer = Answer(keeps_text=True)
    for event in events:
        answer.feed(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode(), 1.0)
    return answer


def said(finish: str | None = None, **delta: object) -> dict[str, object]:
    """One event."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


CALL = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"city": "x"}'}}]}


@pytest.mark.parametrize(
    ("check", "events", "outcome"),
    [
        ("object", [said(content='{"name": "a"}'), said("stop"), "[DONE]"], "completed"),
        ("object", [said(content='{"nome": "a"}'), said("stop"), "[DONE]"], "failed"),
        ("object", [said(content="Sure!"), said("stop"), "[DONE]"], "failed"),
        ("object", [said(content='{"name"'), said("length"), "[DONE]"], "short"),
        ("call", [said(**CALL), said("tool_calls"), "[DONE]"], "completed"),
        ("call", [said(content="no"), said("stop"), "[DONE]"], "failed"),
        ("end", [said(content="a"), said("stop"), "[DONE]"], "completed"),
        ("end", [said(content="a"), said("stop")], "truncated"),
    ],
)
def test_an_answer_is_judged_by_what_was_asked_for(check: str, events: list[object], outcome: str) -> None:
    """A form that is not kept is no success."""
    request = Request(Wanted(0, None, 5, 9), b"", check, required=("name",))  # type: ignore[arg-type]
    assert judge(answered(*events), request)[0] == outcome


def test_a_form_is_an_object_with_its_keys() -> None:
    """Anything else is none."""
    assert is_of_form('{"a": 1, "b": 2}', ("a",))
    assert not is_of_form("[1]")
    assert not is_of_form("[" * 100_000)
