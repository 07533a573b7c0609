"""Sealed content, by property: it comes back to the byte, whatever is changed is found, what is erased is gone."""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.audit.content import ContentStore, batched
from serving.audit.counter import Erase, erase
from serving.audit.sealed import SECRET_BYTES, BrokenSeal, Heading, Sealed, seal, unseal
from serving.audit.shelf import wrapped_keys
from serving.desk import myself
from serving.errors import FileMissing
from serving.gateway.relay import framed_events, unframed
from serving.keyfiles import fingerprint_of
from tests.support.contents import REASON, keeping

PRIVATE = X25519PrivateKey.generate()
TEXTS = st.binary(max_size=600)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
HEADINGS = st.builds(
    Heading,
    content=st.from_regex(r"[1-9]\d{0,3}-[0-9a-f]{24}", fullmatch=True),
    at=IDS,
    key=IDS,
    kind=st.sampled_from(["prompt", "answer"]),
    request=IDS,
    to=st.just(fingerprint_of(PRIVATE.public_key())),
    size=st.integers(0, 2**50),
    kept=st.just(0),
    intent=st.none() | st.integers(1, 2**50),
)


def sealed(heading: Heading, text: bytes) -> Sealed:
    return seal(replace(heading, kept=len(text)), text, secrets.token_bytes(SECRET_BYTES), PRIVATE.public_key())


@given(heading=HEADINGS, text=TEXTS)
def test_what_is_sealed_comes_back(heading: Heading, text: bytes) -> None:
    """Text and heading, whatever is in them; nothing of a longer text stands in what is kept."""
    made = sealed(heading, text)
    assert unseal(made.raw, made.wrapped, PRIVATE) == (made.heading, text)
    assert replace(made.heading, wrapped="", kept=0) == heading
    assert len(text) < 8 or text not in made.raw


@given(heading=HEADINGS, text=TEXTS, data=st.data())
def test_every_changed_bit_is_found(heading: Heading, text: bytes, data: st.DataObject) -> None:
    """In the record, its heading, its digest, or its wrapped key; and nothing but BrokenSeal is raised."""
    made = sealed(heading, text)
    parts = [bytearray(made.raw), bytearray(made.wrapped)]
    part = parts[data.draw(st.sampled_from([0, 0, 1]))]
    bit = data.draw(st.integers(0, 8 * len(part) - 1))
    part[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BrokenSeal):
        unseal(bytes(parts[0]), bytes(parts[1]), PRIVATE)


@given(one=HEADINGS, other=HEADINGS, text=TEXTS, cut=st.integers(0, 2000))
def test_a_record_opens_with_its_own_key_alone(one: Heading, other: Heading, text: bytes, cut: int) -> None:
    """Not with another record's, sealed for the same auditor; and no part of a record opens."""
    first, second = sealed(one, text), sealed(other, text)
    with pytest.raises(BrokenSeal):
        unseal(first.raw, second.wrapped, PRIVATE)
    with pytest.raises(BrokenSeal):
        unseal(first.raw[: min(cut, len(first.raw) - 1)], first.wrapped, PRIVATE)


@given(texts=st.lists(TEXTS, min_size=1, max_size=6), data=st.data())
@settings(max_examples=15, deadline=None)
def test_what_is_erased_is_unreadable_with_everything_at_hand(texts: list[bytes], data: st.DataObject) -> None:
    """With the private key, the records and the keys' directory; whatever was not erased is still there."""
    with tempfile.TemporaryDirectory() as directory, keeping(Path(directory)) as kept:
        contents = [kept.prompt(text).content for text in texts]
        before = wrapped_keys(kept.directory, 1)
        gone = set(data.draw(st.lists(st.sampled_from(contents), unique=True)))
        for content in gone:
            erase(kept.store, Erase(content=content, reason=REASON), myself())
        everything = b"".join(path.read_bytes() for path in Path(directory).rglob("*") if path.is_file())
        for content, text in zip(contents, texts, strict=True):
            assert (before[content] in everything) == (content not in gone)
            if content in gone:
                with pytest.raises(FileMissing, match="erased"):
                    kept.show(content)
            else:
                assert kept.show(content)[1] == text


@given(texts=st.lists(st.binary(max_size=30).filter(lambda text: b"\n" not in text), min_size=1, max_size=5))
def test_chunks_are_taken_out_of_their_frames(texts: list[bytes]) -> None:
    """What a client reads of whole chunks is what is fingerprinted of them."""
    events = [b"data: " + text + b"\n\n" for text in texts]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    assert unframed(framed) == b"".join(events)
    assert framed_events(framed) in (0, len(events))


@given(ids=st.lists(st.text(max_size=3), max_size=20), most=st.integers(1, 7))
def test_batches_have_everything_once(ids: list[str], most: int) -> None:
    """In order, none longer than wanted, none empty."""
    made = list(batched(ids, most))
    assert [each for some in made for each in some] == ids
    assert all(0 < len(some) <= most for some in made)


def test_a_closed_store_keeps_nothing(tmp_path: Path) -> None:
    """Whoever comes late is told, and nobody waits for ever."""
    with keeping(tmp_path) as kept:
        store: ContentStore = kept.store
        store.close()
        with pytest.raises(Exception, match="closed"):
            kept.prompt(b"late")
