"""`benchmarks.corpus.labelled`: requests of every route, sensitive or not by how they were made."""

from __future__ import annotations

from itertools import islice

from benchmarks.corpus import LABELS
from benchmarks.corpus.labelled import PLACES, Labelled, requests
from benchmarks.corpus.rows import ascii_escaped, quoted
from serving.openai import parse_body, parse_chat, parse_completion, parse_embeddings, parse_rerank, serialise
from serving.openai.limits import serves_of


def some(count: int = 20 * len(PLACES), seed: int = 1) -> list[Labelled]:
    return list(islice(requests(seed), count))


def written(value: object) -> list[str]:
    """Every string of a body, keys included."""
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in written(item))]
    if isinstance(value, list):
        return [text for item in value for text in written(item)]
    return [value] if isinstance(value, str) else []


def test_the_gateway_takes_every_request() -> None:
    """Each passes the strict parser and its route's closed schema: a property test loses none to a refusal."""
    for request in some():
        body = parse_body(serialise(request.body))
        assert isinstance(body, dict)
        if request.route == "/v1/chat/completions":
            parse_chat(body, serves=serves_of("hermes"))
        elif request.route == "/v1/completions":
            parse_completion(body)
        elif request.route == "/v1/embeddings":
            parse_embeddings(body)
        else:
            assert request.route == "/v1/rerank"
            parse_rerank(body)


def test_a_sensitive_request_holds_its_values_and_a_clean_one_has_none() -> None:
    """As they are, or escaped where JSON stands inside a string."""
    for request in some():
        assert request.is_sensitive == bool(request.values) == (request.label is not None)
        texts = written(request.body)
        for value in request.values:
            forms = {value, quoted(value)[1:-1], ascii_escaped(quoted(value)[1:-1])}
            assert any(form in text for form in forms for text in texts), request


def test_half_are_sensitive_at_every_place_and_of_every_label() -> None:
    """Within a number of requests that a property test draws."""
    made = some(4 * len(PLACES))
    assert sum(request.is_sensitive for request in made) == len(made) // 2
    for is_sensitive in (True, False):
        assert {request.place for request in made if request.is_sensitive is is_sensitive} == set(PLACES)
    assert {request.label for request in some() if request.is_sensitive} == set(LABELS)
    assert {request.route for request in made} == {place.route for place in PLACES.values()}


def test_the_same_seed_gives_the_same_requests() -> None:
    """And another one others."""
    assert some(50) == some(50)
    assert some(50) != some(50, seed=2)
