"""Logits after every kind of prefix reuse, against a fresh context that computed the same tokens from scratch.

The real engine takes every decision on a real llama.cpp context; only its loop is turned by hand, so that a request
arrives, ends or leaves at a chosen step. Flash attention is off and the cache is F32: with them on, llama.cpp's own
rounding depends on how a prompt was cut into chunks (0.02 on these models), which would hide small mistakes.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo

from serving.llamacpp import binding
from serving.llamacpp.binding import Context, ContextOptions, Model
from serving.llamacpp.engine import Engine, Request, Update
from serving.llamacpp.scheduler import Config
from serving.openai.fields import Sampling

TOLERANCE = 1e-3
PER_SEQUENCE = 512
PARTIAL = [("plain", False), ("window", True)]
"""(model, whole window kept): memories of which any prefix can be kept."""
WHOLE = [("hybrid", False), ("recurrent", False), ("window", False)]
"""Memories that are good only at exactly the length they were computed to."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def models(folder: Path) -> Iterator[dict[str, Model]]:
    binding.start_backend()
    loaded = {kind: Model(zoo.write_model(folder, kind)) for kind in zoo.MODELS}
    yield loaded
    for model in loaded.values():
        model.close()


@pytest.fixture(autouse=True)
def _exact_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    default = binding.llama_cpp.llama_context_default_params

    def parameters() -> Any:
        made = default()
        binding.set_field(made, "flash_attn_type", 0)
        return made

    monkeypatch.setattr(binding.llama_cpp, "llama_context_default_params", parameters)


class Recording(Engine):
    """The engine, keeping a copy of the logits that each token was chosen from."""

    rows: dict[int, list[np.ndarray[Any, Any]]]

    def _sample(self, requests: Sequence[Request]) -> None:
        for request, row in zip(requests, self._context.logits(len(requests)), strict=True):
            self.rows.setdefault(request.id, []).append(row.copy())
        super()._sample(requests)


@dataclass
class Bench:
    """One engine whose loop is turned by hand, and all the requests that it was given."""

    model: Model
    context: Context
    engine: Recording
    requests: list[Request] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)

    def ask(self, prompt: Sequence[int], count: int = 4, domain: str = "one") -> Request:
        sampling = Sampling(temperature=0.0, ignore_eos=True)
        request = Request(list(prompt), ("", domain), sampling, count, on_update=lambda _: None)
        self.requests.append(request)
        self.engine.submit(request)
        return request

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            if self.engine._inbox.empty() and not self.engine._waiting and not self.engine._running:
                return  # the engine's thread would sleep here
            assert self.engine._receive()
            self.engine._step()

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(2000):
            if condition():
                return
            self.step()
        pytest.fail("the engine makes no progress")

    def run(self) -> None:
        engine = self.engine
        self.until(lambda: engine._inbox.empty() and not engine._waiting and not engine._running)

    def cancel(self, request: Request) -> None:
        self.engine.cancel(request)
        self.engine._inbox.put(("stop", None))  # so that taking it in returns although nothing may be left to do
        while self.engine._receive():
            pass

    def check(self) -> float:
        """The largest difference from scratch over every token of every request; fails above the tolerance."""
        worst = 0.0
        for request in self.requests:
            rows = self.engine.rows.get(request.id, [])
            assert len(rows) == request.generated
            if not rows:
                continue
            scratch = Context(self.model, options("streams", 1, PER_SEQUENCE, batch=PER_SEQUENCE))
            prompt = request.tokens[: request.prompt_length]
            scratch.prefill(0, prompt, 0, wants_logits=True)
            for index, row in enumerate(rows):
                if index:
                    at = request.prompt_length + index - 1
                    scratch.prefill(0, request.tokens[at : at + 1], at, wants_logits=True)
                difference = float(np.abs(scratch.logits(1)[0] - row).max())
                assert difference <= TOLERANCE, (
                    f"request {request.id}, token {index}, {request.cached} cached: logits differ by {difference:.4f}"
                )
                worst = max(worst, difference)
            scratch.close()
        return worst


def options(
    layout: binding.KvLayout, sequences: int, cells: int, *, batch: int = 64, swa_full: bool = False
) -> ContextOptions:
    return ContextOptions(
        kv_layout=layout,
        n_ctx=cells,
        n_seq_max=sequences,
        n_batch=batch,
        n_ubatch=batch,
        threads=1,
        kv_dtype="f32",
        swa_full=swa_full,
    )


