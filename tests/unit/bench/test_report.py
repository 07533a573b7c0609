"""The page about results loads nothing, runs nothing, and says first what speaks against them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving.bench.record import Distribution, Prompts, Result, Server, Target, Trust
from serving.bench.report.charts import Chart, draw_charts
from serving.bench.report.compare import compare
from serving.bench.report.figures import DURATIONS, QUANTITIES, read_figure, shown_stage
from serving.bench.report.markup import POLICY, Picture, table, tag
from serving.bench.report.page import report
from tests.support.bench_results import figure, result, stage, sweep

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b[31m"
VOID = {"meta", "img"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "section", "footer", "h1", "h2", "h3", "p", "div",
    "span", "small", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "dl", "dt",
    "dd", "details", "summary",
}  # fmt: skip


class Reader(HTMLParser):
    """What a browser would see: elements, their attributes, and text; tags must close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    """The page as a browser reads it."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def page_of(*results: Result, pictures: Sequence[Picture] = ()) -> str:
    """The page about these."""
    comparison = compare(results, {results[0].name: 2.0}, "EUR") if len(results) > 1 else None
    return report(results, pictures, {results[0].name: [("cpu", "AMD EPYC"), ("gpu 0", "NVIDIA L40S")]}, comparison)


VARIED = {
    "one stage": [result()],
    "a sweep of eight": [sweep()],
    "no meter": [result("dark", stage(power_w=None))],
    "no intervals": [result("few", stage(spread=None, count=100))],
    "no objective": [result("free", stage(goodput=None), scenario={"title": "Free"})],
    "nothing completed": [result("none", stage(figures={}, rates={}, timeline=(), goodput=None, window=None))],
    "a server that is not known": [result("bare", target=Target(url="http://x", model="m"), machine=None)],
    "a timetable": [result("timed", stage(4, kind="poisson"))],
    "two": [result("a"), result("b", stage(speed=900))],
    "three sweeps": [sweep("a"), sweep("b", capacity=64), sweep("c", capacity=8, base=0.2)],
    "no stage": [result("empty").model_copy(update={"stages": ()})],
}


@pytest.mark.parametrize("results", VARIED.values(), ids=VARIED.keys())
def test_a_page_stands_alone(results: list[Result]) -> None:
    """It has no script and no handler, and all that it shows is in it; a browser is told to load nothing else."""
    pictures = [Picture(chart.title, chart.caption, chart.to_svg()) for chart in draw_charts(results)]
    page = page_of(*results, pictures=pictures)
    seen = read(page).seen
    assert {name for name, _ in seen} <= ALLOWED
    for name, attributes in seen:
        assert not {key for key in attributes if key.startswith("on") or key in ("href", "style", "srcset", "action")}
        if "src" in attributes:
            assert name == "img"
            assert (attributes["src"] or "").startswith("data:image/svg+xml;base64,")
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}) in seen
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_what_was_measured_is_on_the_page() -> None:
    """Model, engine and version, flags, plan, digests, scenario, machine and driver, and the figures themselves."""
    text = read(page_of(result())).text
    for said in (
        "llama3-8b", "vllm 0.22.1", "max_num_seqs", "serve --model llama3-8b --concurrency 64", "awq-int4", "5f" * 32,
        "ab" * 32, "NVIDIA L40S", "TTFT ≤ 2000 ms, TPOT ≤ 100 ms", "502 Bad Gateway", "0.350 J", "192 to 208", "99.5",
        "120,000 in prompts (4,000 of them cached)", "took 21% of a core",
    ):  # fmt: skip
        assert said in text, said


@pytest.mark.parametrize(
    ("doubtful", "said"),
    [
        (result("a", stage(trust=Trust(doubts=("the client took 93% of a core",)))), "The client took 93% of a core."),
        (result("a", stage(is_whole=False)), "The run was stopped before its end."),
        (result("a", stage(steady=False)), "Latency still grew at the end"),
        (result("a", prompts=Prompts(exact=False, counted_by="none")), "Prompts are not of exact length"),
        (result("a").model_copy(update={"stages": ()}), "nothing was measured"),
    ],
)
def test_doubts_stand_before_the_figures(doubtful: Result, said: str) -> None:
    """In a box of their own, of one result or of several; a sound result has none."""
    for page in (page_of(doubtful), page_of(result("other"), doubtful)):
        assert ("section", {"class": "notice"}) in read(page).seen
        assert said.lower()[:20] in read(page).text.lower()
        assert page.index("Read this before") < page.index("<table")
    assert "Read this before" not in page_of(result())


def test_too_little_data_is_said_in_its_place() -> None:
    """A p99 of a hundred requests is not a number."""
    assert "not enough data" in page_of(result("few", stage(count=100)))
    assert "not enough data" not in page_of(result("many", stage(count=1000)))


def test_hostile_text_stays_text() -> None:
    """Wherever a server, a file or a scenario may put it."""
    hostile = result(
        HOSTILE,
        stage(errors={HOSTILE: 3}, trust=Trust(doubts=(HOSTILE,))),
        target=Target(
            url=HOSTILE, model=HOSTILE, server=Server(name=HOSTILE, version=HOSTILE, facts={HOSTILE: HOSTILE})
        ),
        scenario={"title": HOSTILE, "objective": {"ttft_ms": 5}},
        scenario_sha256=HOSTILE,
        version=HOSTILE,
        made=HOSTILE,
    )
    for others in ([], [result("b")]):
        runs = [hostile, *others]
        pictures = [Picture(chart.title, chart.caption, chart.to_svg()) for chart in draw_charts(runs)]
        page = page_of(*runs, pictures=[*pictures, Picture(HOSTILE, HOSTILE, SVG)])
        reader = read(page)
        assert {name for name, _ in reader.seen} <= ALLOWED
        assert not any(key.startswith("on") for _, attributes in reader.seen for key in attributes)
        assert "<script>alert(1)</script>" in reader.text
        assert "\x1b" not in page


@given(st.text(), st.text())
def test_text_comes_out_as_it_went_in(text: str, value: str) -> None:
    """In an element and in an attribute, save for what does not print; a blank that holds words together does."""
    reader = read(tag("p", text, title=value))
    assert [name for name, _ in reader.seen] == ["p"]
    assert reader.text == "".join(letter if letter.isprintable() or letter == "\u00a0" else "?" for letter in text)
    assert read(table([text], [[value, text]])).seen[0] == ("div", {"class": "wide"})


def pixels(png: bytes) -> Image.Image:
    """The picture, decoded."""
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return image.convert("L")


@pytest.mark.parametrize("results", VARIED.values(), ids=VARIED.keys())
def test_charts_are_drawn_for_whatever_there_is(results: list[Result]) -> None:
    """Each is an SVG document without a script, and a PNG with something on it."""
    charts = draw_charts(results)
    assert len({chart.name for chart in charts}) == len(charts)
    for chart in charts:
        tree = ET.fromstring(chart.to_svg())  # noqa: S314 - our own file
        assert tree.tag == "{http://www.w3.org/2000/svg}svg"
        links = [value for part in tree.iter() for key, value in part.attrib.items() if key.endswith("href")]
        assert all(link.startswith("#") for link in links)
        assert not any(part.tag.endswith("}script") for part in tree.iter())
        drawn = pixels(chart.to_png())
        assert drawn.width > 1000
        darkest, lightest = drawn.getextrema()
        assert (darkest < 128, lightest) == (True, 255)


def names_of(charts: Sequence[Chart]) -> list[str]:
    """Of the charts."""
    return [chart.name for chart in charts]


def test_there_is_a_chart_for_each_question_and_none_without_data() -> None:
    """A frontier wants two points, a curve its quantiles, a time line its slices."""
    both, line = ["distribution-ttft", "distribution-gap"], "time-line"
    frontiers = ["frontier-ttft-p50", "frontier-ttft-p99", "frontier-tpot-p50"]
    assert names_of(draw_charts([result()])) == [*both, line]
    assert names_of(draw_charts([sweep()])) == [*frontiers, *both, line]
    assert names_of(draw_charts(VARIED["two"])) == [*frontiers, *both, "time-line-1", "time-line-2"]
    few = [result("a", stage(count=100)), result("b", stage(count=100))]
    assert "frontier-ttft-p99" not in names_of(draw_charts(few))
    assert draw_charts(VARIED["nothing completed"]) == ()
    assert draw_charts(VARIED["no stage"]) == ()


def test_a_frontier_has_a_point_for_each_load_and_bars_where_known() -> None:
    """At its throughput and its latency, in milliseconds."""
    run = sweep()
    (chart,) = [chart for chart in draw_charts([run]) if chart.name == "frontier-ttft-p50"]
    (axes,) = chart.drawing.axes
    wanted = []
    for one in run.stages:
        rate, latency = read_figure(one, "output_tokens_per_s"), read_figure(one, "ttft_p50")
        assert rate is not None
        assert latency is not None
        wanted.append((rate.value, 1000 * latency.value))
    assert np.asarray(axes.lines[0].get_xydata()) == pytest.approx(np.array(wanted))
    assert {text.get_text() for text in axes.texts} <= {"1", "2", "4", "8", "16", "32", "64", "128"}
    assert "Bars: 95% intervals." in chart.caption
    bare = [result(name, stage(spread=None)) for name in ("a", "b")]
    assert "Bars" not in draw_charts(bare)[0].caption


def test_a_panel_is_there_for_what_is_known() -> None:
    """Six with a meter, three without."""
    for run, panels in ((result(), 6), (result("dark", stage(power_w=None)), 3)):
        assert len(draw_charts([run])[-1].drawing.axes) == panels


def test_gaps_of_nothing_do_not_keep_a_curve_from_being_drawn() -> None:
    """Tokens that came together have no time between them, and zero has no place on a logarithm's scale."""
    curve = tuple([0.0] * 50 + [0.001 * (place + 1) for place in range(51)])
    flat = Distribution(count=500, p50=figure(0.001), curve=curve)
    for gaps in (
        flat,
        flat.model_copy(update={"curve": (0.0,) * 101}),
        flat.model_copy(update={"curve": (0.02,) * 101}),
    ):
        charts = draw_charts([result("a", stage(figures={"gap": gaps}))])
        assert all(pixels(chart.to_png()).width for chart in charts)


