"""A benchmark of this machine and the ledger of a real run flow into a report, with nothing typed in."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import openai

from tests.e2e.stack import ROOT, serve

CASE = """
version = 1
title = "what was measured"
currency = "EUR"
horizon_months = 36
day = 2026-06-01
exchange.USD = { rate = 0.9, day = 2026-06-01, source = "a bank" }
workload = {}
[api]
prices = "openai/gpt-5.4-mini"
[api.sections]
compute = 0
engineering = 0
data = 0
operational_risk = 0
regulation_and_security = 0
time_to_market = 0
[own]
gpus = 0
bought = { price = 3000, months = 36 }
power = { busy_w = 150, idle_w = 40, pue = 1.5, per_kwh = 0.3 }
spares = 1
[own.sections]
compute = 0
engineering = 0
data = 0
operational_risk = 0
regulation_and_security = 0
time_to_market = 0
"""


def run(config: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "serving", *words, "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_measured_flows_into_the_report(tmp_path: Path) -> None:
    """Tokens and requests of the ledger, rates of the benchmark, both as they were; and the bill beside them."""
    config, case, result = tmp_path / "site.toml", tmp_path / "case.toml", tmp_path / "result.json"
    prices = tmp_path / "prices.toml"
    prices.write_text('version = 1\ncurrency = "EUR"\n[[prices]]\nfrom = 2026-01-01\ninput = 2\noutput = 8\n')
    config.write_text(
        f'[access]\nopen = false\ndirectory = "{tmp_path / "access"}"\nprice_book = "{prices}"\n'
        f'[audit]\nenabled = false\n[paths]\nruntime_dir = "{tmp_path / "run"}"\n'
    )
    case.write_text(CASE)
    key_file = tmp_path / "key"
    with serve(config=config, is_open=False) as stack:
        key = run(config, "keys", "create", "--owner", "finance").strip()
        key_file.write_text(key)
        key_file.chmod(0o600)
        bench = ["bench", "run", "chat", "--url", stack.url, "--key-file", str(key_file), "--requests", "40"]
        subprocess.run(
            [sys.executable, "-m", "serving", *bench, "-o", str(result)],
            cwd=ROOT,
            check=True,
            timeout=240,
            capture_output=True,
        )
        client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0, timeout=30)
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hello"}], max_tokens=8)
        today = datetime.now(UTC).date()
        days = ["--since", str(today - timedelta(days=1)), "--before", str(today + timedelta(days=1))]
        report = json.loads(
            run(config, "cost", "compare", str(case), "--bench", str(result), "--from-ledger", *days, "--json")
        )
        used = json.loads(run(config, "keys", "usage", *days, "--json"))["usage"]
        bill = json.loads(run(config, "cost", "bill", *days, "--json"))
    total = {name: sum(each[name] for each in used) for name in ("requests", "fresh", "cached", "output", "cost")}
    assert total["requests"] >= 41
    assert total["output"] > 0

    lines = {line["name"]: line for line in report["options"]["api"]["lines"]}
    a_month = 30 / 2  # days of a month, of those that were asked about
    sent = sum(lines[name]["quantity"]["value"] for name in ("tokens.input", "tokens.cached_input") if name in lines)
    assert abs(sent - (total["fresh"] + total["cached"]) * a_month) < 1
    assert abs(lines["tokens.output"]["quantity"]["value"] - total["output"] * a_month) < 1
    per_request = report["options"]["api"]["per_request"]["value"]
    assert abs(per_request - report["options"]["api"]["total"]["value"] / (total["requests"] * a_month)) < 1e-5

    rates = json.loads(result.read_text())["stages"][-1]["rates"]
    ranges = {each["input"]: each for each in report["sensitivity"]}
    decode = ranges["own.capacity.decode_tokens_per_s"]
    measured = rates["output_tokens_per_s"]
    assert abs(decode["low"]["value"] - measured["low95"]) / measured["low95"] < 1e-4
    assert abs(decode["high"]["value"] - measured["high95"]) / measured["high95"] < 1e-4
    hours = report["inputs"]["workload.hours_per_day"]["likely"]
    assert 0.5 <= hours <= 1  # an hour or two of two days
    assert 1 <= report["inputs"]["workload.peak"]["likely"] <= 2
    assert any("ledger of this host" in note for note in report["notes"])
    assert report["options"]["own"]["machines"] == {"for_the_load": 1, "spare": 1}

    assert bill["here"] == {"value": total["cost"] / 1e6, "unit": "EUR"}
    assert bill["tokens"]["output"]["value"] == total["output"]
    mini = next(each for each in bill["elsewhere"] if each["name"] == "openai/gpt-5.4-mini")
    by_hand = (total["fresh"] * 0.75 + total["cached"] * 0.075 + total["output"] * 4.5) / 1e6
    assert abs(mini["cost"]["likely"] - by_hand) <= 0.005