Make = Callable[..., Bench]


@pytest.fixture
def make(models: dict[str, Model]) -> Iterator[Make]:
    """Builds benches: `make(model, layout, …)`; prompts are computed 16 tokens a step."""
    made: list[Bench] = []

    def build(
        kind: str,
        layout: binding.KvLayout,
        *,
        swa_full: bool = False,
        parallel: int = 4,
        cached: int = 8,
        cells: int = 0,
        snapshot_bytes: int = 64 << 20,
        chunk_s: float = 0.0,
    ) -> Bench:
        model = models[kind]
        sequences = parallel + (cached if layout == "unified" else 0)
        context = Context(model, options(layout, sequences, cells or parallel * PER_SEQUENCE, swa_full=swa_full))
        engine = Recording(
            model,
            context,
            Config(layout=layout, parallel=parallel, capacity=cells or context.n_ctx, batch=64, step_s=chunk_s),
            context_length=min(PER_SEQUENCE, cells or PER_SEQUENCE),
            snapshot_bytes=snapshot_bytes,
            post=lambda batch: bench.ended.update(r.id for r, update in batch if update.finish),
            on_fatal=lambda error: None,
        )
        engine.rows = {}
        bench = Bench(model, context, engine)
        made.append(bench)
        return bench

    yield build
    for bench in made:
        bench.context.close()


def words(seed: int, count: int) -> list[int]:
    """Random tokens; those of different seeds differ from the first one on."""
    return [seed % zoo.N_VOCAB, *random.Random(seed).choices(range(zoo.N_VOCAB - 1), k=count - 1)]


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL)
def test_an_idle_stream_is_cut_back_and_continued(make: Make, kind: str, swa_full: bool) -> None:
    """A finished request's stream, cut to what the next one shares, gives the logits of a fresh context."""
    bench = make(kind, "streams", swa_full=swa_full)
    shared = words(1, 150)
    bench.ask(shared + words(2, 40))
    bench.run()
    second = bench.ask(shared + words(3, 40))
    bench.run()
    assert second.cached == 150
    assert bench.engine.counters.snapshots == 1
    bench.check()


@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL + WHOLE)
def test_a_conversation_continues_in_its_own_stream(make: Make, kind: str, swa_full: bool) -> None:
    """A prompt that extends a finished answer computes only what is new, whatever the memory is."""
    bench = make(kind, "streams", swa_full=swa_full)
    last = bench.ask(words(1, 100), 8)
    bench.run()
    for turn in range(3):
        before = len(last.tokens)
        last = bench.ask(last.tokens + words(10 + turn, 30), 8)
        bench.run()
        assert last.cached == before - 1
    bench.check()


def test_a_prefix_is_copied_out_of_a_running_stream(make: Make) -> None:
    """A prefix copied while its owner goes on is right for both, and so is the snapshot that is kept of it."""
    bench = make("plain", "streams")
    shared = words(1, 100)
    first = bench.ask(shared + words(2, 60), 40)
    bench.until(lambda: first.generated >= 2)
    second = bench.ask(shared + words(3, 30), 12)
    bench.until(lambda: second.generated >= 2)
    assert second.cached == 100
    assert first.seq != second.seq
    assert bench.engine.counters.snapshots == 1
    third = bench.ask(shared + words(4, 30), 12)
    bench.run()
    assert third.cached == 100
    assert bench.engine.counters.snapshots == 1, "the second copy came from the snapshot"
    bench.check()


def test_a_saved_window_is_never_cut_back(make: Make) -> None:
    """A saved state holds a sliding window's last cells only, so what is shorter is computed, except in place."""
    bench = make("window", "streams", swa_full=True)
    shared = words(1, 100)
    first = bench.ask(shared + words(2, 60), 40)
    bench.until(lambda: first.generated >= 2)
    second = bench.ask(shared + words(3, 30), 12)
    bench.run()
    assert second.cached == 0
    in_place = bench.ask(shared + words(4, 30), 12)
    bench.run()
    assert in_place.cached == 100
    bench.check()


@pytest.mark.parametrize(("kind", "swa_full"), [*WHOLE, ("window", True)])
def test_a_running_stream_is_copied_at_its_exact_length(make: Make, kind: str, swa_full: bool) -> None:
    """What continues a running sequence from exactly where it stands takes its whole state, and nothing shorter."""
    bench = make(kind, "streams", swa_full=swa_full)
    first = bench.ask(words(1, 120), 40)
    bench.until(lambda: first.generated >= 3)
    computed = first.computed
    second = bench.ask(first.tokens[:computed] + words(2, 30), 12)
    shorter = bench.ask(first.tokens[: computed - 20] + words(3, 30), 12)
    bench.run()
    assert second.cached == computed
    assert shorter.cached == 0
    bench.check()


