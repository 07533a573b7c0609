"""What a hub answers to a request; pure. The protocol is the Hugging Face hub's, as its client speaks it.

Sources: huggingface_hub (`hf_api.py`, `file_download.py`, `utils/_http.py`), and the answers of huggingface.co. Every
file is told as one in Git LFS, with its SHA-256: that is what the store knows of it, and what a client can check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote_to_bytes

from serving.mirror.ranges import Whole, is_named, read_range
from serving.mirror.repositories import MAIN, Offer, Repository, Snapshot
from serving.store.manifest import StoredFile

LOCK_PATH: Final = "/.well-known/perimeter/models.lock"
MAX_BODY: Final = 1 << 20
"""Bytes of a request's body: a list of paths."""
_MOST: Final = 1000
"""Repositories in one answer."""
_FIELDS: Final = 64
_JSON: Final = "application/json; charset=utf-8"
_READ: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked."""

    method: str
    path: str
    """As it was sent, percent-encoded, without the query."""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a file that go out."""

    repository: str
    commit: str
    file: StoredFile
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers and a body, which is part of a file where `part` is set."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    part: Part | None = None


def answer(offer: Offer, request: Request) -> Answer:
    """What a request is answered with."""
    segments = _segments(request.path)
    if segments is None:
        return refuse(404, "EntryNotFound", "the path names nothing here")
    is_post = request.method == "POST" and len(segments) > 4 and "paths-info" in segments[3:5]
    if request.method not in _READ and not (is_post and segments[:2] == ["api", "models"]):
        return refuse(405, None, "this mirror is read only", allow="GET, HEAD")
    if request.path == LOCK_PATH:
        return _lock(offer, request)
    if segments[:2] == ["api", "models"]:
        return _api(offer, segments[2:], request)
    for at in (2, 1):
        if segments[at : at + 1] == ["resolve"] and len(segments) > at + 2:
            return _resolve(offer, "/".join(segments[:at]), segments[at + 1], "/".join(segments[at + 2 :]), request)
    return refuse(404, "RepoNotFound", "there is nothing of that name in this mirror")


def refuse(status: int, code: str | None, message: str, *, commit: str = "", **headers: str) -> Answer:
    """An error as the hub's client understands it: `code` tells it which of its exceptions to raise."""
    told = [("x-error-message", message.encode("ascii", "replace").decode()), ("cache-control", "no-store")]
    told += [("x-error-code", code)] if code else []
    told += [("x-repo-commit", commit)] if commit else []
    told += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return _json_answer({"error": message}, status, tuple(told))


def blob_id(file: StoredFile) -> str:
    """Git's name of the pointer that a repository with Git LFS has in place of the file (git-lfs, docs/spec.md)."""
    pointer = _pointer(file)
    return hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()


def _pointer(file: StoredFile) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\nsize {file.size}\n".encode()


def _segments(path: str) -> list[str] | None:
    """The parts of a path, decoded one by one; None where one of them leads elsewhere or is no text."""
    found = []
    for raw in path.removeprefix("/").split("/"):
        try:
            part = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            return None
        if part in ("", ".", "..") or "\\" in part or not part.isprintable():
            return None
        found.append(part)
    return found


def _api(offer: Offer, segments: Sequence[str], request: Request) -> Answer:
    """`/api/models…`. A repository has one part or two in its name; the longer one is looked for first."""
    try:
        query = parse_qs(request.query, keep_blank_values=True, max_num_fields=_FIELDS, errors="replace")
    except ValueError:
        return refuse(400, None, f"the query has more than {_FIELDS} fields")
    if not segments:
        return _listing(offer, query)
    for length in (2, 1):
        repository = offer.repositories.get("/".join(segments[:length]))
        if repository is not None and len(segments) >= length:
            return _of_repository(repository, segments[length:], query, request)
    return refuse(404, "RepoNotFound", "there is no repository of that name in this mirror")


