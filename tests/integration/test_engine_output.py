"""Where it goes what an engine says beside its answers: into a file that only this user may read, and nowhere else."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from tests.support.harness import Gateway, gateway, wait_until

MOST = 4 << 20


def logs_of(directory: Path) -> list[Path]:
    return sorted((directory / "run").glob("**/engine*.log*"))


def mutter(served: Gateway, word: str, kib: int, then: str = "done") -> tuple[int, bytes]:
    answer = served.chat(f"{word} mutters={kib} tokens=1 then={then}", stream=True)
    return answer.status, answer.body


def test_what_an_engine_says_is_in_a_bounded_file_of_this_users(directory: Path) -> None:
    """Ten megabytes with a prompt in them, over two lives: two files of at most four, mode 0600; no word elsewhere."""
    word = secrets.token_hex(12)
    with gateway(directory) as served:
        told = []
        for number in range(60):
            then = "die" if number == 30 else "done"
            wait_until(lambda: served.get("/ready").status == 200, "the engine is ready")
            told.append(mutter(served, word, 180, then))
            for path in logs_of(directory):
                assert path.stat().st_size <= MOST
        metrics = served.get("/metrics").body
        found = logs_of(directory)
        assert [path.name for path in found] == ["engine.log", "engine.log.1"]
        assert sum(path.stat().st_size for path in found) > MOST
        for path in found:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert path.stat().st_uid == os.getuid()
            assert word.encode() in path.read_bytes()
    assert all(word.encode() not in body for _, body in told)
    assert word.encode() not in metrics
    assert word not in served.errors
    assert word not in str(served.heard)


def test_the_last_words_of_an_engine_that_served_stay_in_its_log(directory: Path) -> None:
    """It is given up on with a code and the log's name: what it said may be what it was asked."""
    word = secrets.token_hex(12)
    restart = {"max_crashes": 2, "window_s": 60.0, "backoff_s": 0.05, "backoff_max_s": 0.05}
    with gateway(directory, restart=restart) as served:
        for _ in range(20):
            if served.process.poll() is not None:
                break
            try:
                wait_until(lambda: served.get("/ready").status == 200, "the engine is ready", 5)
                status, body = mutter(served, word, 1, "die")
            except (ConnectionError, AssertionError):
                break
            assert status in {200, 503}  # it may not be known yet that it died
            assert word.encode() not in body
        assert served.process.wait(20) != 0
        assert "the whole log is" in served.errors
        assert word not in served.errors
        assert word not in str(served.heard)
    (kept,) = logs_of(directory)
    assert word.encode() in kept.read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
