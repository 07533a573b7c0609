"""A model from a hub or a mirror into the store: which files, at which commit, and whether they are those offered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import serving
from serving.errors import (
    BadFile,
    BadSettings,
    FetchFailed,
    FileMissing,
    NoFitError,
    StartError,
    Unverified,
    UsageError,
)
from serving.store.accepted import is_weights, is_words, refuse_name
from serving.store.bring import Found, Origin, bring_in
from serving.store.cas import Store
from serving.store.files import expect, is_whole
from serving.store.hub import Order
from serving.store.lock import NOTHING, Accepted, Lock, parse_lock
from serving.store.manifest import MAX_SIZE, Manifest, StoredFile
from serving.store.signature import UNSIGNED, Signing

HUB: Final = "https://huggingface.co"
_SOURCE: Final = re.compile(
    r"(?:(?P<host>[^/@\s]+\.[^/@\s]+)/)?(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@\s]+))?(?:@(?P<at>[^@\s]+))?"
)
_SHARD: Final = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<all>\d{5})\.gguf")
_MODULE: Final = re.compile(r"\d+_[A-Za-z]+/[^/]+")
"""Files of sentence-transformers' modules."""
_DUPLICATES: Final = ("consolidated",)
"""Weights that a repository has a second time, in another program's form."""
_PASSED_ON: Final = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE")
_LOOK_EVERY_S: Final = 0.25
_MAX_LICENCE: Final = 100
OnBytes = Callable[[int, int], None]
"""Told how many bytes have come, and of how many."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a variant's weights come from, as the catalogue writes it: `huggingface.co/org/repo/file.gguf@commit`."""

    repo: str
    file: str | None = None
    revision: str | None = None
    host: str = "huggingface.co"

    def __str__(self) -> str:
        return f"{self.host}/{self.repo}{f'/{self.file}' if self.file else ''}"


@dataclass(frozen=True, slots=True)
class Remote:
    """The server to pull from, and how to be let in."""

    endpoint: str = HUB
    token: str | None = None
    ca_file: Path | None = None
    workers: int = 8
    """Files at the same time."""

    def __repr__(self) -> str:
        return f"Remote({self.endpoint!r})"


@dataclass(frozen=True, slots=True)
class Offered:
    """A file of a repository, as the server tells of it."""

    name: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None
    """Git's name of it, where the server gives no SHA-256."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which files of a repository are taken."""

    files: tuple[Offered, ...]
    left_out: tuple[str, ...]
    """Sentences on what is not, where that is worth a word."""


def parse_source(text: str) -> Source:
    """A source as the catalogue or a person writes it. Raises UsageError."""
    match = _SOURCE.fullmatch(text.removeprefix("https://"))
    if match is None:
        message = f"`{text}` cannot be pulled: it is no repository"
        hint = "it has to be made first, then `serve models import`; or name one: `--source org/repo[/file][@revision]`"
        raise UsageError(message, hint=hint)
    return Source(match["repo"], match["file"], match["at"], match["host"] or "huggingface.co")


def choose_files(source: Source, offered: Sequence[Offered]) -> Choice:
    """The files that make the variant: weights of one form, what describes them, and the words beside them.

    Raises FileMissing where the repository has none, UsageError where it has several and one must be named.
    """
    weights = _weights_of(source, {each.name for each in offered})
    is_described = not any(name.endswith(".gguf") for name in weights)  # a GGUF file describes itself
    taken, left = [], []
    for each in sorted(offered, key=lambda file: file.name):
        refusal = refuse_name(each.name)
        if each.name in weights:
            if refusal is not None:
                raise BadFile(f"`{each.name}` of `{source.repo}` is not taken: {refusal}")
            taken.append(each)
        elif refusal is not None:
            if not each.name.startswith(".git"):
                left.append(f"`{each.name}`: {refusal}")
        elif _is_beside(each.name, is_described=is_described):
            taken.append(each)
    return Choice(tuple(taken), tuple(left))


