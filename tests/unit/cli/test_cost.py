"""`serve cost`, as it is typed."""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from serving.access import Access as Ledgers
from serving.cli.app import invoke
from serving.cli.cost_inputs import span
from serving.economics.books import STALE_AFTER, Gpu, PricedModel
from serving.economics.report.titles import TITLES, title_of
from serving.economics.report.units import unit_of
from serving.economics.report.words import LANGUAGES, WORDS, Speech
from serving.economics.uncertainty import DRAWS
from serving.economics.values import leaves
from serving.errors import BadFile, FileMissing, UsageError
from serving.settings import Access
from tests.support.bench_results import sweep
from tests.support.cases import ROOT, api, case, market, own
from tests.support.harness import wait_until

CASE = str(ROOT / "configs" / "case.toml")
ESTIMATE = ["cost", "estimate", "--api", "seeds-2026/frontier", "--tokens-per-day", "5M", "--mix", "75/25"]


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    assert invoke(list(words)) == 0
    said = capsys.readouterr()
    return said.out, said.err


BOOK = market()
ENTRIES: tuple[PricedModel | Gpu, ...] = (*BOOK.model, *BOOK.gpu)
STALE = {each.name: each.is_stale(datetime.now(UTC).date()) for each in ENTRIES}


def assert_staleness_is_said(err: str, name: str) -> None:
    entry = next(each for each in ENTRIES if each.name == name)
    assert (f"{name}: last checked {entry.checked}. STALE" in err) == STALE[name]


def figures(node: Any, path: str = "") -> list[str]:
    """Paths of numbers that have no unit beside them."""
    if isinstance(node, dict):
        if "unit" in node:
            return []
        return [found for name, each in node.items() for found in figures(each, f"{path}.{name}")]
    if isinstance(node, list):
        return [found for each in node for found in figures(each, path)]
    return [path] if isinstance(node, int | float) and not isinstance(node, bool) else []


