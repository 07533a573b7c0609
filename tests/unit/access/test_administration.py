"""Keys are made, listed, rotated and revoked: over the socket of a server, or on the database where none runs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.access import Access
from serving.access.administration import OPERATIONS, administered, ask
from serving.audit.auditor import make_auditor
from serving.audit.records import KeyChanged, Record
from serving.cli import run
from serving.errors import (
    AddressUnavailable,
    BadSettings,
    FileMissing,
    InvalidRequest,
    ServingError,
    StartError,
    UsageError,
)
from serving.settings import Access as AccessSettings
from tests.support.harness import wait_until

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
BOOK = 'version = 1\ncurrency = "EUR"\n[[prices]]\nfrom = 2026-01-01\ninput = 1\noutput = 1\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "prices.toml").write_text(BOOK)
    path = tmp_path / "serving.toml"
    path.write_text(f'[access]\ndirectory = "{tmp_path / "a"}"\nprice_book = "{tmp_path / "prices.toml"}"\n')
    return path


@pytest.fixture
def settings(tmp_path: Path) -> AccessSettings:
    (tmp_path / "prices.toml").write_text(BOOK)
    return AccessSettings(directory=tmp_path / "a", price_book=tmp_path / "prices.toml")


def serve(capsys: pytest.CaptureFixture[str], config: Path, *arguments: str) -> tuple[int, str, str]:
    status = run(["keys", *arguments, "--config", str(config)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_keys_life_without_a_server(config: Path, settings: AccessSettings, capsys) -> None:
    """Made, listed, rotated, revoked; its text is on stdout alone, and once."""
    arguments = ["--owner", "ward 3", "--model", "demo", "--network", "10.0.0.0/8", "--expires", "90d"]
    arguments += [
        "--requests-per-minute",
        "5",
        "--budget-per-day",
        "12.50",
        "--scope",
        "inference",
        "--scope",
        "metrics",
    ]
    status, text, said = serve(capsys, config, "create", *arguments)
    assert status == 0
    assert text.startswith("pk_")
    assert text.count("\n") == 1
    assert text.strip() not in said
    assert "once" in said
    key_id = text.split("_")[1]
    _, listed, _ = serve(capsys, config, "list", "--json")
    (key,) = json.loads(listed)["keys"]
    assert (key["id"], key["owner"], key["limits"]["cost_per_day"]) == (key_id, "ward 3", 12_500_000)
    assert (key["scopes"], key["models"], key["networks"]) == (["inference", "metrics"], ["demo"], ["10.0.0.0/8"])
    assert text.split("_")[2].strip() not in listed
    assert abs(key["expires"] - datetime.now(UTC).timestamp() - 90 * 86_400) < 100
    _, rows, _ = serve(capsys, config, "list")
    assert "cost_per_day ≤ 12.50" in rows
    status, new, said = serve(capsys, config, "rotate", key_id, "--grace", "0m")
    assert new.startswith("pk_")
    assert "valid until" in said
    status, out, said = serve(capsys, config, "revoke", new.split("_")[1])
    assert (status, out) == (0, "")
    assert "revoked" in said
    _, rows, _ = serve(capsys, config, "list")
    assert "replaced" in rows
    assert "revoked" in rows
    access = Access.open(settings, {})
    with pytest.raises(Exception, match="was replaced"):
        access.authenticate([(b"authorization", b"Bearer " + text.strip().encode())], "10.1.1.1", "inference")
    access.close()


def test_a_key_is_changed_and_what_is_not_named_stays(config: Path, tmp_path: Path, capsys) -> None:
    """Each right by the name that it was made with; `--unset` takes one away; both are on record, by whose hand."""
    keys = f'signing_key = "{tmp_path / "s.key"}"\nfingerprint_key = "{tmp_path / "f.key"}"\n'
    config.write_text(f'{config.read_text()}[audit]\ndirectory = "{tmp_path / "log"}"\n{keys}')
    made = ("create", "--owner", "me", "--model", "demo", "--requests-per-minute", "5", "--expires", "90d")
    key_id = serve(capsys, config, *made)[1].split("_")[1]
    _, listed, _ = serve(capsys, config, "list", "--json")
    before = json.loads(listed)["keys"][0]
    more = ("--requests-per-minute", "6", "--budget", "2.5", "--network", "10.0.0.0/8", "--scope", "metrics")
    status, out, said = serve(capsys, config, "change", key_id, *more, "--unset", "model")
    assert (status, out) == (0, "")
    assert "is changed" in said
    _, listed, _ = serve(capsys, config, "list", "--json")
    (after,) = json.loads(listed)["keys"]
    other = {"models": None, "networks": ["10.0.0.0/8"], "scopes": ["metrics"]}
    assert after == before | other | {"limits": before["limits"] | {"requests_per_minute": 6, "cost_in_all": 2_500_000}}
    unset = ("--unset", "network", "--unset", "expires", "--unset", "--requests-per-minute", "--unset", "budget")
    _, told, _ = serve(capsys, config, "change", key_id, *unset, "--json")
    assert json.loads(told) == before | {"models": None, "scopes": ["metrics"], "expires": None} | {
        "limits": dict.fromkeys(before["limits"])
    }
    for arguments in (("--unset", "expires"), ("--expires", "2020-01-01")):
        status, _, said = serve(capsys, config, "change", key_id, *arguments)
        assert status == 2, said
    run(["audit", "show", "--kind", "key-changed", "--json", "--config", str(config)])
    records = [entry["record"] for entry in json.loads(capsys.readouterr().out)]
    assert [record["key"] for record in records] == [key_id, key_id]
    assert all(record["by"].startswith(f"uid {os.getuid()}") for record in records)
    assert "requests_per_minute: 5 -> 6" in records[0]["changes"]
    assert "models: demo -> none" in records[0]["changes"]
    assert "cost_in_all: 2500000 -> none" in records[1]["changes"]


def test_who_enrols_a_key_is_told_what_is_not_remembered(config: Path, capsys) -> None:
    """By the name of the cache domain; who does not is told nothing of it."""
    _, text, said = serve(capsys, config, "create", "--owner", "me", "--class", "drafting", "--residency", "eu")
    assert "what was said in `me` before" in said
    assert text.startswith("pk_")
    _, text, said = serve(capsys, config, "create", "--owner", "me", "--cache-domain", "ward")
    assert "what was said" not in said
    key_id = text.split("_")[1]
    assert "what was said in `ward` before" in serve(capsys, config, "change", key_id, "--class", "drafting")[2]
    assert "what was said" not in serve(capsys, config, "change", key_id, "--unset", "class")[2]


def test_content_is_recorded_where_there_is_a_place_for_it(config: Path, tmp_path: Path, capsys) -> None:
    """The switch is shown, and a key in place of another has it too; without a place there is no such key."""
    wanted = ("create", "--owner", "me", "--record-content")
    status, out, said = serve(capsys, config, *wanted)
    assert (status, out) == (BadSettings.exit_status, "")
    assert "audit.content.public_key" in said
    make_auditor(tmp_path / "auditor.key")
    more = f'[audit]\nenabled = true\n[audit.content]\npublic_key = "{tmp_path / "auditor.key.pub"}"\n'
    config.write_text(config.read_text() + more)
    _, text, _ = serve(capsys, config, *wanted)
    serve(capsys, config, "create", "--owner", "me")
    assert serve(capsys, config, "rotate", text.split("_")[1])[0] == 0
    _, listed, _ = serve(capsys, config, "list", "--json")
    assert sorted(key["record_content"] for key in json.loads(listed)["keys"]) == [False, True, True]
    _, rows, _ = serve(capsys, config, "list")
    assert rows.count("content is recorded") == 2


def test_usage_is_shown_by_key_and_model(config: Path, settings: AccessSettings, capsys) -> None:
    """In the currency of the price book."""
    _, text, _ = serve(capsys, config, "create", "--owner", "me", "--budget", "100")
    access = Access.open(settings, {})
    principal = access.authenticate([(b"authorization", b"Bearer " + text.strip().encode())], None, "inference")
    access.reserve(principal, model="demo", engine="e", prompt=500_000, answer=1_000_000).stand()
    access.close()
    status, rows, said = serve(capsys, config, "usage")
    assert status == 0
    assert "1.50 EUR" in rows
    assert "from " in said
    today = datetime.now(UTC).date().isoformat()
    _, told, _ = serve(capsys, config, "usage", text.split("_")[1], "--since", today, "--json")
    assert json.loads(told)["usage"][0]["output"] == 1_000_000
    _, told, _ = serve(capsys, config, "usage", "--before", today, "--since", "2026-01-01", "--json")
    assert json.loads(told)["usage"] == []


def test_usage_says_from_when_on_it_is_whole(config: Path, settings: AccessSettings, capsys) -> None:
    """Once lines have gone, as `access.usage_retention_days` wants it; before, nothing is said of it."""
    now_ns = time.time_ns()
    _, text, _ = serve(capsys, config, "create", "--owner", "me")
    access = Access.open(settings, {}, lambda: now_ns - 100 * 86_400 * 10**9)
    principal = access.authenticate([(b"authorization", b"Bearer " + text.strip().encode())], None, "inference")
    access.reserve(principal, model="demo", engine="e", prompt=1, answer=1).stand()
    access.close()
    assert "kept from" not in serve(capsys, config, "usage")[2]
    keeping = settings.model_copy(update={"usage_retention_days": 10})
    access = Access.open(keeping, {})
    wait_until(lambda: access.usage_from is not None, "the line is removed")
    access.close()
    _, told, _ = serve(capsys, config, "usage", "--since", "2020-01-01", "--json")
    found = json.loads(told)
    assert found["usage"] == []
    assert abs(found["complete_from"] - (now_ns // 10**9 - 100 * 86_400)) <= 1
    assert "kept from" in serve(capsys, config, "usage")[2]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["create", "--owner", "me", "--network", "10.0.0.0/33"], 2, "networks"),
        (["create", "--owner", "me", "--budget", "lots"], 2, "no amount of money"),
        (["create", "--owner", "me", "--expires", "soon"], 2, "--expires soon"),
        (["create", "--owner", "me", "--expires", "2020-01-01"], 2, "expired already"),
        (["create", "--owner", ""], 2, "owner"),
        (["create", "--owner", "a\nb"], 2, "owner"),
        (["create", "--owner", "me", "--scope", "everything"], 2, "everything"),
        (["rotate", "nobody"], 4, "`nobody`"),
        (["rotate", "nobody", "--grace", "long"], 2, "--grace long"),
        (["revoke", "no such"], 2, "`id`"),
        (["change", "nobody", "--concurrency", "1"], 4, "`nobody`"),
        (["change", "nobody", "--unset", "owner"], 2, "--unset owner"),
        (["change", "nobody", "--unset", "budget", "--budget", "1"], 2, "both set and unset"),
        (["change", "nobody", "--network", "10.0.0.0/33"], 2, "networks"),
        (["usage", "--since", "yesterday"], 2, "--since yesterday"),
    ],
)
def test_mistakes_are_told(config: Path, capsys, arguments: list[str], status: int, said: str) -> None:
    """Each with its status, what it was about, and nothing on stdout."""
    found, out, error = serve(capsys, config, *arguments)
    assert (found, out) == (status, "")
    assert said in error


async def test_a_server_is_asked_where_one_runs(settings: AccessSettings) -> None:
    """The key works in it at once, and errors are the same as without one; a second process cannot go past it."""
    access = Access.open(settings, {})
    async with administered(access, settings.directory) as path:
        assert path.stat().st_mode & 0o777 == 0o600
        made = await asyncio.to_thread(ask, settings, {}, "create", {"owner": "me", "name": "n"})
        assert access.authenticate([(b"authorization", b"Bearer " + made["key"].encode())], None, "inference")
        listed = await asyncio.to_thread(ask, settings, {}, "list", {})
        assert [key["id"] for key in listed["keys"]] == [made["id"]]
        for operation, body, error in (
            ("rotate", {"id": "nobody"}, FileMissing),
            ("create", {"owner": "me", "name": "n", "more": 1}, InvalidRequest),
            ("create", {"owner": "me", "name": "n", "expires": 5}, UsageError),
            ("usage", {"since": "5"}, InvalidRequest),
        ):
            with pytest.raises(ServingError) as raised:
                await asyncio.to_thread(ask, settings, {}, operation, body)
            assert raised.value.code == error.code
        acts: list[Record] = []
        access.on_act(acts.append)
        wanted = {"id": made["id"], "limits": {"concurrency": 3}}
        told = await asyncio.to_thread(ask, settings, {}, "change", wanted)
        assert told["limits"]["concurrency"] == access.find(made["id"]).limits.concurrency == 3
        (act,) = acts
        assert isinstance(act, KeyChanged)
        assert act.by.startswith(f"uid {os.getuid()}")
        ended: list[str] = []
        access.on_revoked(ended.append)
        await asyncio.to_thread(ask, settings, {}, "revoke", {"id": made["id"]})
        assert ended == [made["id"]]
    assert not path.exists()
    with pytest.raises(StartError, match="another process"):
        await asyncio.to_thread(ask, settings, {}, "list", {})
    access.close()


async def test_a_socket_that_was_left_behind_is_no_server(settings: AccessSettings) -> None:
    """After a kill the command works on the database, and the next server takes the socket's place."""
    access = Access.open(settings, {})
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(settings.directory / "admin.sock"))
    left.close()
    access.close()
    assert ask(settings, {}, "list", {})["keys"] == []
    access = Access.open(settings, {})
    async with administered(access, settings.directory):
        assert (await asyncio.to_thread(ask, settings, {}, "list", {}))["keys"] == []
    access.close()