def test_nobodys_settings_change_a_chart() -> None:
    """A matplotlibrc of one's own is for one's own charts, and what is drawn here leaves it as it was."""
    plain = draw_charts([result()])[0].to_svg()
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "text.color": "red"}):
        assert draw_charts([result()])[0].to_svg() == plain
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.parametrize("name", ["_hidden", "$x_{", "模型", "a\nb", "x" * 500, ""])
def test_any_name_can_be_drawn(name: str) -> None:
    """As it is where it can be: also what matplotlib would pass over, or take for a formula."""
    charts = draw_charts([result(name), result("other")])
    shown = [text.get_text() for text in charts[0].drawing.legends[0].get_texts()]
    assert shown == [{"a\nb": "a?b", "x" * 500: "x" * 39 + "…"}.get(name, name), "other"]
    assert pixels(charts[0].to_png()).width


def test_the_same_result_makes_the_same_page() -> None:
    """To the byte: a page under version control changes only with its result."""
    pages = []
    for _ in range(2):
        pictures = [Picture(chart.title, chart.caption, chart.to_svg()) for chart in draw_charts([sweep()])]
        pages.append(page_of(sweep(), pictures=pictures))
    assert pages[0] == pages[1]
    assert not re.search(rb"<dc:date>", base64.b64decode(pages[0].split("base64,")[1].split('"')[0]))


def test_the_stage_that_stands_for_a_sweep_is_the_highest_that_held() -> None:
    """Else the last, and none where there is none."""
    found = shown_stage(sweep(capacity=16))
    assert found is not None
    assert found.level == 16
    last = shown_stage(result("a", stage(8), stage(4)))
    assert last is not None
    assert last.level == 4
    assert shown_stage(result("a").model_copy(update={"stages": ()})) is None


def test_every_duration_of_a_result_has_a_name() -> None:
    """And every figure by its name is read where the stage has it."""
    one = stage(kind="poisson")
    assert set(one.figures) <= set(DURATIONS)
    durations = {name for name, quantity in QUANTITIES.items() if quantity.unit == "s"}
    for name in QUANTITIES:
        is_known = name not in durations or name.rpartition("_")[0] in one.figures
        assert (read_figure(one, name) is not None) == is_known, name
