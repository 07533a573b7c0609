"""Prompts and answers through the whole of `serve`: kept where a key is made so, and nowhere else."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest

from serving.audit.auditor import make_auditor
from serving.audit.keys import load_fingerprints
from tests.e2e.stack import ROOT, serve
from tests.e2e.test_keys import CANARY, Site, ask
from tests.support.harness import wait_until

REASON = "complaint 12"
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


def site_in(home: Path) -> Site:
    """A site that is not started yet, with an auditor's key."""
    made = Site(home)
    (home / "run").mkdir(mode=0o700)
    make_auditor(home / "auditor.key")
    made.write(f'[audit.content]\ndirectory = "{home / "content"}"\npublic_key = "{home}/auditor.key.pub"\n')
    return made


@pytest.fixture
def kept(tmp_path: Path) -> Site:
    return site_in(tmp_path)


def files_with(home: Path, words: bytes) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file() and words in path.read_bytes()]


def read(site: Site, content: str) -> str:
    key = str(site.directory / "auditor.key")
    return site.run("audit", "content", "show", content, "--key", key, "--reason", REASON)


def stop(site: Site) -> None:
    assert site.stack is not None
    site.stack.process.send_signal(signal.SIGTERM)
    assert site.stack.process.wait(30) == 0


def test_content_is_kept_for_the_auditor_of_a_key_that_is_made_so(kept: Site) -> None:
    """Of that key both parts, whole and streamed, come back as they went over the wire; of another key nothing.

    Each reading is in the log before; the server's own files read nothing; what was erased is gone and still verifies.
    """
    with serve(config=kept.config, is_open=False) as stack:
        kept.stack = stack
        plain, recorded = kept.key(), kept.key("--record-content")
        with kept.client(plain) as client:
            ask(client, f"{CANARY} plain")
        answers = kept.directory / "content"
        assert not list(answers.glob("*.sealed"))
        with kept.client(recorded) as client:
            said = ask(client, f"{CANARY} one")
            events = list(
                client.chat.completions.create(
                    model="demo",
                    messages=[{"role": "user", "content": f"{CANARY} two"}],
                    max_tokens=16,
                    temperature=0,
                    stream=True,
                )
            )
        streamed = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
        wait_until(lambda: len(kept.records("outcome")) == 3, "all outcomes are on record")
        assert not files_with(kept.directory, CANARY.encode())
        assert not files_with(kept.directory, said.encode())
        intents, outcomes = kept.records("intent"), kept.records("outcome")
        assert ["content" in record for record in intents] == [False, True, True]
        assert ["content" in record for record in outcomes] == [False, True, True]
        assert json.loads(read(kept, intents[1]["content"]))["messages"][0]["content"] == f"{CANARY} one"
        assert json.loads(read(kept, outcomes[1]["content"]))["choices"][0]["message"]["content"] == said
        lines = read(kept, outcomes[2]["content"]).splitlines()
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks) == streamed
        assert lines[-1] == "data: [DONE]" or lines[-2] == "data: [DONE]"
        readings = kept.records("content-read")
        assert len(readings) == 3
        assert {(each["reason"], each["by"].split(" (")[0]) for each in readings} == {(REASON, f"uid {os.getuid()}")}
        shown = json.loads(kept.run("audit", "content", "list", "--json"))
        assert [each["kind"] for each in shown] == ["prompt", "answer"] * 2
        kept.run("audit", "content", "erase", intents[1]["content"], "--reason", REASON)
        key = str(kept.directory / "auditor.key")
        words = ("audit", "content", "show", intents[1]["content"], "--key", key, "--reason", REASON)
        kept.run(*words, status=4)
        kept.run("audit", "verify", "--content", str(kept.directory / "content"))
        stop(kept)
    # Where no server runs, its user does the server's part.
    assert json.loads(read(kept, intents[2]["content"]))["messages"][0]["content"] == f"{CANARY} two"
    assert kept.run("audit", "content", "erase", "--key-id", recorded.split("_")[1], "--reason", REASON) == ""
    kept.run("audit", "verify", "--content", str(kept.directory / "content"))
    assert [len(each["contents"]) for each in kept.records("content-erased")] == [1, 3]
    shown = json.loads(kept.run("audit", "content", "list", "--json"))
    assert all(each["is_erased"] for each in shown)


def test_an_answers_fingerprint_is_made_again_from_what_a_client_kept(kept: Site) -> None:
    """Of the body as it was sent, whole or streamed, without the transfer's framing; of errors too."""
    with serve(config=kept.config, is_open=False) as stack:
        kept.stack = stack
        keys = [kept.key(), kept.key("--record-content")]
        bodies = []
        for key in keys:
            for more in ({}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}):
                bodies.append(post(kept, key, {"model": "demo", "prompt": "one two", "max_tokens": 30, **more}))
            bodies.append(post(kept, key, {"model": "demo", "prompt": "x" * 100_000}))
        wait_until(lambda: len(kept.records("outcome")) == len(bodies), "all outcomes are on record")
        fingerprints = load_fingerprints(kept.directory / "audit-keys" / "fingerprint.key")
        assert [record["answer"] for record in kept.records("outcome")] == [
            fingerprints.of("answer", body) for body in bodies
        ]
        recorded = [record["content"] for record in kept.records("outcome") if "content" in record]
        assert [read(kept, content) for content in recorded] == [body.decode().strip() for body in bodies[4:]]


