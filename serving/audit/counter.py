"""Reading and erasing of content: asked of the server that runs, so that each is in the audit log before it is done.

The server has the wrapped keys and cannot open them; the auditor has the key that opens them and gets none before the
reading is on record. Where no server runs, its user or root does the server's part in this process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import Field

from serving import desk
from serving.audit.content import ContentStore
from serving.audit.records import ContentRead
from serving.audit.sealed import BrokenSeal, Heading, unseal
from serving.audit.shelf import Erasing, Placed, find, list_shelf, read_headings, read_sealed, segment_of, wrapped_keys
from serving.desk import Body, Caller, Operation
from serving.errors import BadFile, FileMissing, Untrusted, Unverified
from serving.keyfiles import fingerprint_of

SOCKET: Final = "content.sock"
"""Beside the log."""
Reason = Annotated[str, Field(min_length=1, max_length=500)]
Id = Annotated[str, Field(min_length=1, max_length=64)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]


class Read(Body):
    """A record that is about to be read."""

    content: Id
    reason: Reason


class Erase(Body):
    """What is to be erased: one record, or all of an API key, or all from before a day (UTC)."""

    content: Id | None = None
    key: Id | None = None
    before: Day | None = None
    reason: Reason


def read(store: ContentStore, body: Read, caller: Caller) -> dict[str, Any]:
    """The wrapped key of a record, once it is on record who asked for it."""
    placed = find(store.directory, body.content)
    wrapped = wrapped_keys(store.directory, segment_of(body.content)).get(body.content)
    if wrapped is None:
        raise FileMissing(f"the content `{body.content}` was erased", hint="nobody can read it any more")
    key = placed.heading.key
    entry = store.audit.record(ContentRead(content=body.content, key=key, by=str(caller), reason=body.reason))
    if body.content not in wrapped_keys(store.directory, segment_of(body.content)):  # erased meanwhile
        raise FileMissing(f"the content `{body.content}` was erased", hint="nobody can read it any more")
    return {"content": body.content, "wrapped": wrapped.hex(), "entry": entry}


def erase(store: ContentStore, body: Erase, caller: Caller) -> dict[str, Any]:
    """The ids of what was erased, which may be none."""
    chosen = list(_chosen(store.directory, body))
    if body.content is not None and not chosen:
        find(store.directory, body.content)
        raise FileMissing(f"the content `{body.content}` was erased already")
    if chosen:
        contents = tuple(each.content for each in chosen)
        store.erase(Erasing(contents, str(caller), body.reason, body.key))
    return {"erased": [each.content for each in chosen]}


def _chosen(directory: Path, body: Erase) -> Iterator[Heading]:
    """The records that are asked for and have their key."""
    for segment in list_shelf(directory):
        if body.content is not None and segment.number != segment_of(body.content):
            continue
        keys = wrapped_keys(directory, segment.number)
        for placed in read_headings(segment.path, body.content or body.key or ""):
            if placed.heading.content in keys and _is_chosen(placed, body):
                yield placed.heading


def _is_chosen(placed: Placed, body: Erase) -> bool:
    heading = placed.heading
    asked = [
        (body.content, heading.content == body.content),
        (body.key, heading.key == body.key),
        (body.before, body.before is not None and heading.at < body.before),
    ]
    told = [holds for value, holds in asked if value is not None]
    return bool(told) and all(told)


_OPERATIONS: Final[Mapping[str, tuple[type[Body], Callable[[ContentStore, Any, Caller], dict[str, Any]]]]] = {
    "read": (Read, read),
    "erase": (Erase, erase),
}


def operations_on(store: ContentStore) -> dict[str, Operation]:
    """The operations, on this store."""

    def on_store(
        function: Callable[[ContentStore, Any, Caller], dict[str, Any]],
    ) -> Callable[[Any, Caller], dict[str, Any]]:
        return lambda body, caller: function(store, body, caller)

    return {name: (form, on_store(function)) for name, (form, function) in _OPERATIONS.items()}


@contextlib.asynccontextmanager
async def attended(store: ContentStore, directory: Path) -> AsyncIterator[Path]:
    """Serve the operations beside the log in `directory`, to its group too. Raises AddressUnavailable."""
    path = directory / SOCKET
    async with desk.served(operations_on(store), path, "audit.directory", is_for_group=True):
        yield path


def ask(
    directory: Path,
    operation: str,
    body: Mapping[str, object],
    opened: Callable[[], contextlib.AbstractContextManager[ContentStore]],
) -> dict[str, Any]:
    """One operation by the server that writes the log in `directory`, or on the store that `opened` opens.

    Raises ServingError.
    """
    answer = desk.ask(directory / SOCKET, operation, body)
    if answer is not None:
        return answer
    if directory.exists() and directory.stat().st_uid != os.getuid():
        message = f"no server runs that writes the audit log in `{directory}`, and it is another user's"
        raise Untrusted(message, hint="start the server and ask again, or do this as its user")
    with opened() as store:
        return desk.perform(operations_on(store), operation, body)


def show(
    directory: Path,
    content: str,
    private: X25519PrivateKey,
    wrapped_key_of: Callable[[str], bytes],
) -> tuple[Heading, bytes]:
    """The heading and the text of a record, by the auditor. `wrapped_key_of` asks for its key, which is recorded.

    What can be said against it beforehand is said before. Raises FileMissing, BadFile, Untrusted, Unverified.
    """
    placed = find(directory, content)
    if placed.heading.to != fingerprint_of(private.public_key()):
        message = f"the content `{content}` is sealed for another key, {placed.heading.to}"
        raise Untrusted(message, hint=f"this one is {fingerprint_of(private.public_key())}")
    raw = read_sealed(placed)
    try:
        return unseal(raw, wrapped_key_of(content), private)
    except BrokenSeal as error:
        hint = "`serve audit verify --content` says which were changed"
        raise Unverified(f"the content `{content}` cannot be read: {error}", hint=hint) from None


def key_from(answer: Mapping[str, Any]) -> bytes:
    """The wrapped key in the answer to `read`. Raises BadFile."""
    try:
        return bytes.fromhex(answer["wrapped"])
    except (KeyError, TypeError, ValueError):
        raise BadFile("the server answered without a key") from None
