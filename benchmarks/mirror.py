"""Bytes/s of `serve mirror` against nginx, one download and several at once, of a file in the page cache.

python -m benchmarks.mirror [--nginx nginx] [--gib 1] [--rounds 5]

Both send by sendfile(2) over loopback to the same clients, in turn. The processor time is the server's, per GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import described
from benchmarks.peers.compare import free_port
from serving.store.bring import Origin, bring_in, look_through
from serving.store.cas import Store

GIB = 1 << 30
PARALLEL = (1, 8)


def write_model(directory: Path, size: int) -> None:
    """Weights of `size` bytes, as far as their form goes."""
    directory.mkdir()
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    (directory / "config.json").write_text("{}")


@contextlib.contextmanager
def running(argv: list[str], port: int) -> Iterator[int]:
    """A server that listens on the port; its process id."""
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            threading.Event().wait(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def processor_s(pid: int) -> float:
    """Processor time of a process and of its children that run."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(entry.parent.name) == pid or int(fields[1]) == pid:
                total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def download(port: int, path: str, size: int, buffer: bytearray) -> None:
    """The whole file; its bytes are read and dropped. Raises RuntimeError where it is not all of it."""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
        got = 0
        while count := client.recv_into(buffer):
            got += count
        if got < size:
            raise RuntimeError(f"{got} bytes of {size}: {bytes(buffer[:200])!r}")


def measure(pid: int, port: int, path: str, size: int, parallel: int) -> dict[str, float]:
    """So many downloads at once: bytes/s of all together, and the server's processor time per GiB."""
    failed: list[Exception] = []

    def one() -> None:
        try:
            download(port, path, size, bytearray(1 << 20))
        except (OSError, RuntimeError) as error:
            failed.append(error)

    before, began = processor_s(pid), time.perf_counter()
    threads = [threading.Thread(target=one) for _ in range(parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failed:
        raise failed[0]
    gib = parallel * size / GIB
    return {"gib_per_s": gib / seconds, "processor_s_per_gib": (processor_s(pid) - before) / gib}


def main() -> None:
    """Both in turn, and the medians of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nginx", default=shutil.which("nginx") or "/usr/sbin/nginx")
    parser.add_argument("--gib", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        directory, size = Path(temporary), options.gib * GIB
        directory.chmod(0o755)
        write_model(directory / "big", size)
        store = Store(directory / "store")
        bring_in(store, look_through(directory / "big")[0], Origin("big", "noise", publishable=True))
        ports = {"mirror": free_port(), "nginx": free_port()}
        (directory / "serving.toml").write_text(f'[store]\ndirectory = "{store.root}"\n')
        (directory / "nginx.conf").write_text(
            f"user {pwd.getpwuid(os.getuid()).pw_name};\nworker_processes auto;\ndaemon off;\n"
            f"pid {directory}/pid;\nerror_log {directory}/error.log;\nevents {{}}\n"
            f"http {{ access_log {directory}/access.log; sendfile on; tcp_nopush on;\n"
            f"server {{ listen 127.0.0.1:{ports['nginx']}; root {directory}/big; }} }}\n"
        )
        mirror = [sys.executable, "-m", "serving", "mirror", "--open", "--config", str(directory / "serving.toml")]
        argv = {
            "mirror": [*mirror, "--port", str(ports["mirror"])],
            "nginx": [options.nginx, "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")],
        }
        paths = {"mirror": "/perimeter/big-noise/resolve/main/model.safetensors", "nginx": "/model.safetensors"}
        pids = {name: stack.enter_context(running(argv[name], ports[name])) for name in argv}
        result: dict[str, object] = {"what": "downloads from the page cache, against nginx", "gib": options.gib}
        for parallel in PARALLEL:
            kept: dict[str, list[dict[str, float]]] = {name: [] for name in argv}
            for at in range(options.rounds + 1):
                for name in sorted(argv, reverse=bool(at % 2)):
                    found = measure(pids[name], ports[name], paths[name], size, parallel)
                    if at:  # the first round hashes the file and fills the cache
                        kept[name].append(found)
            both = list(zip(kept["mirror"], kept["nginx"], strict=True))
            result[f"at_{parallel}"] = {
                "ratio_bytes_per_s": statistics.median(
                    ours["gib_per_s"] / theirs["gib_per_s"] for ours, theirs in both
                ),
                "ratio_processor_s": statistics.median(
                    ours["processor_s_per_gib"] / max(theirs["processor_s_per_gib"], 0.001) for ours, theirs in both
                ),
                **{
                    name: {key: statistics.median(one[key] for one in kept[name]) for key in kept[name][0]}
                    for name in argv
                },
            }
    print(json.dumps({**result, **described()}, indent=1))


if __name__ == "__main__":
    main()