def post(site: Site, key: str, body: dict) -> bytes:
    """The body of the answer, as HTTP has it."""
    where = urlsplit(site.stack.url if site.stack else "")
    with contextlib.closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)) as connection:
        head = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), head)
        return connection.getresponse().read()


def test_an_answer_that_was_broken_off_is_kept_as_far_as_it_went(kept: Site) -> None:
    """The client left in the midst of a stream: what was relayed is there, and its outcome says cancelled."""
    with serve(config=kept.config, is_open=False) as stack:
        kept.stack = stack
        with kept.client(kept.key("--record-content")) as client:
            events = client.completions.create(
                model="demo", prompt="x", max_tokens=3000, stream=True, extra_body={"ignore_eos": True}
            )
            heard = [next(iter(events)).choices[0].text for _ in range(5)]
            events.close()
        wait_until(lambda: len(kept.records("outcome")) == 1, "the outcome is on record")
        (outcome,) = kept.records("outcome")
        assert outcome["outcome"] == "cancelled"
        chunks = [json.loads(line[6:]) for line in read(kept, outcome["content"]).splitlines() if line]
        assert [each["choices"][0]["text"] for each in chunks][:5] == heard
        assert len(chunks) < 3000


@pytest.mark.parametrize("on_failure", ["refuse", "serve"])
def test_while_content_cannot_be_written(kept: Site, on_failure: str) -> None:
    """Its key's requests are refused, or served and marked, as the settings want it; other keys' are served."""
    kept.config.write_text(kept.config.read_text().replace("[audit]\n", f'[audit]\non_failure = "{on_failure}"\n'))
    with serve(config=kept.config, is_open=False) as stack:
        kept.stack = stack
        plain, recorded = kept.key(), kept.key("--record-content")
        keys, away = kept.directory / "content" / "keys", kept.directory / "away"
        keys.rename(away)
        with kept.client(recorded) as client, kept.client(plain) as other:
            if on_failure == "refuse":
                with pytest.raises(openai.InternalServerError) as refused:
                    ask(client, CANARY)
                assert (refused.value.status_code, refused.value.code) == (503, "audit_unwritable")
                assert not kept.records("intent")
            else:
                ask(client, CANARY)
                wait_until(lambda: len(kept.records("outcome")) == 1, "the outcome is on record")
                assert [kept.records(kind)[0]["content_lost"] for kind in ("intent", "outcome")] == [True, True]
            ask(other, CANARY)
            away.rename(keys)

            def is_kept() -> bool:
                with contextlib.suppress(openai.APIStatusError):
                    ask(client, CANARY)
                return "content" in kept.records("intent")[-1]

            wait_until(is_kept, "it can be written again")
        assert not files_with(kept.directory, CANARY.encode())
        stop(kept)
    assert kept.run("audit", "verify", "--content", str(kept.directory / "content"))


def test_no_key_without_a_place_for_its_content(kept: Site) -> None:
    """It is not made where nobody is named who may read; and the server does not start where there is one."""
    key = kept.key("--record-content")
    kept.write()
    kept.run("keys", "create", "--owner", "x", "--record-content", status=8)
    done = subprocess.run(
        [sys.executable, "-m", "serving", "--model", "demo", "--port", "0", "--config", str(kept.config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 8, done.stderr
    assert f"keys revoke {key.split('_')[1]}" in done.stderr


AS_ANOTHER = """
import contextlib, importlib, os, pkgutil, sys
import cryptography.hazmat.primitives, encodings.idna, rich, serving.access, serving.audit, serving.cli, typer
for package in (cryptography.hazmat.primitives, rich, serving.access, serving.audit, serving.cli, typer):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(module.name)
os.chdir("/")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(serving.cli.run(sys.argv[1:]))
"""


def as_another(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as a user who is not the server's, with what this user has imported before."""
    return subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, *words, "--config", str(site.config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_root
def test_an_auditor_who_is_not_the_operator() -> None:
    """Of the directories' group: reads through the server alone, and is named; cannot take the wrapped keys."""
    # Not in pytest's directory: that is its user's alone.
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        kept, key = site_in(home), home / "auditor.key"
        home.chmod(0o755)
        for name in ("audit", "content"):
            (home / name).mkdir(mode=0o750)
            os.chown(home / name, -1, 65534)
        os.chown(key, 65534, 65534)
        kept.config.chmod(0o644)
        with serve(config=kept.config, is_open=False) as stack:
            kept.stack = stack
            with kept.client(kept.key("--record-content")) as client:
                ask(client, CANARY)
            wait_until(lambda: len(kept.records("outcome")) == 1, "the outcome is on record")
            (intent,) = kept.records("intent")
            words = ("audit", "content", "show", intent["content"], "--key", str(key), "--reason", REASON)
            done = as_another(kept, *words)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["messages"][0]["content"] == CANARY
            (reading,) = kept.records("content-read")
            assert reading["by"].startswith("uid 65534")
            public = home / "verifier.pub"
            public.write_bytes((home / "audit-keys" / "signing.key.pub").read_bytes())
            public.chmod(0o644)
            verified = as_another(kept, "audit", "verify", "--content", str(home / "content"), "--key", str(public))
            assert verified.returncode == 0, verified.stderr
            assert "may not read the wrapped keys" in verified.stdout
            stop(kept)
        done = as_another(kept, *words)
        assert done.returncode == 19, done.stderr
        assert "no server runs" in done.stderr
        assert len(kept.records("content-read")) == 1
