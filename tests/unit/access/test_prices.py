"""The price book: what is in it, and what is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.access.prices import Price, Tokens, load_prices, parse_prices
from serving.errors import BadFile, FileMissing

BOOK = b"""
version = 1
currency = "EUR"
[[prices]]
from = 2026-01-01
input = 1
output = 2.5
[[prices]]
from = 2026-01-01
model = "llama3-8b"
input = 0.10
cached_input = 0.01
output = 0.4
reasoning = 0.000001
[[prices]]
from = 2026-06-01
model = "llama3-8b"
input = 0.20
output = 0.4
[[prices]]
from = 2026-01-01
model = "llama3-8b"
engine = "vllm"
input = 0.05
output = 0.1
"""
COUNT = st.integers(0, 10**9)
PRICE = st.integers(0, 10**12)


def test_the_narrowest_and_then_the_latest_entry_is_the_price() -> None:
    """By model, engine and day; each day's price is the one that was in force on it."""
    book = parse_prices(BOOK, "it")
    may, june = date(2026, 5, 31), date(2026, 6, 1)
    assert book.find("llama3-8b", "llamacpp", may) == Price(
        date(2026, 1, 1), "llama3-8b", "*", 100_000, 10_000, 400_000, 1, book.version
    )
    assert book.find("llama3-8b", "llamacpp", june).fresh == book.find("llama3-8b", "llamacpp", june).cached == 200_000
    assert book.find("llama3-8b", "vllm", june).fresh == 50_000
    assert book.find("other", "vllm", june).output == book.find("other", "vllm", june).reasoning == 2_500_000
    assert book.find("other", "vllm", date(2025, 12, 31)) is None


def test_a_book_is_known_by_what_is_in_it() -> None:
    """A changed digit is another version."""
    assert parse_prices(BOOK, "it").version == parse_prices(BOOK, "it").version
    assert parse_prices(BOOK, "it").version != parse_prices(BOOK.replace(b"2.5", b"2.6"), "it").version


def test_a_cost_is_rounded_up_once() -> None:
    """A token of a millionth is one micro-unit; a million of them are one too."""
    price = Price(date(2026, 1, 1), "*", "*", 1, 1, 1, 1)
    assert [price.cost(Tokens(fresh=count)) for count in (0, 1, 10**6, 10**6 + 1)] == [0, 1, 1, 2]


@given(
    st.builds(Price, st.just(date(2026, 1, 1)), st.just("*"), st.just("*"), PRICE, PRICE, PRICE, PRICE),
    COUNT,
    COUNT,
    COUNT,
    COUNT,
)
def test_no_division_into_kinds_costs_more_than_the_most(
    price: Price, fresh: int, cached: int, output: int, reasoning: int
) -> None:
    """What is reserved by numbers of tokens is enough whatever kinds they turn out to be of."""
    tokens = Tokens(fresh, cached, output, reasoning)
    assert 0 <= price.cost(tokens) <= price.most(fresh + cached, output + reasoning)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"version = 1", b"version = 2", "version `2`"),
        (b'"EUR"', b'""', "currency"),
        (b"input = 1\n", b"input = -1\n", "input = -1"),
        (b"input = 1\n", b"input = nan\n", "NaN"),
        (b"input = 1\n", b'input = "1"\n', "no price"),
        (b"input = 1\n", b"input = true\n", "no price"),
        (b"input = 1\n", b"", "no `input`"),
        (b"input = 1\n", b"input = 0.0000001\n", "six decimal"),
        (b"input = 1\n", b"input = 1\ninptu = 1\n", "inptu"),
        (b"from = 2026-06-01", b"from = 2026-06-01T00:00:00", "no day"),
        (b"from = 2026-06-01", b"from = 2026-01-01", "two prices"),
        (b"[[prices]]\nfrom = 2026-06-01", b"[prices]\nfrom = 2026-06-01", "TOML"),
    ],
)
def test_a_wrong_book_is_refused_by_what_is_wrong(old: bytes, new: bytes, said: str) -> None:
    """Nothing is guessed where money is counted."""
    with pytest.raises(BadFile, match=said):
        parse_prices(BOOK.replace(old, new, 1), "it")


def test_the_example_is_a_book() -> None:
    """The file that ships can be loaded as it is, and prices every model."""
    book = load_prices(Path(__file__).parents[3] / "configs" / "prices.toml")
    assert book.find("any", "any", date(2026, 6, 1)) is not None


def test_a_book_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With the way to one."""
    with pytest.raises(FileMissing) as raised:
        load_prices(tmp_path / "prices.toml")
    assert raised.value.hint
