"""The chain: how an entry is written, what its hash covers, and what a checkpoint signs.

An entry is one line of canonical JSON: `{"at":…,"hash":…,"record":{…},"seq":…}`. Its hash is SHA-256 over the 32 bytes
of the hash before it and the entry without its hash. Numbers (`seq`) count from 1 through all segments.

A segment begins with its head, which names the last hash before it, and a checkpoint; when it is full it ends with a
checkpoint. A checkpoint is an entry whose record has an Ed25519 signature over the log's id, the segment, the
checkpoint's number and time and the hash that the chain had before it: it stands for everything up to there, and can be
checked by itself wherever it is kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from serving.audit.canonical import NotCanonical, canonical, parse_canonical

VERSION: Final = 1
ZERO: Final = bytes(32)
"""What stands before the first entry."""
HEAD: Final = "segment"
CHECKPOINT: Final = "checkpoint"
_PURPOSE: Final = b"perimeter audit checkpoint 1\n"
"""Before what is signed, so that a signature made for anything else is none here."""
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_HEAD_FIELDS: Final = frozenset({"kind", "key", "log", "previous", "segment", "version"})
_CHECKPOINT_FIELDS: Final = frozenset({"kind", "chain", "key", "log", "segment", "signature"})
Sign = Callable[[bytes], bytes]


class NotAnEntry(ValueError):
    """A line that is no entry of an audit log."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs checkpoints."""

    sign: Sign
    fingerprint: str
    """Of the public key."""
    has_signed: Callable[[bytes, bytes], bool]
    """Given bytes and a signature: whether this key made it."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where a chain stands: the number and the hash of its last entry."""

    seq: int = 0
    hash: bytes = ZERO


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that was read."""

    at: str
    hash: bytes
    record: Mapping[str, Any]
    seq: int

    @property
    def kind(self) -> str:
        """What is recorded."""
        return str(self.record["kind"])


def write_entry(link: Link, at: str, body: bytes) -> tuple[bytes, Link]:
    """The next line after `link`, with its newline, and where the chain stands then. `body` is a canonical record."""
    seq = link.seq + 1
    stamp = at.encode()
    digest = hashlib.sha256(b'%b{"at":"%b","record":%b,"seq":%d}' % (link.hash, stamp, body, seq))
    line = b'{"at":"%b","hash":"%b","record":%b,"seq":%d}\n' % (stamp, digest.hexdigest().encode(), body, seq)
    return line, Link(seq, digest.digest())


def read_entry(line: bytes) -> Entry:
    """The entry of a line without its newline. Raises NotAnEntry."""
    try:
        value = parse_canonical(line)
    except NotCanonical as error:
        raise NotAnEntry(str(error)) from None
    if not isinstance(value, dict) or value.keys() != {"at", "hash", "record", "seq"}:
        raise NotAnEntry("is no entry")
    at, digest, record, seq = value["at"], value["hash"], value["record"], value["seq"]
    if not isinstance(at, str) or not _TIME.fullmatch(at):
        raise NotAnEntry("has no time")
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise NotAnEntry("has no hash")
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise NotAnEntry("has no record")
    if type(seq) is not int or seq < 1:
        raise NotAnEntry("has no number")
    return Entry(at, bytes.fromhex(digest), record, seq)


def hash_of(before: bytes, entry: Entry) -> bytes:
    """The hash that the entry must have after `before`."""
    covered = canonical({"at": entry.at, "record": entry.record, "seq": entry.seq})
    return hashlib.sha256(before + covered).digest()


def head_body(log: str, segment: int, link: Link, key: str) -> bytes:
    """The record that a segment begins with. `link` is the end of the one before."""
    previous = link.hash.hex()
    head = {"kind": HEAD, "key": key, "log": log, "previous": previous, "segment": segment, "version": VERSION}
    return canonical(head)


def checkpoint_body(log: str, segment: int, link: Link, at: str, signer: Signer) -> bytes:
    """The record of a checkpoint over everything up to `link`, to be written right after it at the time `at`."""
    signed = _signed(log, segment, link.seq + 1, link.hash.hex(), at, signer.fingerprint)
    signature = base64.b64encode(signer.sign(signed)).decode()
    return canonical(
        {
            "kind": CHECKPOINT,
            "chain": link.hash.hex(),
            "key": signer.fingerprint,
            "log": log,
            "segment": segment,
            "signature": signature,
        }
    )


def is_head(entry: Entry) -> bool:
    """Whether the record has a head's form; where it stands is not looked at."""
    record = entry.record
    return (
        record.keys() == _HEAD_FIELDS
        and all(isinstance(record[name], str) for name in ("key", "log", "previous"))
        and _HASH.fullmatch(record["previous"]) is not None
        and all(type(record[name]) is int for name in ("segment", "version"))
    )


def signed_by(entry: Entry) -> tuple[bytes, bytes, str] | None:
    """What a checkpoint signs, its signature and the fingerprint of its key; None where it has not the form of one."""
    record = entry.record
    if record.keys() != _CHECKPOINT_FIELDS or type(record["segment"]) is not int:
        return None
    texts = [record[name] for name in ("chain", "key", "log", "signature")]
    if not all(isinstance(text, str) for text in texts) or not _HASH.fullmatch(record["chain"]):
        return None
    try:
        signature = base64.b64decode(record["signature"], validate=True)
    except (binascii.Error, ValueError):
        return None
    if base64.b64encode(signature).decode() != record["signature"]:
        return None
    signed = _signed(record["log"], record["segment"], entry.seq, record["chain"], entry.at, record["key"])
    return signed, signature, record["key"]


def _signed(log: str, segment: int, seq: int, chain: str, at: str, key: str) -> bytes:
    return _PURPOSE + canonical({"at": at, "chain": chain, "key": key, "log": log, "segment": segment, "seq": seq})