def _of_repository(
    repository: Repository, segments: Sequence[str], query: Mapping[str, list[str]], request: Request
) -> Answer:
    what, *rest = segments or ["revision"]
    if what == "refs" and not rest:
        return _json_answer(_refs(repository))
    if what not in ("revision", "tree", "paths-info") or (what != "tree" and len(rest) > 1):
        return refuse(404, "EntryNotFound", "this mirror does not answer that")
    revision = rest[0] if rest else MAIN
    snapshot = repository.find(revision)
    if snapshot is None:
        return _no_revision(repository, revision)
    if what == "tree":
        return _tree(snapshot, "/".join(rest[1:]), is_recursive=_is_set(query, "recursive"))
    if what == "paths-info":
        return _paths(snapshot, request)
    return _json_answer(_info(repository, snapshot, with_blobs=_is_set(query, "blobs")))


def _is_set(query: Mapping[str, list[str]], name: str) -> bool:
    return query.get(name, [""])[0].lower() in ("true", "1")


def _no_revision(repository: Repository, revision: str) -> Answer:
    if revision == MAIN:
        commits = ", ".join(repository.snapshots)
        return refuse(404, "RevisionNotFound", f"its commits differ; name one of them as the revision: {commits}")
    return refuse(404, "RevisionNotFound", "this mirror has the repository, and not at that revision")


def _listing(offer: Offer, query: Mapping[str, list[str]]) -> Answer:
    author, search = query.get("author", [""])[0], query.get("search", [""])[0].lower()
    limit = query.get("limit", [""])[0]
    most = min(int(limit), _MOST) if limit.isdecimal() and len(limit) < 9 else _MOST
    tags = {tag for each in query.get("filter", []) for tag in each.split(",") if tag}
    found = []
    for repository in offer.repositories.values():
        snapshot = repository.main or next(iter(repository.snapshots.values()))
        is_meant = not author or repository.name.startswith(f"{author}/")
        if is_meant and search in repository.name.lower() and tags <= set(_tags(snapshot)):
            told = _info(repository, snapshot, with_blobs=False)
            if "full" not in query:
                del told["siblings"]
            found.append(told)
    return _json_answer(found[:most])


def _info(repository: Repository, snapshot: Snapshot, *, with_blobs: bool) -> dict[str, object]:
    licences = sorted({manifest.licence for manifest in snapshot.manifests if manifest.licence})
    told: dict[str, object] = {
        "_id": snapshot.commit[:24],
        "id": repository.name,
        "modelId": repository.name,
        "sha": snapshot.commit,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(snapshot),
        "siblings": [_sibling(file, with_blobs=with_blobs) for file in snapshot.files.values()],
        "usedStorage": sum({file.sha256: file.size for file in snapshot.files.values()}.values()),
    }
    if "/" in repository.name:
        told["author"] = repository.name.partition("/")[0]
    if licences:
        told["cardData"] = {"license": licences[0] if len(licences) == 1 else licences}
    return told


def _tags(snapshot: Snapshot) -> list[str]:
    formats = sorted({manifest.format for manifest in snapshot.manifests})
    licences = sorted({manifest.licence for manifest in snapshot.manifests if manifest.licence})
    return [*formats, *(f"license:{licence.lower()}" for licence in licences)]


def _sibling(file: StoredFile, *, with_blobs: bool) -> dict[str, object]:
    if not with_blobs:
        return {"rfilename": file.name}
    lfs = {"sha256": file.sha256, "size": file.size, "pointerSize": len(_pointer(file))}
    return {"rfilename": file.name, "size": file.size, "blobId": blob_id(file), "lfs": lfs}


def _refs(repository: Repository) -> dict[str, object]:
    branches = []
    if repository.main is not None:
        branches.append({"name": MAIN, "ref": f"refs/heads/{MAIN}", "targetCommit": repository.main.commit})
    return {"branches": branches, "tags": [], "converts": []}


def _tree(snapshot: Snapshot, directory: str, *, is_recursive: bool) -> Answer:
    prefix = f"{directory}/" if directory else ""
    if directory in snapshot.files:
        return _json_answer([_entry(snapshot.files[directory])])
    inside = {name: file for name, file in snapshot.files.items() if name.startswith(prefix)}
    if not inside:
        return refuse(404, "EntryNotFound", "the repository has no such directory", commit=snapshot.commit)
    folders = [_folder(snapshot, folder) for folder in _folders(inside, prefix)]
    entries = [*folders, *map(_entry, inside.values())]
    if not is_recursive:
        entries = [entry for entry in entries if "/" not in str(entry["path"]).removeprefix(prefix)]
    return _json_answer(entries)


