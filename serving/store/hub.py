"""`python -m serving.store.hub`: the one door to huggingface_hub, in a process of its own.

The order comes as one JSON object on stdin, the answer goes as one to stdout. So the library reads an environment that
was made for it, the token stands in no environment and on no command line, and a download can be ended at any moment:
what has come lies in its directory, and the next one goes on from there.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import resource
import signal
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.errors import FetchFailed, NoFitError, StartError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from huggingface_hub import HfApi

LOCK_PATH: Final = "/.well-known/perimeter/models.lock"
"""Where our own mirror publishes what it serves, to the byte."""
_MAX_LOCK: Final = 64 << 20
_MOST_MEMORY: Final = 1 << 30
"""Bytes that this process may hold: the library reads a description whole, however long a server makes it."""
_FULL: Final = (28, 122)  # ENOSPC, EDQUOT
_TIMEOUT_S: Final = 30.0
_AGAIN: Final = "what has come is kept: the same command goes on from there"
_ELSEWHERE: Final = f"{_AGAIN}; without a network `HF_ENDPOINT` names a mirror, and `serve models import` takes files"
_LIBRARIES: Final = frozenset({"huggingface_hub", "httpx2", "httpcore2", "httpx", "ssl"})
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Order:
    """What the process is asked to do."""

    do: str
    """`look` at a repository, or `fetch` files of it."""
    endpoint: str
    repo: str
    revision: str
    token: str | None = None
    ca_file: str | None = None
    directory: str = ""
    """Where fetched files go, under the names they have in the repository."""
    files: tuple[tuple[str, int], ...] = ()
    """Their names, and how many bytes each has."""
    workers: int = 8
    ordered_by: int = 0
    """The process that waits for the answer; without it nothing is done."""


def main() -> None:
    """Do what stdin asks, and answer on stdout; the exit status is 0 where an answer was given."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # whoever ordered is gone: nobody waits
    told = json.load(sys.stdin)
    order = Order(**{**told, "files": tuple((name, size) for name, size in told["files"])})
    if os.getppid() != order.ordered_by:
        sys.exit(1)
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    try:
        with _told_apart(order):
            answer = _look(order) if order.do == "look" else _fetch(order)
    except StartError as error:
        answer = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    json.dump(answer, sys.stdout)
    sys.stdout.flush()


def _api(order: Order) -> HfApi:
    import httpx2  # noqa: PLC0415 - with huggingface_hub, whose client it is
    from huggingface_hub import HfApi, set_client_factory  # noqa: PLC0415 - half a second, spent where it is used

    if order.ca_file:
        context = ssl.create_default_context(cafile=order.ca_file)
        set_client_factory(lambda: httpx2.Client(verify=context, follow_redirects=True, timeout=_TIMEOUT_S))
    return HfApi(endpoint=order.endpoint, token=order.token or False, library_name="perimeter")


def _look(order: Order) -> dict[str, Any]:
    """The commit that a revision stands for, its files with sizes and digests, and what a mirror of ours locked."""
    api = _api(order)
    info = api.model_info(order.repo, revision=order.revision, files_metadata=True, timeout=_TIMEOUT_S)
    files = [
        {
            "name": each.rfilename,
            "size": each.size,
            "sha256": each.lfs.sha256 if each.lfs is not None else None,
            "git_sha1": each.blob_id if each.lfs is None else None,
        }
        for each in info.siblings or ()
    ]
    card = getattr(info, "card_data", None)
    licence = card.get("license") if card is not None else None
    return {
        "commit": info.sha,
        "files": files,
        "licence": licence if isinstance(licence, str) else None,
        "lock": _mirrors_lock(order),
    }


def _mirrors_lock(order: Order) -> str | None:
    """The lock of a mirror of ours; None where the server is another's."""
    from huggingface_hub.utils._headers import build_hf_headers  # noqa: PLC0415 - as above
    from huggingface_hub.utils._http import get_session  # noqa: PLC0415 - as above

    if order.endpoint.rstrip("/") == "https://huggingface.co":
        return None
    headers = build_hf_headers(token=order.token or False)
    answer = get_session().get(order.endpoint.rstrip("/") + LOCK_PATH, headers=headers, timeout=_TIMEOUT_S)
    if answer.status_code != 200 or len(answer.content) > _MAX_LOCK:
        return None
    return str(answer.text)


class _TooMuch(Exception):
    """More came than was said."""