@needs_root
async def test_nobody_else_is_served(settings: AccessSettings, tmp_path: Path) -> None:
    """Another user's connection ends before a byte of it is read, even where the modes would let it in."""
    access = Access.open(settings, {})
    async with administered(access, settings.directory) as path:
        opened = [path, *path.parents][: len(path.parents) - len(Path("/tmp").parents)]
        before = {each: each.stat().st_mode for each in opened}
        for each in opened:
            each.chmod(0o777)
        code = (
            "import os, socket, sys\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX); s.settimeout(10)\n"
            "s.connect(sys.argv[1])\n"
            "try:\n    s.sendall(b'POST /list HTTP/1.1\\r\\nhost: a\\r\\ncontent-length: 2\\r\\n\\r\\n{}')\n"
            "    print(s.recv(9))\n"
            "except ConnectionError: print(b'')"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, path, stdout=subprocess.PIPE)
        said, _ = await process.communicate()
        for each, mode in before.items():
            each.chmod(mode & 0o7777)
    access.close()
    assert said == b"b''\n"


async def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    """With the setting that mends it."""
    settings = AccessSettings(directory=tmp_path / ("d" * 100))
    access = Access.open(settings, {})
    with pytest.raises(AddressUnavailable, match="too long"):
        async with administered(access, settings.directory):
            pass
    access.close()


def test_the_operations_are_those_of_the_command() -> None:
    """Nothing can be asked of the socket that the command line does not offer."""
    assert set(OPERATIONS) == {"create", "list", "rotate", "change", "revoke", "usage"}
