"""The support matrix says what the suite sees. This file's name puts it last, when everything has been seen."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import ENGINES
from tests.conformance.matrix import PAGE, noted, page, seen


def test_the_page_is_what_the_notes_say() -> None:
    """`make matrix` has been run."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text


# By name, not by a fixture: pytest runs the tests of one server together, and this one comes after all of them.
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "url"])
def test_nothing_has_changed_since_it_was_noted(request: pytest.FixtureRequest, engine: str) -> None:
    """Each feature came out as the notes have it; CONFORMANCE_KEEP=1 writes them anew."""
    now = seen(engine)
    noted_now = noted().get(engine, {})
    missing = set(noted_now) - set(now)
    if missing and len(request.session.items) < 100:
        pytest.skip("only a part of the suite ran")
    assert now == noted_now