def test_an_estimate_is_an_interval_with_what_moves_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The likely figure, nine draws of ten, the inputs that move it; and what was not said."""
    out, err = told(capsys, *ESTIMATE)
    assert "890.63 USD" in out
    low, high = (float(each.replace(",", "")) for each in re.findall(r"([\d,.]+) – ([\d,.]+)", out)[0])
    assert 656.25 < low < 890.63 < high < 1125
    assert "moved most by: API: price of input; API: price of output" in out
    assert "nothing was said of the five other sections" in err
    assert_staleness_is_said(err, "seeds-2026/frontier")


def test_json_has_a_unit_on_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """But for shares, counts of draws and months, whose names say what they are."""
    for words in ([*ESTIMATE, "--json"], ["cost", "compare", CASE, "--json"]):
        found = json.loads(told(capsys, *words)[0])
        plain = {re.sub(r"\.options\.\w+", ".options", each).rsplit(".", 1)[-1] for each in figures(found)}
        assert plain <= {
            "days_per_month",
            "horizon_months",
            "draws",
            "seed",
            "share_of_draws",
            "saved_share",
            "cheapest_in_share_of_draws",
            "paid_less_in_all_from_month",
            "paid_less_in_all_from_month90",
            "for_the_load",
            "spare",
            "never_in_share_of_draws",
        }
        for each in found["options"].values():
            assert each["total"]["unit"] == "USD/month"
            lines = [line["amount"]["value"] for line in each["lines"]]
            assert round(sum(lines), 2) == each["total"]["value"]
            assert round(sum(part["value"] for part in each["sections"].values()), 2) == each["total"]["value"]
            assert set(each["mean_month90"]) == {"low", "middle", "high", "unit"}
        assert {each["name"]: each["is_stale"] for each in found["sources"]}.items() <= STALE.items()
        assert found["sources"]
        assert found["draws"] == DRAWS


def test_a_seed_gives_the_same_answer_again(capsys: pytest.CaptureFixture[str]) -> None:
    """And another one another."""
    one, again, other = (
        told(capsys, "cost", "compare", CASE, "--json", "--seed", seed, "--draws", "200")[0] for seed in ("3", "3", "4")
    )
    assert one == again != other


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_page_is_one_file_that_loads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], language: str
) -> None:
    """Three charts, all options, every total; no script, and nothing from elsewhere."""
    page = tmp_path / "board.html"
    out, err = told(capsys, "cost", "compare", CASE, "-o", str(page), "--language", language)
    assert out == ""
    assert "wrote" in err
    text = page.read_text()
    assert text.count("data:image/svg+xml;base64,") == 3
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", text)
    assert f'<html lang="{language}">' in text
    total = json.loads(told(capsys, "cost", "compare", CASE, "--json")[0])["options"]["own"]["total"]["value"]
    shown = f"{total:,.2f}" if language == "en" else f"{total:,.2f}".replace(",", "\u00a0").replace(".", ",")
    assert shown in text
    assert ("Свои машины" in text) == (language == "ru")
    assert "?" not in re.sub(r"base64,[^\"]*", "", text)
    for entry in ENTRIES:
        if entry.name in ("openai/gpt-5.4", "H100 SXM"):
            assert str(entry.checked) in text
            assert (Speech("en" if language == "en" else "ru")("stale", days=STALE_AFTER.days) in text) or not STALE[
                entry.name
            ]


def test_both_languages_say_the_same() -> None:
    """Each name has words in both, with the same to be filled in."""
    for name, said in WORDS.items():
        english, russian = ({field for _, field, _, _ in string.Formatter().parse(text) if field} for text in said)
        assert english == russian, name
        assert all(said), name


def test_every_input_has_a_title_and_a_unit() -> None:
    """In both languages: a new field of a case is told of, not passed on by its path."""
    machine = own(
        bought={"price": 1, "months": 36},
        power={"busy_w": 1, "idle_w": 1, "pue": 1, "per_kwh": 1},
        tuning=dict.fromkeys(("data", "labour", "gpu_hours", "per_gpu_hour", "useful_months", "refresh"), 1),
    )
    del machine["rented"]
    prices = {"input": 1, "output": 1, "cached_input": 1, "cache_write": 1, "reasoning": 1}
    found = case(own=machine, api=api(prices=prices), hybrid={"outside": 1, "sections": own()["sections"]})
    both = [path for each in (found, case()) for path, _ in leaves(each)]
    assert len(set(both)) > 35
    assert {path.rsplit(".", 1)[-1] for path in both} <= TITLES.keys()
    for language in LANGUAGES:
        titles = [title_of(path, Speech(language)) for path in set(both)]
        assert len(set(titles)) == len(titles)
    assert unit_of("workload.turns", "EUR") == "requests/conversation"
    assert unit_of("api.prices.output", "EUR") == "EUR/million tokens"
    assert unit_of("own.sections.data.x.once", "EUR") == "EUR"
    assert unit_of("workload.cached", "EUR") == "share"
    assert unit_of("own.sections.data.prices.per_month", "EUR") == "EUR/month"


def test_a_cases_own_names_stand_as_they_are() -> None:
    """Whatever word of a report they are alike."""
    russian = Speech("ru")
    assert russian("sum") != "sum" == russian.line("sum")
    assert russian.line("tokens.input") == russian("tokens.input") != "tokens.input"


@pytest.mark.parametrize("command", ["breakeven", "sensitivity", "compare", "estimate"])
def test_a_case_is_told_in_each_way(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """With what is stale in it."""
    out, err = told(capsys, "cost", command, CASE)
    assert out
    assert_staleness_is_said(err, "H100 SXM")
    assert {"breakeven": "never costs more from", "sensitivity": "Requests of a conversation"}.get(
        command, "Own machines"
    ) in out


def test_without_an_api_nothing_is_said_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No month from which less was paid than for it, and no share of draws without such a month."""
    alone = tmp_path / "own.toml"
    alone.write_text(re.sub(r"(?ms)^\[api\].*?(?=^\[own\])|^\[hybrid\].*", "", Path(CASE).read_text()))
    found = json.loads(told(capsys, "cost", "compare", str(alone), "--draws", "100", "--json")[0])
    assert found["options"].keys() == {"own"}
    own_machines = found["options"]["own"]
    assert [own_machines[name] for name in own_machines if name.startswith(("paid_less", "never_in"))] == [None] * 3