def _folders(names: Iterable[str], prefix: str = "") -> list[str]:
    """The directories that these files are in, below `prefix`."""
    found = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/" and at >= len(prefix)}
    return sorted(found)


def _paths(snapshot: Snapshot, request: Request) -> Answer:
    """Those of the paths in the body that are there."""
    asked = _asked_paths(request)
    if asked is None:
        return refuse(400, None, "`paths` is missing: a form or JSON with a list of them is expected")
    folders = set(_folders(snapshot.files))
    found = []
    for path in dict.fromkeys(asked):
        if path in snapshot.files:
            found.append(_entry(snapshot.files[path]))
        elif path in folders:
            found.append(_folder(snapshot, path))
    return _json_answer(found)


def _entry(file: StoredFile) -> dict[str, object]:
    lfs = {"oid": file.sha256, "size": file.size, "pointerSize": len(_pointer(file))}
    return {"type": "file", "path": file.name, "size": file.size, "oid": blob_id(file), "lfs": lfs}


def _folder(snapshot: Snapshot, folder: str) -> dict[str, object]:
    inside = [f"{name} {file.sha256}" for name, file in snapshot.files.items() if name.startswith(f"{folder}/")]
    oid = hashlib.sha1("\n".join(inside).encode(), usedforsecurity=False).hexdigest()
    return {"type": "directory", "path": folder, "size": 0, "oid": oid}


def _asked_paths(request: Request) -> list[str] | None:
    """The `paths` of a body, which is a form (huggingface_hub) or JSON (other clients)."""
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            value = json.loads(request.body)
            paths = value.get("paths") if isinstance(value, dict) else None
        else:
            paths = parse_qs(request.body.decode(), max_num_fields=100_000).get("paths")
    except (ValueError, RecursionError):
        return None
    paths = [paths] if isinstance(paths, str) else paths
    return paths if isinstance(paths, list) and all(isinstance(path, str) for path in paths) else None


def _resolve(offer: Offer, name: str, revision: str, path: str, request: Request) -> Answer:
    repository = offer.repositories.get(name)
    if repository is None:
        return refuse(404, "RepoNotFound", "there is no repository of that name in this mirror")
    snapshot = repository.find(revision)
    if snapshot is None:
        return _no_revision(repository, revision)
    file = snapshot.files.get(path)
    if file is None:
        message = "the repository has no such file in this mirror"
        return refuse(404, "EntryNotFound", message, commit=snapshot.commit)
    etag = f'"{file.sha256}"'
    headers = [
        ("etag", etag),
        ("x-repo-commit", snapshot.commit),
        ("x-linked-etag", etag),
        ("x-linked-size", str(file.size)),
        ("accept-ranges", "bytes"),
        ("cache-control", "no-cache"),
        ("content-type", "application/octet-stream"),
        ("content-disposition", f'inline; filename="{file.name.rpartition("/")[2]}"'),
        ("x-content-type-options", "nosniff"),
    ]
    if is_named(request.headers.get("if-none-match"), etag):
        return Answer(304, tuple(headers))
    has_range = request.method == "GET" and request.headers.get("if-range", etag) == etag
    asked = read_range(request.headers.get("range") if has_range else None, file.size)
    if asked is None:
        no_range, size = "the file has no such range; several at once are not served", f"bytes */{file.size}"
        return refuse(416, None, no_range, commit=snapshot.commit, content_range=size, etag=etag)
    status = 200 if isinstance(asked, Whole) else 206
    if status == 206:
        headers.append(("content-range", f"bytes {asked.start}-{asked.start + asked.length - 1}/{file.size}"))
    headers.append(("content-length", str(asked.length)))
    return Answer(status, tuple(headers), part=Part(repository.name, snapshot.commit, file, asked.start, asked.length))


def _lock(offer: Offer, request: Request) -> Answer:
    etag = f'"{hashlib.sha256(offer.lock).hexdigest()}"'
    headers = (("etag", etag), ("cache-control", "no-cache"))
    if is_named(request.headers.get("if-none-match"), etag):
        return Answer(304, headers)
    length = ("content-length", str(len(offer.lock)))
    return Answer(200, (*headers, ("content-type", "application/toml"), length), offer.lock)


def _json_answer(value: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, (("content-type", _JSON), ("content-length", str(len(body))), *headers), body)