def pull(
    store: Store,
    source: Source,
    origin: Origin,
    remote: Remote,
    accepted: Accepted = NOTHING,
    *,
    signing: Signing = UNSIGNED,
    on_choice: Callable[[Choice, str], None] = lambda _choice, _commit: None,
    on_bytes: OnBytes = lambda _done, _all: None,
    on_wait: Callable[[], None] = lambda: None,
) -> Manifest:
    """Bring the variant in. Where the lock has it, at the commit that is locked, unless the source names one.

    Each file is compared with the SHA-256 that the server gives of it, or git's name where it gives none, and with a
    mirror's lock where the server is one of ours. Raises FetchFailed, Unverified, NoFitError, UsageError.
    """
    locked = store.lock().find(origin.model, origin.variant)
    revision = source.revision
    if revision is None and locked is not None and locked.source == str(source) and not accepted.change:
        revision = locked.revision
    key = hashlib.sha256(f"{remote.endpoint}\0{source}\0{origin.model}\0{origin.variant}".encode()).hexdigest()[:16]
    with store.alone(f"pull-{key}", on_wait) as work:
        order = Order(
            "look",
            remote.endpoint,
            source.repo,
            revision or "main",
            remote.token,
            None if remote.ca_file is None else str(remote.ca_file),
            str(work / "files"),
            workers=remote.workers,
        )
        told = _ask(order)
        commit, offered = _read(told, order)
        files_of_commit = work / "files" / commit
        choice = choose_files(source, offered)
        files = _with_lock(choice.files, told.get("lock"), order)
        on_choice(replace(choice, files=files), commit)
        lacking = [file for file in files if not _is_stored(store, file)]
        store.require_space(sum(file.size for file in lacking) - _size_of(files_of_commit))
        if lacking:
            files_of_commit.mkdir(parents=True, exist_ok=True)
            directory = str(files_of_commit)
            fetch = replace(
                order,
                do="fetch",
                revision=commit,
                directory=directory,
                files=tuple((file.name, file.size) for file in lacking),
            )
            whole = sum(file.size for file in lacking)
            with _watched(files_of_commit, lambda done: on_bytes(min(done, whole), whole)):
                _ask(fetch)
            on_bytes(whole, whole)
        found = [_found(store, file, files_of_commit) for file in files]
        expected = {file.name: StoredFile(file.name, file.sha256, file.size) for file in files if file.sha256}
        known = replace(
            origin, source=str(source), revision=commit, licence=origin.licence or _licence(told.get("licence"))
        )
        try:
            manifest = bring_in(store, found, known, accepted, expected, signing=signing, move=True)
        except (Unverified, BadFile):
            if not _is_only_locked_otherwise(store, found):
                shutil.rmtree(work / "files", ignore_errors=True)  # what is wrong is not gone on with
            raise
        shutil.rmtree(work / "files", ignore_errors=True)
    return manifest


def read_token(path: Path | None) -> str | None:
    """The token in a file that only its owner may read. Raises BadSettings."""
    if path is None:
        return None
    hint = "store.token_file names a file of mode 0600 with the token on its first line"
    try:
        if path.stat().st_mode & 0o077:
            raise BadSettings(f"`{path}` may be read by others (mode {path.stat().st_mode & 0o777:o})", hint=hint)
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise BadSettings(f"the token file `{path}` cannot be read: {error.strerror}", hint=hint) from None
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise BadSettings(f"`{path}` holds no token", hint=hint)
    return token


def _licence(told: object) -> str | None:
    """What a card calls its licence, where that is a name."""
    return told if isinstance(told, str) and told.isprintable() and 0 < len(told) <= _MAX_LICENCE else None


def _is_only_locked_otherwise(store: Store, found: Sequence[Found]) -> bool:
    """Whether all files have come in whole: then it is the lock that refused, and the operator's word is enough."""
    return all(not file.path.exists() or file.path.is_relative_to(store.root / "blobs") for file in found)


def _read(told: Mapping[str, Any], order: Order) -> tuple[str, tuple[Offered, ...]]:
    commit = told.get("commit")
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        raise FetchFailed(f"`{order.repo}` at {order.endpoint} names no commit", hint="is it a hub?")
    offered = []
    for each in told.get("files", ()):
        name, size, sha256, git_sha1 = each.get("name"), each.get("size"), each.get("sha256"), each.get("git_sha1")
        is_sound = isinstance(name, str) and isinstance(size, int) and 0 <= size <= MAX_SIZE
        if not is_sound or not _is_digest(sha256, 64) or not _is_digest(git_sha1, 40):
            message = f"{order.endpoint} does not say what the file {name!r:.80} of `{order.repo}` is"
            raise FetchFailed(message, hint="is it a hub?")
        offered.append(Offered(name, size, sha256, git_sha1))
    if len({each.name for each in offered}) < len(offered):
        raise FetchFailed(f"`{order.repo}` at {order.endpoint} names a file twice", hint="is it a hub?")
    return commit, tuple(offered)


def _is_digest(told: object, letters: int) -> bool:
    return told is None or (isinstance(told, str) and re.fullmatch(rf"[0-9a-f]{{{letters}}}", told) is not None)


def _with_lock(files: Sequence[Offered], lock: str | None, order: Order) -> tuple[Offered, ...]:
    """The files with the digests of a mirror's lock, which must be those that the mirror gives. Raises Unverified."""
    if lock is None:
        return tuple(files)
    entries = parse_lock(lock.encode(), f"the lock of {order.endpoint}")
    checked = []
    for file in files:
        locked = _locked(file, entries, order.repo)
        if locked is None or locked.size != file.size or (file.sha256 or locked.sha256) != locked.sha256:
            message = f"`{file.name}` of `{order.repo}` is not what the lock of {order.endpoint} says"
            raise Unverified(message, hint="tell whoever runs the mirror: `serve models verify` there says more")
        checked.append(replace(file, sha256=locked.sha256))
    return tuple(checked)