def test_a_case_that_grows_beyond_counting_is_refused(tmp_path: Path) -> None:
    """In words."""
    endless = tmp_path / "case.toml"
    text = re.sub(r"(?m)^horizon_months = .*$", "horizon_months = 240", Path(CASE).read_text())
    endless.write_text(re.sub(r"(?m)^growth_per_month = .*$", "growth_per_month = 1", text))
    with pytest.raises(UsageError, match="comes to sums that nobody has"):
        invoke(["cost", "estimate", str(endless), "--draws", "100"])


def test_a_benchmark_fills_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its source; what is none is said to be none."""
    result, wrong = tmp_path / "result.json", tmp_path / "case.toml"
    result.write_text(sweep().model_dump_json())
    found = json.loads(told(capsys, "cost", "compare", CASE, "--bench", str(result), "--draws", "100", "--json")[0])
    plain = json.loads(told(capsys, "cost", "compare", CASE, "--draws", "100", "--json")[0])
    rate, used = "own.capacity.decode_tokens_per_s", "own.capacity.used"
    assert found["inputs"][rate] != plain["inputs"][rate]
    assert found["inputs"][used] == plain["inputs"][used]
    wrong.write_text(re.sub(r"(?ms)^\[own\.capacity\].*?(?=^\[own\.sections\])", "", Path(CASE).read_text()))
    wrong.write_text(wrong.read_text().replace("[own]\n", "[own]\ncapacity = 3\n"))
    with pytest.raises(BadFile, match=r"`own\.capacity`"):
        invoke(["cost", "compare", str(wrong), "--bench", str(result)])


def test_a_bill_is_of_a_whole_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where lines of usage have gone it would be too low: it is refused, and so is a case of such a time."""
    (tmp_path / "prices.toml").write_text(
        'version = 1\ncurrency = "EUR"\n[[prices]]\nfrom = 2020-01-01\ninput = 1\noutput = 1\n'
    )
    config = tmp_path / "serving.toml"
    config.write_text(f'[access]\ndirectory = "{tmp_path / "a"}"\nprice_book = "{tmp_path / "prices.toml"}"\n')
    settings = Access(directory=tmp_path / "a", price_book=tmp_path / "prices.toml")
    day_ns, now_ns = 86_400 * 10**9, time.time_ns()
    key = told(capsys, "keys", "create", "--owner", "me", "--config", str(config))[0].strip()
    for days in (100, 2):
        ledger = Ledgers.open(settings, {}, lambda days=days: now_ns - days * day_ns)  # type: ignore[misc]
        principal = ledger.authenticate([(b"authorization", b"Bearer " + key.encode())], None, "inference")
        ledger.reserve(principal, model="demo", engine="e", prompt=1, answer=1).stand()
        ledger.close()
    since = ("--since", "2020-01-01", "--before", str(datetime.now(UTC).date()), "--config", str(config))
    assert json.loads(told(capsys, "cost", "bill", *since, "--json")[0])["requests"]["value"] == 2
    ledger = Ledgers.open(settings.model_copy(update={"usage_retention_days": 10}), {})
    wait_until(lambda: ledger.usage_from is not None, "the line is removed")
    ledger.close()
    for words in (["bill"], ["compare", CASE, "--from-ledger"]):
        with pytest.raises(UsageError, match="does not have all of that time"):
            invoke(["cost", *words, *since])
    lately = ("--since", str(datetime.now(UTC).date() - timedelta(days=9)), *since[2:])
    assert json.loads(told(capsys, "cost", "bill", *lately, "--json")[0])["requests"]["value"] == 1


