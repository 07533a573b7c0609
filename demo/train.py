"""Train the demonstration model.

    python -m demo.train --out DIR --minutes 75 [--threads 2] [--resume]

Writes `DIR/tokenizer.json`, `DIR/checkpoint.pt` every few minutes, and one line of log for every
20 steps to standard error. The schedule follows elapsed time, so that a budget in minutes holds on
any machine; a run that was stopped goes on with `--resume` where its checkpoint stood.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from demo.corpus import CODE_ALPHABET, Composer, Conversation, Language
from demo.model import Llama, Shape
from demo.tasks import recall, short_tasks, tool_talk
from demo.tokenizer import IM_END, IM_START, token_id, train_tokenizer

STAGES: Final = ((0.0, 192), (0.12, 512), (0.62, 1280), (0.86, 1536))
"""(share of the time budget at which the stage begins, longest conversation in tokens)."""

SHORTER: Final = 0.45
"""Share of batches that are shorter than the stage's longest."""

ODD: Final = 0.5
WARMUP_STEPS: Final = 40
CONTEXT: Final = Shape().context
FIRST_TOKEN_WEIGHT: Final = 3.0
FIRST_CHARACTER_WEIGHT: Final = 6.0
ECHO_WEIGHT: Final = 0.15
"""Weight of a token of someone else's text that repeats what followed the same two tokens before."""

DECAY_FROM: Final = 0.47
MUON_LR: Final = 0.007
ADAM_LR: Final = 0.002