def test_a_prefix_is_copied_out_of_an_idle_stream(make: Make) -> None:
    """A short prefix of a long idle stream goes to another stream, and the long one can still be continued."""
    bench = make("plain", "streams")
    other = bench.ask(words(9, 40), 20)
    shared = words(1, 80)
    first = bench.ask(shared + words(2, 220), 4)
    bench.run()
    assert bench.engine._tree.length(0) < bench.engine._tree.length(1)
    second = bench.ask(shared + words(3, 30))
    bench.run()
    assert second.cached == 80
    assert bench.engine.counters.snapshots == 1
    third = bench.ask(first.tokens + words(4, 20))
    bench.run()
    assert third.cached == len(first.tokens) - 1
    assert other.id in bench.ended
    bench.check()


@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL + WHOLE)
def test_requests_that_arrive_behind_one_share_what_it_computes(make: Make, kind: str, swa_full: bool) -> None:
    """Requests that come while a common prefix is being computed wait for exactly that and restore it."""
    bench = make(kind, "streams", swa_full=swa_full)
    shared = words(1, 112)
    first = bench.ask(shared + words(2, 50), 12)
    bench.step(2)
    followers = [bench.ask(shared + words(3 + index, 20 + index), 12) for index in range(3)]
    bench.run()
    assert first.cached == 0
    assert [request.cached for request in followers] == [112, 112, 112]
    assert bench.engine.counters.snapshots >= 1
    assert bench.engine.counters.computed_prompt_tokens == 162 + 20 + 21 + 22
    bench.check()


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL)
def test_requests_that_arrive_in_one_step_compute_their_prefix_once(
    make: Make, kind: str, swa_full: bool, layout: binding.KvLayout
) -> None:
    """Clients with one system prompt that come at the same moment compute it once."""
    bench = make(kind, layout, swa_full=swa_full)
    shared = words(1, 112)
    together = [bench.ask(shared + words(3 + index, 20)) for index in range(4)]
    bench.run()
    assert [request.cached for request in together] == [0, 112, 112, 112]
    bench.check()


@pytest.mark.parametrize(("kind", "swa_full"), WHOLE)
def test_requests_that_arrive_in_one_step_share_a_snapshot(make: Make, kind: str, swa_full: bool) -> None:
    """The same holds where only a snapshot of exactly the common length can be shared."""
    bench = make(kind, "streams", swa_full=swa_full)
    shared = words(1, 112)
    together = [bench.ask(shared + words(3 + index, 20)) for index in range(4)]
    bench.run()
    assert [request.cached for request in together] == [0, 112, 112, 112]
    bench.check()


@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL + WHOLE)
def test_streams_are_moved_together(make: Make, kind: str, swa_full: bool) -> None:
    """A sequence that is moved to a lower stream in the middle of its answer goes on as if nothing had happened."""
    bench = make(kind, "streams", swa_full=swa_full)
    short = [bench.ask(words(index, 40), 3) for index in range(2)]
    long = [bench.ask(words(10 + index, 60 + 9 * index), 60) for index in range(2)]
    bench.run()
    assert bench.engine.counters.moves >= 2
    again = bench.ask(long[0].tokens + words(20, 20))
    bench.run()
    assert again.cached == len(long[0].tokens) - 1
    assert bench.ended == {request.id for request in (*short, *long, again)}
    bench.check()


@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL + WHOLE)
def test_snapshots_that_do_not_fit_are_given_up(make: Make, kind: str, swa_full: bool) -> None:
    """With room for one snapshot the older one goes, and whoever comes for it computes again."""
    probe = make(kind, "streams", swa_full=swa_full)
    probe.context.prefill(0, words(1, 64), 0, wants_logits=False)
    probe.context.prefill(0, words(2, 48), 64, wants_logits=False)
    bench = make(kind, "streams", swa_full=swa_full, snapshot_bytes=int(1.5 * probe.context.save(0).nbytes))
    for seed in range(3):
        shared = words(seed, 112)
        bench.ask(shared + words(100 + seed, 50), 12)
        bench.step(2)
        follower = bench.ask(shared + words(200 + seed, 50), 12)
        bench.run()
        assert follower.cached == 112
    assert bench.engine.counters.evictions >= 1
    assert len(bench.engine._snapshots) == 1
    bench.check()