def test_the_example_is_a_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That works as it stands."""
    case = tmp_path / "case.toml"
    case.write_text(told(capsys, "cost", "example")[0])
    assert "Own machines" in told(capsys, "cost", "compare", str(case), "--draws", "100")[0]


def test_flags_change_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the tokens, twice the bill for them."""
    bills = []
    for tokens in ("10M", "20M"):
        words = ("cost", "estimate", CASE, "--tokens-per-day", tokens, "--mix", "80/20", "--json")
        lines = json.loads(told(capsys, *words)[0])["options"]["api"]["lines"]
        bills.append(sum(line["amount"]["value"] for line in lines if line["name"].startswith("tokens.")))
    assert round(bills[0] * 2, 1) == round(bills[1], 1)


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["estimate"], UsageError, "nothing to estimate"),
        (["advise"], UsageError, "missing option '--data'. Choose from: public, internal, personal, secret"),
        ([*ESTIMATE[1:-1], "75/30"], UsageError, "`--mix 75/30` is no mix"),
        ([*ESTIMATE[1:5], "5Q", "--mix", "75/25"], UsageError, "`--tokens-per-day 5Q` is no amount"),
        (["estimate", "--api", "seeds-2026/frontier", "--tokens-per-day", "5M"], UsageError, "go together"),
        (["estimate", "--api", "who/what", *ESTIMATE[4:]], UsageError, "no model `who/what`"),
        (["estimate", CASE, "--api", "seeds-2026/frontier"], UsageError, "both given"),
        ([*ESTIMATE[1:], "--from-ledger"], UsageError, "are for a case"),
        (["compare", "nowhere.toml"], FileMissing, "`nowhere.toml` does not exist"),
        (["compare", CASE, "--market", "nowhere.toml"], FileMissing, "`nowhere.toml` does not exist"),
        (["compare", str(ROOT / "configs" / "policy.toml")], BadFile, "has no field"),
        (["compare", str(ROOT / "README.md")], BadFile, "is not TOML"),
        (["compare", CASE, "--bench", "nowhere.json"], FileMissing, "nowhere.json"),
        (["compare", CASE, "-o", "/nowhere/page.html"], UsageError, "cannot be written"),
        (["compare", CASE, "--since", "2026-01-01"], UsageError, "are of the ledger"),
        (["bill", "--before", "2100-01-01"], UsageError, "is still to come"),
        (["bill", "--since", "yesterday"], UsageError, "`--since yesterday` is no day"),
        (["bill", "--since", "2026-03-02", "--before", "2026-03-02"], UsageError, "there is no day"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], error: type[Exception], says: str) -> None:
    """With the flag or the file."""
    with pytest.raises(error, match=re.escape(says)):
        invoke(["cost", *words])


SITUATION = ("--api-per-month", "20000", "--peak", "2", "--team", "0.5", "--horizon-months", "36")


@pytest.mark.parametrize(
    ("words", "advised"),
    [
        (["--data", "personal", "--may-leave", "0.3", *SITUATION], ["own", "hybrid"]),
        (["--data", "public", "--may-leave", "1", *SITUATION], ["api", "own"]),
        (["--data", "secret", "--may-leave", "0", *SITUATION], ["own"]),
        (["--data", "secret", "--may-leave", "1", *SITUATION], ["own"]),
        (["--data", "secret", "--may-leave", "0", *SITUATION, "--nights"], []),
        (["--data", "secret", "--may-leave", "0", *SITUATION, "--nights", "--on-call"], ["own"]),
        (["--data", "secret", "--may-leave", "0", *SITUATION, "--tuning", "--examples", "200"], []),
        (["--data", "internal", "--may-leave", "0.5", *SITUATION, "--case", CASE], ["own"]),
    ],
)
def test_advice_is_what_is_not_met(capsys: pytest.CaptureFixture[str], words: list[str], advised: list[str]) -> None:
    """No score; and it may be that nothing is advised."""
    found = json.loads(told(capsys, "cost", "advise", *words, "--json")[0])
    assert found["advised"] == advised
    assert all(not found["unmet"][way] for way in advised)
    assert all(found["unmet"][way] for way in set(found["unmet"]) - set(advised))
    text = told(capsys, "cost", "advise", *words)[0]
    assert text.startswith("Nothing speaks against" if advised else "Do not, yet")
    assert "condition." not in text