class _Bounded(io.FileIO):
    """A part of a download, gone on with at its end, that takes no more than it is to have."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path, "ab")
        self._most = most
        if self.tell() > most:
            self.truncate(0)
            self.seek(0)

    def write(self, data: ReadableBuffer, /) -> int:
        """Raises _TooMuch."""
        if self.tell() + len(memoryview(data)) > self._most:
            raise _TooMuch
        return super().write(data)


def _fetch(order: Order) -> dict[str, Any]:
    """Bring the files into the directory, several at a time; the first that fails ends it.

    The library's own way into a directory begins a file anew in every process (2.4); its transfer beneath goes on from
    where a part ends, so the parts are kept here.
    """
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - as above
    from huggingface_hub.file_download import http_get  # noqa: PLC0415
    from huggingface_hub.utils._headers import build_hf_headers  # noqa: PLC0415

    _api(order)
    headers = build_hf_headers(token=order.token or False, library_name="perimeter")

    def one(name: str, size: int) -> None:
        target = Path(order.directory) / name
        if target.exists() and target.stat().st_size == size:
            return
        part = target.with_name(f"{target.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        url = hf_hub_url(order.repo, name, revision=order.revision, endpoint=order.endpoint)
        try:
            with _Bounded(part, size) as file:
                http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=size)
        except _TooMuch:
            part.unlink()
            message = f"`{name}` of {_what(order)} is larger than the {size} bytes that it is said to have"
            raise FetchFailed(message, hint="tell whoever runs it") from None
        part.replace(target)

    with ThreadPoolExecutor(order.workers) as pool:
        pending = [pool.submit(one, name, size) for name, size in order.files]
        try:
            for done in as_completed(pending):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {"fetched": len(order.files)}


@contextlib.contextmanager
def _told_apart(order: Order) -> Iterator[None]:
    """The library's exceptions as ours. None of them may carry the token, so none of their texts is passed on whole."""
    from huggingface_hub import errors  # noqa: PLC0415 - as above

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _refused(error, order) from None
    except errors.LocalEntryNotFoundError as error:
        raise FetchFailed(f"{_what(order)} cannot be had: {_short(error, order)}", hint=_ELSEWHERE) from None
    except errors.EntryNotFoundError as error:
        raise FetchFailed(f"a file of {_what(order)} is not there: {_short(error, order)}", hint=_AGAIN) from None
    except errors.OfflineModeIsEnabled:
        raise FetchFailed(f"{_what(order)} is not asked: HF_HUB_OFFLINE is set", hint="unset it to pull") from None
    except OSError as error:
        if error.errno in _FULL:
            raise NoFitError(f"the disk of `{order.directory}` is full", hint=f"make room; {_AGAIN}") from None
        raise FetchFailed(f"{_what(order)} cannot be had: {_short(error, order)}", hint=_ELSEWHERE) from None
    except MemoryError:
        message = f"{_what(order)} describes itself in more than {_MOST_MEMORY >> 20} MiB"
        raise FetchFailed(message, hint="tell whoever runs it") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _LIBRARIES:
            raise
        raise FetchFailed(f"{_what(order)} cannot be had: {_short(error, order)}", hint=_ELSEWHERE) from None


def _refused(error: Exception, order: Order) -> FetchFailed:
    """What the server's refusal means."""
    from huggingface_hub import errors  # noqa: PLC0415 - as above

    if isinstance(error, errors.GatedRepoError):
        hint = "accept its terms there, and name a file with your token in store.token_file"
        return FetchFailed(f"{_what(order)} is given only to those who accepted its terms", hint=hint)
    if isinstance(error, errors.RevisionNotFoundError):
        return FetchFailed(f"{_what(order)} has no revision `{order.revision}`", hint="name one that it has")
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "see that it is written rightly; one that is not public needs store.token_file"
        return FetchFailed(f"{_what(order)} is not there, or not for this token", hint=hint)
    if isinstance(error, errors.EntryNotFoundError):
        return FetchFailed(f"a file of {_what(order)} is not there: {_short(error, order)}", hint=_AGAIN)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        hint = "ask whoever runs it for one that may; store.token_file names the file that it is in"
        return FetchFailed(f"{_what(order)} does not take this token (status {status})", hint=hint)
    return FetchFailed(f"{_what(order)} answered with status {status}", hint=_AGAIN)


def _what(order: Order) -> str:
    return f"`{order.repo}` at {order.endpoint}"


def _short(error: BaseException, order: Order) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return text.replace(order.token, "…") if order.token else text


if __name__ == "__main__":
    main()
