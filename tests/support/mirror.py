"""A store with models to hand on, `serve mirror` in front of it as a process, and the hub's real client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serving.store.bring import Origin, bring_in, look_through
from serving.store.cas import Store
from tests.support.harness import Answer, Client

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "serving/models/demo/hf"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_model(directory: Path, size: int) -> Path:
    """A directory that is a model by its form, with `size` bytes of noise as its weights; returns the weights."""
    directory.mkdir(parents=True, exist_ok=True)
    tensor = {"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    header = json.dumps(tensor).encode()
    weights = directory / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header + os.urandom(size))
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "README.md").write_text(f"{size} bytes of noise\n")
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling/config.json").write_text("{}")
    return weights


def bring(store: Store, directory: Path, origin: Origin) -> None:
    """Into the store, as an operator does it."""
    files, _ = look_through(directory)
    bring_in(store, files, origin)


@dataclass
class Mirror:
    """A running `serve mirror`."""

    process: subprocess.Popen[str]
    store: Store
    lines: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    log: list[dict] = field(default_factory=list)
    url: str = ""
    asked: int = 0
    key: str | None = None
    """What it is to be shown, unless a request shows something itself."""

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.partition("://")[2].rpartition(":")
        return host, int(port)

    def wait_for(self, event: str, within_s: float = 30.0, **facts: object) -> dict:
        """The next log line of that event with these facts."""
        deadline = time.monotonic() + within_s
        while True:
            line = self.lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            if line is None:
                raise AssertionError(f"the mirror ended with {self.process.wait()}: {self.log[-5:]}")
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                self.log.append(entry)
                if entry.get("event") == event and entry.items() >= facts.items():
                    return entry

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """One request on a connection of its own; the path goes out as it is."""
        client = Client(self.address)
        if self.key is not None:
            headers = {"authorization": f"Bearer {self.key}"} | headers
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        client.send(f"{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{named}\r\n".encode("latin-1"))
        try:
            status, answered = client.head()
            body = bytearray(client.buffer)
            while method != "HEAD" and len(body) < int(answered.get("content-length", "0")):
                data = client.socket.recv(1 << 20)
                if not data:
                    raise ConnectionError("the mirror broke off")
                body += data
            return Answer(status, answered, bytes(body or client.socket.recv(1)))
        finally:
            client.close()

    def seen(self, event: str = "download") -> list[dict]:
        """Every line of that event since the last time, of requests that have ended."""
        self.asked += 1
        before = len(self.log)
        self.ask(f"/mark-{self.asked}")
        self.wait_for("request", path=f"/mark-{self.asked}")
        return [entry for entry in self.log[before:] if entry["event"] == event]

    @property
    def health(self) -> dict:
        return self.ask("/health").json

    @property
    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon:")).split()[1])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(20)


@contextlib.contextmanager
def mirror(
    store: Store, directory: Path, port: int = 0, more: str = "", *, is_open: bool = True, **settings: object
) -> Iterator[Mirror]:
    """`serve mirror --json` in front of a store, ready; stopped at the end.

    `settings` are of `[mirror]`, `more` are further tables; `is_open`: with `--open`.
    """
    config = directory / "mirror.toml"
    table = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    config.write_text(f'[store]\ndirectory = "{store.root}"\n[log]\nlevel = "debug"\n[mirror]\n{table}{more}')
    argv = [sys.executable, "-m", "serving", "mirror", "--json", "--port", str(port), "--config", str(config)]
    argv += ["--open"] if is_open else []
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    running = Mirror(process, store)

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            running.lines.put(line)
        running.lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        running.url = str(running.wait_for("ready")["url"])
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(5)
        if process.stderr is not None:
            process.stderr.close()


def client_environment(url: str, home: Path, key: str | None = None) -> dict[str, str]:
    """What a client of the hub is told, and nothing of this process's own."""
    return ({} if key is None else {"HF_TOKEN": key}) | {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }


def hub(
    url: str,
    home: Path,
    code: str,
    *,
    python: str = sys.executable,
    timeout_s: float = 120.0,
    key: str | None = None,
) -> object:
    """What `code` leaves in `found`, run by a Python whose hub is the mirror. Raises AssertionError where it fails."""
    program = f"import json\nfrom huggingface_hub import *\nfrom huggingface_hub.errors import *\n{code}\n"
    program += "print('FOUND' + json.dumps(found))"
    done = subprocess.run(
        [python, "-c", program],
        env=client_environment(url, home, key),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("FOUND")[2])


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests_below(directory: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: sha256_of(directory / name) for name in names}