def test_it_needs_no_network_and_no_engine() -> None:
    """Costs are worked out on a desk: none of the heavy packages is imported."""
    code = (
        "import sys; from serving.cli.app import invoke; "
        f"invoke({ESTIMATE!r}); "
        "print([each for each in ('fastapi', 'torch', 'matplotlib', 'sqlalchemy') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_both_are_not_advised_where_they_cost_more_than_machines_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Draw by draw, of what machines cost; and a case without an API is one too."""
    found = json.loads(told(capsys, "cost", "compare", CASE, "--json")[0])
    assert found["options"]["hybrid"]["cheapest_in_share_of_draws"] == 0
    words = ["cost", "advise", "--data", "internal", "--may-leave", "0.9", *SITUATION, "--json"]
    unmet = json.loads(told(capsys, *words, "--case", CASE)[0])["unmet"]["hybrid"]
    assert [each["code"] for each in unmet] == ["cost beside own"]
    assert unmet[0]["there"].startswith("-")
    alone = tmp_path / "alone.toml"
    text = Path(CASE).read_text()
    start, end = text.index("[api]"), text.index("[own]")
    without = text[:start] + text[end:]
    alone.write_text(without[: without.index("[hybrid]")] if "[hybrid]" in without else without)
    assert json.loads(told(capsys, *words, "--case", str(alone))[0])["advised"] == ["own", "hybrid"]


def test_a_span_that_begins_this_month_ends_now() -> None:
    """Where its end is not said; nothing said is the last whole month."""
    today = date(2026, 11, 23)
    assert span("2026-11-20", None, today) == (date(2026, 11, 20), date(2026, 11, 24))
    assert span("2026-11-23", None, today) == (date(2026, 11, 23), date(2026, 11, 24))
    assert span(None, None, today) == (date(2026, 10, 1), date(2026, 11, 1))
    assert span("2026-01-01", "2026-02-01", today) == (date(2026, 1, 1), date(2026, 2, 1))


def test_what_is_not_all_is_never_said_to_be() -> None:
    """A share is rounded, but not to all."""
    speech = Speech("en")
    assert [speech.share(Decimal(each)) for each in ("1", "0.9996", "0.9994", "0.9", "0")] == [
        "100.0%", ">99.9%", "99.9%", "90.0%", "0.0%"
    ]  # fmt: skip


def test_an_interval_is_of_the_draws_that_have_something_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways of the shipped case pay within the horizon in few draws: those are not told as if they were all."""
    out = told(capsys, "cost", "breakeven", CASE)[0]
    assert re.search(r"not within the horizon in \d+\.\d% of the draws; in the others \d+", out), out


def test_a_misspelled_field_of_a_book_is_named(tmp_path: Path) -> None:
    """In whichever entry it is."""
    book = tmp_path / "market.toml"
    text = (ROOT / "configs" / "market.toml").read_text()
    place = text.index("[[model]]", text.index("[[model]]") + 1) + len("[[model]]\n")
    book.write_text(f'{text[:place]}currrency = "USD"\n{text[place:]}')
    with pytest.raises(BadFile, match=r"`\[model\.1\]` has no field `currrency`") as raised:
        invoke([*ESTIMATE, "--market", str(book)])
    assert "did you mean `currency`" in (raised.value.hint or "")


def test_what_has_no_price_of_its_own_is_said_to_be_charged_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the work could have it cheaper."""
    plain, found = told(capsys, *ESTIMATE)[1], told(capsys, *ESTIMATE, "--turns", "6", "--cached", "0.5")[1]
    assert "charged in full" in found
    assert "charged in full" not in plain
