"""`serve audit`, as it is typed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from serving.cli import run
from serving.cli.content import harmless
from serving.errors import AuditBroken, FileMissing, Untrusted, UsageError
from tests.support.audit_logs import files_of, lines_of, open_audit, places_in, public, rewritten, written_log
from tests.support.contents import keeping


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {"HOME": tmp_path, "XDG_STATE_HOME": tmp_path / "s", "XDG_CONFIG_HOME": tmp_path / "c"}.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def test_keys_are_made_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the settings have them, for this user alone; a second time is refused."""
    assert run(["audit", "keygen", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["signing_key"] == str(home / "c/perimeter/audit/signing.key")
    for name in ("signing_key", "fingerprint_key"):
        assert os.stat(told[name]).st_mode & 0o777 == 0o600  # noqa: PTH116
    assert run(["audit", "keygen"]) == UsageError.exit_status


def test_a_log_is_verified_offline(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its public key; what is wrong is on stdout with its place, and has a status of its own."""
    places = written_log(tmp_path)
    flags = ["--directory", str(places.directory), "--key", str(public(places))]
    assert run(["audit", "verify", *flags]) == 0
    out = capsys.readouterr().out
    assert "sound" in out
    assert "without an anchor it cannot be excluded" in out
    anchor = tmp_path / "anchor"
    anchor.write_bytes(b"".join(lines_of(places)))
    rewritten(places, lambda record: {**record, "principal": "else"} if "principal" in record else record)
    assert run(["audit", "verify", *flags]) == 0
    capsys.readouterr()
    assert run(["audit", "verify", *flags, "--anchor", str(anchor), "--json"]) == AuditBroken.exit_status
    told = json.loads(capsys.readouterr().out)
    assert not told["sound"]
    assert told["breaks"][0]["segment"] == 1
    assert run(["audit", "verify", *flags, "--anchor", str(tmp_path / "none")]) == FileMissing.exit_status
    assert run(["audit", "verify", "--key", str(public(places))]) == FileMissing.exit_status


def test_a_foreign_key_proves_nothing(tmp_path: Path, home: Path) -> None:
    """Checkpoints of a key that was not named are breaks."""
    places = written_log(tmp_path)
    other = places_in(tmp_path / "other")
    flags = ["--directory", str(places.directory), "--key", str(public(other))]
    assert run(["audit", "verify", *flags]) == AuditBroken.exit_status
    assert run(["audit", "verify", *flags, "--key", str(public(places))]) == 0


def test_records_are_shown_and_exported(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By kind, request and time; an export is the lines as they stand, and never overwrites."""
    places = written_log(tmp_path)
    there = ["--directory", str(places.directory)]
    assert run(["audit", "show", *there, "--request", "req-7", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [entry["record"]["kind"] for entry in shown] == ["intent", "outcome"]
    assert run(["audit", "show", *there, "--kind", "intent", "--last", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    since = shown[0]["at"]
    assert run(["audit", "show", *there, "--since", since, "--last", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["seq"] == shown[0]["seq"]
    assert run(["audit", "show", *there, "--since", "noon"]) == UsageError.exit_status
    output = tmp_path / "export"
    assert run(["audit", "export", *there, "-o", str(output)]) == 0
    assert output.read_bytes() == b"".join(path.read_bytes() for path in files_of(places))
    assert run(["audit", "export", *there, "-o", str(output)]) == UsageError.exit_status


def test_a_clients_words_steer_no_terminal(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a request calls itself."""
    places = places_in(tmp_path)
    audit = open_audit(places)
    audit.authentication_failed("\x1b[2J\u202eevil")
    audit.close()
    assert run(["audit", "show", "--directory", str(places.directory)]) == 0
    assert "\x1b" not in (out := capsys.readouterr().out)
    assert "\u202e" not in out


def test_content_is_listed_shown_and_erased(
    tmp_path: Path, home: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """With the auditor's key, and a reason that is recorded; mistakes are told before anything is."""
    key, config = tmp_path / "auditor.key", tmp_path / "site.toml"
    assert run(["audit", "content", "keygen", str(key)]) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert run(["audit", "content", "keygen", str(key)]) == UsageError.exit_status
    with keeping(tmp_path) as kept:
        contents = [kept.prompt(text, key=name).content for name, text in (("a", b"\x1b[2J one"), ("b", b"two"))]
    config.write_text(
        f'[audit]\ndirectory = "{kept.places.directory}"\nsigning_key = "{kept.places.signing_key}"\n'
        f'fingerprint_key = "{kept.places.fingerprint_key}"\n'
        f'[audit.content]\ndirectory = "{kept.directory}"\npublic_key = "{key}.pub"\n'
    )

    def serve(*words: str) -> tuple[int, bytes]:
        capsysbinary.readouterr()
        status = run(["audit", "content", *words, "--config", str(config)])
        return status, capsysbinary.readouterr().out

    assert serve("show", contents[0], "--key", str(key), "--reason", "x") == (0, b"\x1b[2J one")
    assert serve("show", contents[0], "--key", f"{key}.pub", "--reason", "x")[0] == Untrusted.exit_status
    assert serve("show", contents[0], "--key", str(key))[0] == UsageError.exit_status
    assert serve("show", "1-00", "--key", str(key), "--reason", "x")[0] == FileMissing.exit_status
    rows = serve("list")[1].decode().splitlines()
    assert len(rows) == 3
    assert "one" not in "".join(rows)
    assert len(serve("list", "--key-id", "a")[1].splitlines()) == 2
    assert serve("erase", "--reason", "x")[0] == UsageError.exit_status
    assert serve("erase", contents[0], "--key-id", "a", "--reason", "x")[0] == UsageError.exit_status
    assert serve("erase", "--before", "yesterday", "--reason", "x")[0] == UsageError.exit_status
    status, out = serve("erase", "--key-id", "a", "--reason", "a request of the person", "--json")
    assert (status, json.loads(out)) == (0, {"erased": [contents[0]]})
    assert serve("show", contents[0], "--key", str(key), "--reason", "x")[0] == FileMissing.exit_status
    assert serve("show", contents[1], "--key", str(key), "--reason", "x") == (0, b"two")
    capsysbinary.readouterr()
    assert run(["audit", "show", "--kind", "content-read", "--key", "b", "--json", "--config", str(config)]) == 0
    (entry,) = json.loads(capsysbinary.readouterr().out)
    assert entry["record"]["content"] == contents[1]


def test_content_on_a_terminal_steers_nothing() -> None:
    """Whatever a client or a model said."""
    assert harmless("a\x1b[2J\u202e\nb\tc") == "a\\x1b[2J\\u202e\nb\tc"