def _locked(file: Offered, lock: Lock, repo: str) -> StoredFile | None:
    """What a mirror's lock has under that name, of the repository where an entry says that it is of one."""
    of_repo = [entry for entry in lock.entries if f"/{repo}/" in f"/{entry.source}/"] or lock.entries
    there = [each for entry in of_repo if (each := entry.file(file.name)) is not None]
    same = [each for each in there if each.size == file.size and file.sha256 in (None, each.sha256)]
    return next(iter([*same, *there]), None)


def _is_stored(store: Store, file: Offered) -> bool:
    """Whether it is among the blobs, and whole: one that was damaged is fetched anew."""
    if file.sha256 is None:
        return False
    return is_whole(store.blob(file.sha256), StoredFile(file.name, file.sha256, file.size))


def _found(store: Store, file: Offered, directory: Path) -> Found:
    """Where the file is now: among the blobs, or just fetched. Raises Unverified where it is not what was offered."""
    path = store.blob(file.sha256) if file.sha256 is not None and _is_stored(store, file) else directory / file.name
    status = path.lstat()
    if file.sha256 is None and file.git_sha1 is not None and status.st_size == file.size:
        content = path.read_bytes()
        name = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if name != file.git_sha1:
            expect(
                StoredFile(file.name, "0" * 64, file.size),
                hashlib.sha256(content).hexdigest(),
                file.size,
                "the download",
            )
    return Found(file.name, path, status.st_size, status.st_mtime_ns)


def _weights_of(source: Source, names: AbstractSet[str]) -> set[str]:
    """The weight files of the variant: the one named, with its other parts; else all safetensors, or the GGUF."""
    if source.file is not None:
        if source.file not in names:
            raise FileMissing(f"`{source.repo}` has no file `{source.file}`", hint=_has(names))
        return {source.file, *_shards(source.file, names)}
    tensors = {name for name in names if name.endswith(".safetensors") and _belongs(name)}
    if tensors:
        return tensors
    ggufs = sorted(name for name in names if name.endswith(".gguf") and "/" not in name)
    if not ggufs:
        message = f"`{source.repo}` has neither safetensors nor GGUF files"
        raise FileMissing(message, hint="other forms can carry code, and are not taken")
    one = {ggufs[0], *_shards(ggufs[0], names)}
    if set(ggufs) != one:
        raise UsageError(f"`{source.repo}` has several GGUF files", hint=f"name one: {_has(names)}")
    return one


def _is_beside(name: str, *, is_described: bool) -> bool:
    """Whether a file that may be taken goes with the weights: words always, and what describes safetensors."""
    if is_words(name):
        return "/" not in name
    return is_described and not is_weights(name) and _belongs(name)


def _shards(name: str, names: AbstractSet[str]) -> set[str]:
    """The other files of a GGUF model that is in several."""
    match = _SHARD.fullmatch(name)
    if match is None:
        return set()
    return {f"{match['stem']}-{number:05d}-of-{match['all']}.gguf" for number in range(1, int(match["all"]) + 1)} & set(
        names
    )


def _belongs(name: str) -> bool:
    """Whether a file is one of the model itself, and not of another form of it in a directory of the repository."""
    last = name.rpartition("/")[2]
    return ("/" not in name or _MODULE.fullmatch(name) is not None) and not last.startswith(_DUPLICATES)


def _has(names: AbstractSet[str]) -> str:
    weights = sorted(name for name in names if is_weights(name))
    shown = ", ".join(f"`{name}`" for name in weights[:8])
    return f"it has {shown}{' and more' if len(weights) > 8 else ''}" if weights else "it has no weights"


def _ask(order: Order) -> dict[str, Any]:
    """Have the door's process do it. Raises what it met."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {
        "PATH": "/usr/bin:/bin",
        "HOME": order.directory,
        "HF_HOME": order.directory,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_XET": "1",  # one host and plain ranges: what a firewall's keeper can follow
        "HF_ENDPOINT": order.endpoint,
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(Path(serving.__file__).resolve().parent.parent),
    }
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        environment["HF_HUB_OFFLINE"] = "1"
    with subprocess.Popen(
        [sys.executable, "-m", "serving.store.hub"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            answer, said = child.communicate(json.dumps({**asdict(order), "ordered_by": os.getpid()}).encode())
        except BaseException:
            child.kill()
            raise
    try:
        told: dict[str, Any] = json.loads(answer)
    except ValueError:
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        text = last.replace(order.token, "…") if order.token else last
        message = f"the download from {order.endpoint} ended with status {child.returncode}: {text}"
        raise FetchFailed(message, hint="what has come is kept: the same command goes on from there") from None
    if "error" in told:
        error = told["error"]
        kinds: dict[str, type[StartError]] = {"no_fit": NoFitError}
        raise kinds.get(error["code"], FetchFailed)(error["message"], hint=error["hint"])
    return told


@contextlib.contextmanager
def _watched(directory: Path, on_bytes: Callable[[int], None]) -> Iterator[None]:
    """Tell how large a directory is, while it grows."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            on_bytes(_size_of(directory))

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _size_of(directory: Path) -> int:
    total = 0
    for top, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(top) / name).lstat().st_size
    return total
