"""A bound is read to the letter, and what cannot be told breaks it."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serving.bench.record import Requests, Result
from serving.bench.report.bounds import Bound, breaks, read_bound
from serving.bench.report.figures import QUANTITIES
from serving.errors import UsageError
from tests.support.bench_results import result, stage

numbers = st.floats(0, 1e9, allow_nan=False, allow_infinity=False).map(abs)
ops = st.sampled_from([">", ">=", "<", "<="])
blanks = st.text(" \t", max_size=2)


def units_of(name: str) -> list[str]:
    """The units that a figure may be bounded in."""
    return ["x", "", *{"s": ["ms", "s"], "share": ["%"]}.get(QUANTITIES[name].unit, [])]


@st.composite
def bounds(draw: st.DrawFn) -> Bound:
    """Any bound that can be written."""
    name = draw(st.sampled_from(sorted(QUANTITIES)))
    return Bound(name, draw(ops), draw(numbers), draw(st.sampled_from(units_of(name))))


@given(bounds(), blanks, blanks)
def test_a_bound_reads_as_it_is_written(bound: Bound, before: str, between: str) -> None:
    """With blanks anywhere between its parts, or none."""
    assert read_bound(str(bound)) == bound
    assert read_bound(before + str(bound).replace(" ", between) + before) == bound


@given(st.text("ttf_p9 ><=.0x1ms%e-", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_bound_or_a_clear_error(text: str) -> None:
    """One that says where in the text, and which figures there are."""
    found, failure = None, None
    try:
        found = read_bound(text)
    except UsageError as error:
        failure = error
    if failure is None:
        assert found == read_bound(str(found))
    else:
        place = re.match(r" at character (\d+), ", failure.message.removeprefix(f"cannot read `{text}`"))
        assert place is not None
        assert 1 <= int(place.group(1)) <= len(text) + 1
        assert "ttft" in (failure.hint or "") or "leave the unit away" in (failure.hint or "")


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", 1, "a figure's name is wanted"),
        ("ttft_p98 > 1x", 1, "`ttft_p98` is no figure"),
        ("ttft_p99", 9, "one of > >= < <= is wanted"),
        ("ttft_p99 == 1x", 10, "one of > >= < <= is wanted"),
        ("ttft_p99 > fast", 12, "a number is wanted"),
        ("ttft_p99 > -1x", 12, "a number is wanted"),
        ("ttft_p99 > 1e999", 12, "too large"),
        ("ttft_p99 > 5 min", 14, "x, ms, s, % or nothing is wanted"),
        ("ttft_p99 > 5 ms please", 16, "nothing more is wanted"),
        ("ttft_p99 > 5%", 13, "not measured in %"),
        ("goodput < 5ms", 12, "not measured in ms"),
        ("failed > 1s", 11, "not measured in s"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, place: int, said: str) -> None:
    """The first character has the number 1."""
    with pytest.raises(UsageError) as caught:
        read_bound(text)
    assert f"at character {place}, " in caught.value.message
    assert said in caught.value.message
    assert caught.value.hint


def test_a_mistyped_figure_is_answered_with_the_nearest() -> None:
    """In the hint."""
    with pytest.raises(UsageError) as caught:
        read_bound("tfft_p99 > 1x")
    assert "did you mean `ttft_p99`?" in (caught.value.hint or "")


def broken(text: str, *results: Result) -> list[str]:
    """Names of the results that break it."""
    return [found.name for found in breaks(read_bound(text), results)]


def test_units_mean_what_they_say() -> None:
    """A TTFT of 200 ms and a goodput of 99.5%."""
    one = result("a")
    for text in ("ttft_p50 > 199ms", "ttft_p50 >= 0.2 s", "ttft_p50 > 0.199", "goodput < 99.6%", "goodput < 0.996"):
        assert broken(text, one) == ["a"], text
    for text in ("ttft_p50 > 201ms", "ttft_p50 > 200ms", "ttft_p50 > 0.2", "goodput < 99.4%", "goodput < 0.994"):
        assert broken(text, one) == [], text


def test_a_ratio_is_judged_against_the_first_and_only_where_it_is_real() -> None:
    """Without an interval the ratio itself decides."""
    first = result("a")
    assert broken("ttft_p99 > 1.05x", first, result("b", stage(ttft=0.3))) == ["b"]
    assert broken("ttft_p99 > 1.05x", result("b", stage(ttft=0.3)), first) == []
    assert broken("ttft_p99 > 1.05x", first, result("b", stage(ttft=0.3, spread=0.6))) == []
    assert broken("ttft_p99 > 1.05x", first, result("b", stage(ttft=0.22, spread=None))) == ["b"]
    assert broken("output_tokens_per_s < 0.95x", first, result("b", stage(speed=600)), result("c")) == ["b"]


def test_what_is_not_known_breaks_a_bound() -> None:
    """Too few requests, no meter, no load in common, no stage: nobody can tell that it holds."""
    few, dark = result("few", stage(count=100)), result("dark", stage(power_w=None))
    for bound, *results in (
        ("ttft_p99 > 10s", few),
        ("ttft_p99 > 10x", result("a"), few),
        ("ttft_p99 > 10x", few, result("few")),
        ("joules_per_output_token > 9", dark),
        ("ttft_p50 > 10x", result("a", stage(8)), result("few")),
        ("ttft_from_due_p50 > 10s", result("few")),
        ("ttft_p50 > 10s", result("few").model_copy(update={"stages": ()})),
    ):
        (found,) = breaks(read_bound(str(bound)), [one for one in results if isinstance(one, Result)])
        assert found.name in ("few", "dark")
        assert "cannot tell" in str(found)


def test_failures_are_counted_against_none() -> None:
    """None against none is no change; some against none is beyond any ratio."""
    none, some = (result(name, stage(requests=Requests(completed=900, failed=n))) for name, n in (("a", 0), ("b", 3)))
    assert broken("failed > 1.5x", none, none.model_copy(update={"name": "c"})) == []
    assert broken("failed > 1.5x", none, some) == ["b"]
    assert broken("failed > 0", none, some) == ["b"]


@given(bounds())
def test_a_result_is_no_different_from_itself(bound: Bound) -> None:
    """Whatever is known of it has the ratio 1, which is never real."""
    assume(bound.unit == "x")
    one = result("a", stage(kind="poisson"))
    told = breaks(bound, [one, one.model_copy(update={"name": "b"})])
    # these have no interval, so that the bound alone decides: `> 0.5x` is broken by 1
    bare = bound.figure in ("joules_per_output_token", "output_tokens_per_s_per_w", "failed")
    assert all("cannot tell" in found.why or (bare and found.why.startswith("1.00x")) for found in told)


@given(bounds())
def test_exactly_one_of_a_bound_and_its_opposite_breaks(bound: Bound) -> None:
    """Of values that are known."""
    assume(bound.unit != "x")
    opposite = Bound(bound.figure, {">": "<=", "<=": ">", "<": ">=", ">=": "<"}[bound.op], bound.number, bound.unit)  # type: ignore[arg-type]
    one = result("a", stage(kind="poisson"))
    found = [why for each in (bound, opposite) for why in breaks(each, [one])]
    assert len(found) == (2 if "cannot tell" in str(found[0]) else 1)