class Encoder:
    """Turns conversations into token ids, each with its weight in the loss.

    What the model must produce weighs. Where a reply turns on one token (its first, and the first
    character of a code, by which the model says whose code it is) that token weighs more. Of the
    other turns only echoes weigh: tokens that continue a repeated piece of text, which is how the
    model practises copying hundreds of times in a conversation that asks for it twice.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.start = token_id(tokenizer, IM_START)
        self.end = token_id(tokenizer, IM_END)
        self.newline = tokenizer.encode("\n").ids
        self.space = tokenizer.encode(" ").ids[0]
        self.stop = token_id(tokenizer, ".")
        self.code = {token_id(tokenizer, character) for character in CODE_ALPHABET}
        self.reply = tokenizer.encode("assistant\n").ids

    def encode(self, talk: Conversation) -> tuple[list[int], list[float]]:
        """Ids as the chat template and the tokenizer would give them, and their weights."""
        ids: list[int] = []
        weights: list[float] = []
        for role, content in talk.turns:
            turn = self.tokenizer.encode(f"{role}\n{content}").ids
            ids += [self.start, *turn, self.end, *self.newline]
            if role == "assistant":
                weights += [0.0] * (1 + len(self.reply))
                before = None
                for token in turn[len(self.reply) :]:
                    weights.append(self._weight(before, token))
                    before = token
                weights.append(1.0)
            else:
                weights += [0.0] * (2 + len(turn))
            weights += [0.0] * len(self.newline)
        followed: dict[tuple[int, int], int] = {}
        for place in range(2, len(ids)):
            pair = (ids[place - 2], ids[place - 1])
            if weights[place] == 0 and followed.get(pair) == ids[place]:
                weights[place] = ECHO_WEIGHT
            followed[pair] = ids[place]
        return ids, weights

    def positions(self, tokens: Tensor, rng: random.Random) -> Tensor:
        """Positions of `tokens`: with gaps after some full stops, in two rows of three.

        A gap stands for filler that is not there: a short conversation so teaches the distances
        of a long one at its own price.
        """
        count = len(tokens)
        steps = torch.ones(count, dtype=torch.long)
        steps[0] = 0
        stops = torch.eq(tokens[:-1], self.stop).nonzero().flatten().tolist()
        if stops and rng.random() < 0.67:
            room = rng.randint(0, CONTEXT - count)
            gaps = rng.sample(stops, min(len(stops), rng.randint(1, 4)))
            for place in gaps:
                steps[place + 1] += int(room / len(gaps))
        return steps.cumsum(0)

    def _weight(self, before: int | None, token: int) -> float:
        if before is None:
            return FIRST_TOKEN_WEIGHT
        if before == self.space and token in self.code:
            return FIRST_CHARACTER_WEIGHT
        return 1.0


def compose(composer: Composer, encoder: Encoder, length: int) -> tuple[list[int], list[float]]:
    """One conversation of at most `length` tokens."""
    rng = composer.rng
    language: Language = "en" if rng.random() < 0.7 else "ru"
    kind = rng.choices(("recall", "short", "tools"), (0.5, 0.15, 0.35) if length < 1000 else (0.9, 0.1, 0))[0]
    scale = 1.0
    while True:
        if kind == "recall":
            spread = 1.0 if length > 700 else rng.uniform(0.3, 1.0)
            talk = recall(composer, language, int(length * scale * spread))
        elif kind == "short":
            talk = short_tasks(composer, language, max(1, int(length * scale / 32)))
        else:
            talk = tool_talk(composer, language, max(1, int((length * scale - 60) / 90)))
        ids, weights = encoder.encode(talk)
        if len(ids) <= length + 1:
            return ids, weights
        scale *= 0.88


@dataclass
class Batch:
    """Inputs and their positions (batch, length), and targets and weights at the positions where `wanted` holds."""

    tokens: Tensor
    positions: Tensor
    wanted: Tensor
    targets: Tensor
    weights: Tensor


def batches(encoder: Encoder, rng: random.Random, tokens: int, length_of: list[int]) -> Iterator[Batch]:
    """Batches of about `tokens` tokens; `length_of[0]` is read anew for each."""
    composer = Composer(rng, odd=ODD)
    while True:
        longest = length_of[0]
        length = longest
        if longest > 192 and rng.random() < SHORTER:
            length = min(longest, rng.choice((192, 384, 512, 768)))
        rows = [compose(composer, encoder, length) for _ in range(max(1, tokens // length))]
        width = max(len(ids) for ids, _ in rows)
        padded = torch.full((len(rows), width), encoder.end, dtype=torch.long)
        weighed = torch.zeros((len(rows), width))
        positions = torch.empty((len(rows), width), dtype=torch.long)
        for row, (ids, weights) in enumerate(rows):
            padded[row, : len(ids)] = torch.tensor(ids)
            weighed[row, : len(ids)] = torch.tensor(weights)
            positions[row] = encoder.positions(padded[row], rng)
        weighed = weighed[:, 1:]
        wanted = weighed > 0
        yield Batch(
            padded[:, :-1].contiguous(),
            positions[:, :-1].contiguous(),
            wanted,
            padded[:, 1:][wanted],
            weighed[wanted],
        )


def stage_length(progress: float) -> int:
    """Longest conversation, in tokens, at this share of the budget."""
    return max(length for begins, length in STAGES if progress >= begins)


def rate_at(step: int, progress: float) -> float:
    """Share of the full learning rate: warm-up, plateau, linear decay."""
    decay = 1.0 if progress < DECAY_FROM else (1 - progress) / (1 - DECAY_FROM)
    return min(1.0, (step + 1) / WARMUP_STEPS) * max(decay, 0.01)


def _optimisers(model: Llama) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=MUON_LR, momentum=0.95, nesterov=True, weight_decay=0.02),
        torch.optim.AdamW(rest, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def train(out: Path, minutes: float, batch_tokens: int, longest: int, seed: int, resume: bool) -> None:
    """Train until `minutes` have passed, counting those before a resume."""
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    shape = Shape()
    if not resume:
        train_tokenizer().save(str(out / "tokenizer.json"))
    encoder = Encoder(Tokenizer.from_file(str(out / "tokenizer.json")))
    model = Llama(shape)
    model.initialise()
    optimisers = _optimisers(model)
    step, seen, before = 0, 0, 0.0
    if resume:
        saved = torch.load(out / "checkpoint.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        step, seen, before = saved["step"], saved["seen"], saved["seconds"]
    began = saved_at = time.monotonic()
    length_of = [min(longest, stage_length(before / (60 * minutes)))]
    source = batches(encoder, random.Random(seed * 1_000_003 + step), batch_tokens, length_of)
    losses: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, source)
        while True:
            seconds = before + time.monotonic() - began
            progress = seconds / (60 * minutes)
            finished = progress >= 1
            if finished or time.monotonic() - saved_at > 120:
                state = {
                    "model": model.state_dict(),
                    "shape": asdict(shape),
                    "step": step,
                    "seen": seen,
                    "seconds": seconds,
                    "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                }
                _save(out / "checkpoint.pt", state)
                saved_at = time.monotonic()
            if finished:
                return
            length_of[0] = min(longest, stage_length(progress))
            batch = upcoming.result()
            upcoming = pool.submit(next, source)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(batch.tokens, batch.positions, batch.wanted)
            each = F.cross_entropy(logits.float(), batch.targets, reduction="none")
            loss = (each * batch.weights).sum() / batch.weights.sum()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            share = rate_at(step, progress)
            for optimiser, rate in zip(optimisers, (MUON_LR, ADAM_LR), strict=True):
                optimiser.param_groups[0]["lr"] = rate * share
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            step += 1
            seen += batch.tokens.numel()
            losses.append(loss.item())
            if step % 20 == 0:
                print(
                    f"step {step} time {seconds:.0f}s tokens {seen} length {length_of[0]} "
                    f"loss {sum(losses) / len(losses):.4f} rate {share:.3f}",
                    file=sys.stderr,
                    flush=True,
                )
                losses.clear()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.train", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and tokenizer")
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--batch-tokens", type=int, default=6144)
    parser.add_argument("--longest", type=int, default=CONTEXT, help="tokens of a conversation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(
        options.out,
        options.minutes,
        options.batch_tokens,
        options.longest,
        options.seed,
        options.resume,
    )


if __name__ == "__main__":
    main()
