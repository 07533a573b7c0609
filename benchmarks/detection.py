"""What a scan costs: milliseconds of one core by length, over texts of several kinds; and whether length costs in
proportion.

`python -m benchmarks.detection [--names] [--rounds N]`: pairs of lengths, each text scanned N times, p50 and p95 over
all texts and rounds. `--names` adds the model of names (the packages of the extra `hybrid`). Texts are made here and
hold identifiers at the density of their kind; `numbers` is a page of nothing else.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Callable

from serving.policy.detect import Part, Scanner
from serving.policy.detect.names import open_names

LENGTHS = (4_000, 64_000)
ROUNDS = 20
RUSSIAN = (
    "Коллеги, добрый день. По итогам вчерашней встречи прошу подготовить сводку по проекту и прислать её до пятницы. "
    "Основные вопросы: сроки поставки, стоимость работ и порядок приёмки. Договор № 45/2024 от 12.03.2024 остаётся в "
    "силе. "
)
ENGLISH = (
    "The scheduler keeps a queue of requests and serves them in order of arrival, unless a tenant has used its share. "
    "We measured 128 requests over 15 minutes; the slowest took 2.5 seconds, and version 3.11.7 was used throughout. "
)
GERMAN = (
    "Die Lieferung der Bauteile verzögert sich um zwei Wochen. Bitte prüfen Sie die Stückliste und melden Sie sich "
    "bis zum "
    "Ende des Monats. Die Größe des Gehäuses beträgt 120 x 80 Millimeter. "
)
CODE = (
    'def fetch(session: Session, path: str, *, timeout_s: float = 2.5) -> bytes:\n    """One document."""\n'
    "    response = session.get(f'{BASE}/{path}', timeout=timeout_s)\n    if response.status_code != 200:\n"
    "        raise FetchFailed(path, response.status_code)\n    return response.content\n\n"
)


def repeated(piece: str) -> Callable[[random.Random, int], str]:
    return lambda _, length: (piece * (length // len(piece) + 1))[:length]


def prose(piece: str) -> Callable[[random.Random, int], str]:
    """The piece's words, every third one a word that may not have been there: as many distinct ones as prose has."""
    words = piece.split()
    syllables = sorted({word[at : at + 3].lower() for word in words for at in range(len(word) - 2) if word.isalpha()})

    def make(rng: random.Random, length: int) -> str:
        made, size = [], 0
        while size < length:
            word = words[len(made) % len(words)]
            if rng.random() < 0.3:
                word = "".join(rng.choice(syllables) for _ in range(rng.randrange(1, 5)))
            made.append(word)
            size += len(word) + 1
        return " ".join(made)[:length]

    return make


def log(rng: random.Random, length: int) -> str:
    lines: list[str] = []
    while sum(map(len, lines)) < length:
        lines.append(
            f"2026-01-31T12:{rng.randrange(60):02d}:{rng.randrange(60):02d}.{rng.randrange(10**6):06d}Z INFO worker-"
            f"{rng.randrange(64)} request={rng.getrandbits(128):032x} took={rng.randrange(10**4)}ms status=200\n"
        )
    return "".join(lines)[:length]


def records(rng: random.Random, length: int) -> str:
    rows: list[str] = []
    while sum(map(len, rows)) < length:
        rows.append(
            json.dumps({
                "id": rng.randrange(10**9), "sku": f"{rng.getrandbits(40):010x}", "price": rng.randrange(10**6) / 100,
                "title": "Крепёж оцинкованный, 12 мм", "in_stock": rng.random() < 0.5,
            }, ensure_ascii=False)
        )  # fmt: skip
    return ("[" + ",\n".join(rows))[:length]


def numbers(rng: random.Random, length: int) -> str:
    return "\n".join(str(rng.randrange(10**8, 10**16)) for _ in range(length // 10))[:length]


def identified(rng: random.Random, length: int) -> str:
    """An identifier with its word on every line."""
    lines: list[str] = []
    while sum(map(len, lines)) < length:
        word = ("ИНН", "phone", "Steuer-ID", "паспорт", "customer_id")[len(lines) % 5]
        lines.append(f"{word}: {rng.randrange(10**9, 10**12)}\n")
    return "".join(lines)[:length]


KINDS: dict[str, Callable[[random.Random, int], str]] = {
    "russian": prose(RUSSIAN),
    "english": prose(ENGLISH),
    "german": prose(GERMAN),
    "code": repeated(CODE),
    "log": log,
    "json": records,
    "numbers": numbers,
    "identified": identified,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--names", action="store_true", help="with the model of names")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    names = open_names() if chosen.names else None
    if chosen.names and names is None:
        parser.error("the model of names is not installed: pip install 'perimeter-serving[hybrid]'")
    scanner = Scanner(names=names)
    rng = random.Random(8)
    texts = {(kind, length): make(rng, length) for kind, make in KINDS.items() for length in LENGTHS}
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in texts}
    gc.disable()
    for _ in range(chosen.rounds + 1):
        for key, text in texts.items():  # lengths alternate, so that what else runs here falls on both
            begin = time.perf_counter()
            scanner.scan([Part("/messages/0/content", text)])
            taken[key].append((time.perf_counter() - begin) * 1e3)
    for times in taken.values():
        del times[0]  # tables are filled by it
    print(f"{'kind':10} {'chars':>8} {'p50 ms':>8} {'p95 ms':>8} {'µs/char':>8}")
    for (kind, length), times in taken.items():
        show(kind, length, times)
    for length in LENGTHS:
        show(
            "prose…json",
            length,
            [
                one
                for (kind, size), times in taken.items()
                if size == length and kind not in {"numbers", "identified"}
                for one in times
            ],
        )


def show(kind: str, length: int, times: list[float]) -> None:
    p50 = statistics.median(times)
    p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
    print(f"{kind:10} {length:8} {p50:8.2f} {p95:8.2f} {p50 / length * 1e3:8.3f}")


if __name__ == "__main__":
    main()
