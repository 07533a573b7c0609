"""The page on metrics is what the code does."""

import re
from pathlib import Path

import pytest

from serving.llamacpp.metrics import render
from serving.telemetry.metrics import SECONDS, Metrics, Tally, relabel

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def documented(section: str) -> dict[str, str]:
    """The names of a section of the page, each with its type."""
    text = PAGE.read_text().partition(section)[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {name: row[1].strip() for row in rows for name in re.findall(r"`([a-z_]+)`", row[0])}


def test_the_gateways_metrics_are_the_documented_ones() -> None:
    """Each name and type on the page is in the registry, and the other way round."""
    assert Metrics().names() == documented("## The gateway's")


def test_the_labels_are_the_documented_ones() -> None:
    """The labels of the page's table are those of the code."""
    metrics = Metrics()
    text = PAGE.read_text()
    for family in (metrics.requests, metrics.tokens, metrics.in_flight, metrics.estimated, metrics.engine_restarts):
        name = f"`{family._name}{'_total' if family._type == 'counter' else ''}`"
        row = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
        assert re.findall(r"`([a-z]+)`", row.split(" | ")[2]) == list(family._labelnames)


def test_the_engines_metrics_are_the_documented_ones() -> None:
    """What the llama.cpp engine reports is on the page, and nothing else is."""
    source = Path(render.__code__.co_filename).read_text()
    reported = set(re.findall(r'"(perimeter_engine_[a-z_]+)"', source))
    assert set(documented("The llama.cpp engine's:")) == reported


def test_a_tally_is_counted_in_full() -> None:
    """Bulk observations give the buckets that single ones would."""
    metrics = Metrics()
    tally = Tally(SECONDS)
    for value in (0.001, 0.005, 0.3, 1000.0):
        tally.observe(value)
    metrics.request_seconds.add(("r", "m"), tally)
    metrics.request_seconds.observe(("r", "m"), 0.3)
    (family,) = metrics.request_seconds.collect()
    found = {sample.labels.get("le"): sample.value for sample in family.samples if sample.name.endswith("_bucket")}
    assert found["0.005"] == 2
    assert found["0.5"] == 4
    assert found["+Inf"] == 5
    assert next(sample.value for sample in family.samples if sample.name.endswith("_sum")) == pytest.approx(1000.606)


def test_engines_metrics_get_labels() -> None:
    """Two engines' families are joined, labels are added, values and own labels stay."""
    one = '# HELP a_total What.\n# TYPE a_total counter\na_total{x="}"} 1\n# TYPE g gauge\ng 2.5 1700000000\n'
    text = relabel([({"model": "m", "engine": "e"}, one), ({"model": 'q"\n', "engine": "e"}, one)])
    assert text.splitlines() == [
        "# HELP a_total What.",
        "# TYPE a_total counter",
        'a_total{x="}",model="m",engine="e"} 1',
        'a_total{x="}",model="q\\"\\n",engine="e"} 1',
        "# TYPE g gauge",
        'g{model="m",engine="e"} 2.5',
        'g{model="q\\"\\n",engine="e"} 2.5',
    ]


def test_an_engine_cannot_say_whose_a_sample_is() -> None:
    """An engine's own label of a name that we add is kept under another one: vLLM numbers its engines."""
    line = 'vllm:num_requests_running{engine="0",model_name="demo",model="other"} 2.0\n'
    assert relabel([({"model": "m", "engine": "vllm"}, line)]) == (
        'vllm:num_requests_running{exported_engine="0",model_name="demo",exported_model="other",'
        'model="m",engine="vllm"} 2.0\n'
    )


@pytest.mark.parametrize(
    "line", ["no number here", "a{b 1", "a 1 2 3", "<html>", 'a{x="y"}', "# EOF", "a NaNx", "\x00 1", "1a 1"]
)
def test_what_is_no_metric_is_dropped(line: str) -> None:
    """An engine cannot break the page for the others."""
    assert relabel([({"model": "m"}, f"{line}\nok 1\n")]).endswith('ok{model="m"} 1\n')
    assert line not in relabel([({"model": "m"}, f"{line}\nok 1\n")])


def test_an_engine_cannot_speak_for_the_gateway() -> None:
    """Families with a name of the gateway's are dropped, whatever their suffix."""
    text = "perimeter_requests_total 9\nperimeter_ttft_seconds_bucket 9\nperimeter_engine_running 1\n"
    assert relabel([({}, text)], Metrics().names()) == "perimeter_engine_running{} 1\n"
