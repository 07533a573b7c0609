"""`serve bench run`: a scenario against a server, and its result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvloop

import serving
from serving.bench import result as results
from serving.bench.drive import Driver, Request, Target, body_of
from serving.bench.prompts import Count, Tokenizer, Writer
from serving.bench.samples import Sample
from serving.bench.scenario import Scenario, load_scenario, timetable
from serving.engines.remote import origin_of, read_key
from serving.errors import EngineFailed, UsageError
from serving.gateway.upstream import EngineBroke, Upstream

STOPPED: Final = 130
_SHOWN_EVERY_S: Final = 0.5


def run(name: str, url: str, model: str | None, output: Path | None, key_file: Path | None, *, as_json: bool) -> int:
    """Run a scenario, write and show its result; returns the exit status.

    Raises ServingError for what cannot be run at all, and EngineFailed, with the result written, where no request was
    completed.
    """
    scenario, digest = load_scenario(name)
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"`{output}` cannot be written: its directory does not exist", hint="make it first")
    key = None if key_file is None else read_key(key_file)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found, stopped = runner.run(_run(scenario, digest, Target(origin_of(url), model or "", key)))
    text = json.dumps(found, indent=1)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(f"{text}\n" if as_json else page(found))
    if stopped:
        return STOPPED
    if not found["figures"]["requests"]["completed"]:
        raise EngineFailed("no request was completed", hint="the result says what became of them")
    return 0


async def _run(scenario: Scenario, digest: str, target: Target) -> tuple[dict[str, Any], bool]:
    target = Target(target.origin, target.model or await _only_model(target), target.key)
    requests, exact = await _requests(scenario, target)
    progress = _Progress(len(requests))
    driver = Driver(target, scenario.route, progress.take)
    driving = asyncio.create_task(driver.run(requests, scenario))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, driving.cancel)
    stopped = False
    try:
        await driving
    except asyncio.CancelledError:
        stopped = True
    finally:
        progress.close()
    about: dict[str, object] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": serving.__version__,
        "target": {"url": str(target.origin), "model": target.model},
        "prompts_are_exact": exact,
        "cores_of_client": len(os.sched_getaffinity(0)),
    }
    return results.result(scenario, digest, sorted(driver.samples.items()), driver.watch, about), stopped


async def _only_model(target: Target) -> str:
    """The first model that the server lists. Raises EngineFailed."""
    upstream = Upstream(target.origin)
    try:
        response = await upstream.request("GET", "/v1/models", target.head)
        listed = json.loads(await response.read_all(1 << 20))
        return str(listed["data"][0]["id"])
    except EngineBroke as error:
        message = f"`{target.origin}` does not answer: {error.message}"
        raise EngineFailed(message, hint="start the server first, or correct --url") from None
    except (ValueError, LookupError, TypeError):
        message = f"`{target.origin}/v1/models` lists no model"
        raise EngineFailed(message, hint="name it with --model; is it an OpenAI-compatible server?") from None
    finally:
        upstream.close()


async def _requests(scenario: Scenario, target: Target) -> tuple[list[Request], bool]:
    """Every request of the scenario, its prompt written; and whether the server's own tokenizer counted them."""
    upstream = Upstream(target.origin)
    tokenizer = Tokenizer(upstream, target.model, target.head)
    count: Count = tokenizer.of_chat if scenario.route == "chat" else tokenizer.of_prompt
    writer, exact = Writer(scenario.seed), True
    try:
        try:
            await count("a")
        except (LookupError, EngineBroke):
            exact = False

            async def count(text: str) -> int:
                return max(1, len(text) // 4)

        shared = "", await count("")
        if scenario.shared_prefix:
            shared = await writer.text(shared, scenario.shared_prefix, count)
        found = []
        for wanted in timetable(scenario):
            text, tokens = await writer.text(shared, wanted.prompt_tokens, count)
            exact = exact and tokens == wanted.prompt_tokens
            found.append(Request(wanted, body_of(scenario, target.model, text, wanted.output_tokens)))
        return found, exact
    finally:
        upstream.close()


class _Progress:
    """A line on a terminal, written anew; nothing where there is none."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = self._tokens = 0
        self._began = self._shown = time.monotonic()
        self._is_shown = sys.stderr.isatty()

    def take(self, sample: Sample) -> None:
        """A request has ended."""
        self._done += 1
        self._tokens += sample.output_tokens or 0
        now = time.monotonic()
        if self._is_shown and now - self._shown >= _SHOWN_EVERY_S:
            self._shown = now
            rate = self._tokens / (now - self._began)
            sys.stderr.write(f"\r{self._done} of {self._total} requests, {rate:,.0f} tokens/s\x1b[K")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the line."""
        if self._is_shown:
            with contextlib.suppress(OSError):
                sys.stderr.write("\r\x1b[K")


def page(found: dict[str, Any]) -> str:
    """A result as lines for a person."""
    figures = found["figures"]
    lines = [f"{found['scenario']['title']}: {found['target']['model']} at {found['target']['url']}", ""]
    lines.append("requests        " + ", ".join(f"{count} {name}" for name, count in figures["requests"].items()))
    lines += [f"                {count} × {error}" for error, count in figures["errors"].items()]
    for name, unit in (("output_tokens_per_s", "tokens/s"), ("requests_per_s", "requests/s")):
        estimate = figures["rates"].get(name)
        lines.append(f"{'output' if 'output' in name else 'completed':15} {_interval(estimate, 1, unit)}")
    for name, title in (("ttft", "TTFT"), ("ttft_from_due", "TTFT from due"), ("tpot", "TPOT"), ("gap", "gaps"),
                        ("stall", "stall"), ("e2e", "E2E")):  # fmt: skip
        if name in figures:
            for part in ("p50", "p99"):
                lines.append(f"{title + ' ' + part:15} {_interval(figures[name][part], 1000, 'ms')}")
    if "goodput" in figures:
        lines.append(f"{'goodput':15} {_interval(figures['goodput']['share'], 100, '% of requests')}")
    if not found["is_whole"]:
        lines.append("It was stopped before its end.")
    if not found["prompts_are_exact"]:
        lines.append("Prompts are not of exact length: the server counts no tokens for others.")
    lines += [f"NOT TO BE TRUSTED: {doubt}." for doubt in found["trust"]["doubts"]]
    return "\n".join(lines) + "\n"


def _interval(estimate: dict[str, float] | None, factor: float, unit: str) -> str:
    if estimate is None:
        return "not enough data"
    text = f"{factor * estimate['value']:,.1f} {unit}"
    if estimate["low95"] is None:
        return text
    return f"{text} (95%: {factor * estimate['low95']:,.1f} to {factor * estimate['high95']:,.1f})"
