"""A gateway that asks for keys and keeps an audit log, before an engine given as a command line; for measurements."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.access import Access, Key, Limits
from serving.access.quota import UNLIMITED
from serving.engines.runtime import socket_in
from serving.settings import Settings

SOURCE = Path(__file__).parent.parent
NULL_UPSTREAM = (sys.executable, str(Path(__file__).parent / "peers" / "null_upstream.py"))
_GATEWAY = """
import json, sys
from pathlib import Path
from serving.engines.spec import EngineSpec
from serving.gateway.config import gateway_config
from serving.gateway.guard import open_guard
from serving.gateway.run import serve
from serving.settings import Settings
from serving.telemetry import logs
class Listener:
    def on_progress(self, *_): pass
    def on_ready(self, url): print(url, flush=True)
    def on_engine_event(self, text): print(text, file=sys.stderr)
    def on_drain(self): pass
given = json.loads(sys.argv[1])
settings = Settings(**given["settings"])
logs.setup("json", "warning")
spec = EngineSpec(given["model"], "llamacpp", tuple(given["argv"]), tuple(given["env"].items()), Path(given["socket"]))
with open_guard(settings) as guard:
    sys.exit(serve([spec], gateway_config(settings, given["concurrency"]), Listener(), guard=guard))
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A running gateway."""

    address: tuple[str, int]
    keys: tuple[str, ...]
    pid: int
    audit: Path


@contextlib.contextmanager
def site(
    directory: Path,
    argv: Sequence[str],
    *,
    model: str,
    keys: int,
    concurrency: int = 16,
    environment: dict[str, str] | None = None,
    limits: dict[str, int] | None = None,
    account: Limits = UNLIMITED,
    is_open: bool = False,
    more: dict[str, Any] | None = None,
) -> Iterator[Site]:
    """Serve with `keys` keys, each of an owner of its own and limited by `account`.

    The engine's command line gets `--uds`. `is_open`: no key is asked for, and no record is kept. `more`: further
    sections of the settings.
    """
    socket = socket_in(directory / "run", "engine")
    (directory / "run").mkdir(mode=0o700)
    given: dict[str, Any] = {
        "server": {"port": 0},
        "limits": limits or {},
        "access": {"open": is_open, "directory": str(directory / "access")},
        "audit": {
            "enabled": not is_open,
            "directory": str(directory / "audit"),
            "signing_key": str(directory / "audit-keys" / "signing.key"),
            "fingerprint_key": str(directory / "audit-keys" / "fingerprint.key"),
        },
        **(more or {}),
    }
    access = Access.open(Settings(**given).access, os.environ)
    made = tuple(access.create(Key("", f"owner-{number}", "key", b"", 0, limits=account))[1] for number in range(keys))
    access.close()
    start = {
        "settings": given,
        "argv": [*argv, "--uds", str(socket)],
        "env": {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCE), **(environment or {})},
        "socket": str(socket),
        "model": model,
        "concurrency": concurrency,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _GATEWAY, json.dumps(start)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        text=True,
    )
    try:
        url = process.stdout.readline().strip() if process.stdout else ""
        if not url:
            raise RuntimeError("the gateway did not start")
        host, _, port = url.partition("://")[2].partition(":")
        yield Site((host, int(port)), made, process.pid, directory / "audit")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