@pytest.mark.parametrize("kind", ["hybrid", "recurrent"])
def test_a_memory_that_cannot_be_cut_is_computed_again(make: Make, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where llama.cpp refuses to cut a sequence the engine computes it from the start, in place and after a copy."""
    bench = make(kind, "streams")
    bench.context.shares_partially = True  # what the model cannot do, so that llama.cpp has to say no
    refused = []
    drop = bench.context.drop
    monkeypatch.setattr(
        bench.context, "drop", lambda seq, start=0: drop(seq, start) or bool(refused.append((seq, start)))
    )
    shared = words(1, 100)
    bench.ask(shared + words(2, 30))
    bench.run()
    in_place = bench.ask(shared + words(3, 30), 60)
    bench.until(lambda: in_place.generated >= 2)
    copied = bench.ask(shared + words(4, 30))
    bench.run()
    assert len(refused) >= 2
    assert in_place.cached == copied.cached == 0
    bench.check()


# --- unified ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL)
def test_cells_are_shared_with_idle_and_running_sequences(make: Make, kind: str, swa_full: bool) -> None:
    """Sequences that refer to the same cells get the logits they would have got with cells of their own."""
    bench = make(kind, "unified", swa_full=swa_full)
    shared = words(1, 100)
    bench.ask(shared + words(2, 40))
    bench.run()
    from_idle = bench.ask(shared + words(3, 40), 30)
    bench.until(lambda: from_idle.generated >= 2)
    from_running = bench.ask(from_idle.tokens[:130] + words(4, 40), 30)
    bench.run()
    assert from_idle.cached == 100
    assert from_running.cached == 130
    bench.check()


@pytest.mark.parametrize("kind", ["hybrid", "recurrent", "window"])
def test_whole_sequences_are_shared_in_a_unified_cache(make: Make, kind: str) -> None:
    """Memories that cannot be cut share a sequence of exactly the length it has, in the unified layout too."""
    bench = make(kind, "unified")
    first = bench.ask(words(1, 120), 8)
    bench.run()
    forks = [bench.ask(first.tokens + words(2 + index, 40), 20) for index in range(2)]
    shorter = bench.ask(first.tokens[:100] + words(5, 40), 20)
    bench.run()
    assert [request.cached for request in forks] == [len(first.tokens) - 1] * 2
    assert shorter.cached == 0
    bench.check()


@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL)
def test_a_source_may_be_evicted_while_its_cells_are_shared(make: Make, kind: str, swa_full: bool) -> None:
    """Giving up a cached prefix takes nothing from the request that shares a part of it."""
    bench = make(kind, "unified", swa_full=swa_full, cells=512)
    shared = words(1, 100)
    source = bench.ask(shared + words(2, 150))
    bench.run()
    sharer = bench.ask(shared + words(3, 20), 60)
    bench.until(lambda: sharer.generated >= 2)
    assert sharer.cached == 100
    bench.ask(words(4, 200), 10)
    bench.run()
    assert bench.engine.counters.evictions >= 1
    again = bench.ask(source.tokens[:-1])
    bench.run()
    assert again.cached == 100, "what the evicted source held alone is gone"
    bench.check()


@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL)
def test_a_preempted_request_goes_on_where_it_was(make: Make, kind: str, swa_full: bool) -> None:
    """A request that had to give up its cells is computed again and answers as if it had kept them."""
    bench = make(kind, "unified", swa_full=swa_full, cells=512)
    asked = [bench.ask(words(index, 100), 60) for index in range(4)]
    bench.run()
    assert bench.engine.counters.preemptions >= 1
    assert bench.ended == {request.id for request in asked}
    assert all(request.generated == 60 for request in asked)
    bench.check()


@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL)
def test_a_prefix_whose_source_must_go_is_not_lost_on_the_way(make: Make, kind: str, swa_full: bool) -> None:
    """With every sequence id taken, admitting a request never gives up the very prefix that it is about to share."""
    bench = make(kind, "unified", swa_full=swa_full, parallel=2, cached=1, cells=1024)
    shared = words(1, 100)
    bench.ask(shared + words(2, 30))
    bench.run()
    for seed in (3, 4):
        bench.ask(words(seed, 50))
        bench.run()
    last = bench.ask(shared + words(5, 30))
    bench.run()
    assert last.cached == 100
    bench.check()


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL + WHOLE)
@pytest.mark.parametrize("seed", range(3))
def test_any_mixture_of_requests_is_computed_right(
    make: Make, kind: str, swa_full: bool, layout: binding.KvLayout, seed: int
) -> None:
    """Random families of prompts, arrivals and departures, with too little memory, all match a fresh context."""
    chance = random.Random(seed)
    bench = make(
        kind, layout, swa_full=swa_full, cells=512 if layout == "unified" else 0, snapshot_bytes=300_000, cached=3
    )
    trunks = [words(1000 * seed + index, 90) for index in range(2)]
    for _ in range(18):
        # the beginning of a known text, then something new
        known = chance.choice([*trunks, *(request.tokens for request in bench.requests[-6:])])
        new = words(chance.randrange(1 << 30), chance.randint(1, 60))
        prompt = known[: chance.choice([20, 50, 90, len(known)])] + new
        bench.ask(prompt[:330], chance.choice([1, 3, 10, 40]), domain=chance.choice(["one", "one", "two"]))
        bench.step(chance.choice([0, 1, 5, 20, 60]))
        if chance.random() < 0.15:
            bench.cancel(chance.choice(bench.requests))
    bench.run()
    assert bench.engine.counters.cached_tokens > 0
    assert bench.engine.counters.cancelled + len(bench.ended) == len(bench.requests)
    bench.check()


# --- domains, cancellation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize(("kind", "swa_full"), PARTIAL + WHOLE)
def test_two_cache_domains_never_share(make: Make, kind: str, swa_full: bool, layout: binding.KvLayout) -> None:
    """The same prompt in another cache domain is computed in full, idle or running, and computed right."""
    bench = make(kind, layout, swa_full=swa_full)
    first = bench.ask(words(1, 100), 20)
    bench.until(lambda: first.generated >= 2)
    while_running = bench.ask(first.tokens + words(2, 20), domain="two")
    bench.run()
    when_idle = bench.ask(first.tokens + words(3, 20), domain="three")
    bench.run()
    assert while_running.cached == when_idle.cached == 0
    counters = bench.engine.counters
    assert counters.cached_tokens == 0
    assert counters.computed_prompt_tokens == counters.prompt_tokens
    bench.check()


@pytest.mark.parametrize("layout", ["streams", "unified"])
def test_a_request_whose_client_left_is_gone_at_once(make: Make, layout: binding.KvLayout) -> None:
    """Cancelling frees the sequence before the next step, prefilling, decoding or waiting, and others go on."""
    bench = make("plain", layout, parallel=2)
    prefilling = bench.ask(words(1, 200), 50)
    bench.step(2)
    bench.cancel(prefilling)
    assert bench.engine.counters.running == 0
    assert prefilling.seq == -1
    first, second, third = (bench.ask(words(2 + index, 40), 30) for index in range(3))
    bench.until(lambda: second.generated >= 2)
    bench.cancel(second)
    bench.cancel(third)
    bench.step()
    assert bench.engine.counters.running == 1
    assert bench.engine.counters.waiting == 0
    bench.run()
    assert bench.ended == {first.id}
    assert bench.engine.counters.cancelled == 3
    bench.check()


def test_the_thread_takes_a_cancellation_while_it_computes(make: Make) -> None:
    """With the engine's own thread running, the gauge of running requests is back at 0 although nothing else comes."""
    bench = make("plain", "streams")
    began = threading.Event()
    bench.engine._post = lambda batch: began.set()
    bench.engine.start()
    request = bench.ask(words(1, 60), 400)
    assert began.wait(30)
    bench.engine.cancel(request)
    deadline = time.monotonic() + 30
    while bench.engine.counters.cancelled == 0 or bench.engine.counters.running:
        assert time.monotonic() < deadline, "the sequence is still held"
        threading.Event().wait(0.001)
    bench.engine.stop()
    assert request.generated < 400


def test_updates_tell_what_was_reused(make: Make) -> None:
    """The number of cached tokens that a client is told is the number that was not computed."""
    bench = make("plain", "unified")
    told: list[Update] = []
    bench.engine._post = lambda batch: told.extend(update for _, update in batch)
    shared = words(1, 100)
    bench.ask(shared + words(2, 10), 2)
    bench.run()
    bench.ask(shared + words(3, 10), 2)
    bench.run()
    assert [update.cached for update in told] == [0, 0, 100, 100]
    assert bench.engine.counters.computed_prompt_tokens == 110 + 10
