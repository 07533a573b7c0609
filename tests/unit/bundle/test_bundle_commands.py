"""`serve bundle` and `serve trust`, from a store to another one."""

from __future__ import annotations

import json
import os
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from serving.cli import run
from serving.cli.runtime import catalogue_of, open_store
from serving.keyfiles import make_pair
from serving.settings import load_settings
from serving.store.bring import Origin, bring_in, look_through
from tests.support.bundles import ANY, PLATFORM, PYTHON, sha256, wheel
from tests.support.gguf_bytes import tiny

LICENCE = "Do as you like with it.\n"


class Desk:
    """A publisher's directory, with a store, a key, a licence and a wheelhouse."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._monkeypatch, self._capsys = root, monkeypatch, capsys
        self.bundle = root / "bundle.tar"
        self.at("publisher")
        directory = root / "weights"
        directory.mkdir()
        tiny().write(directory / "small.gguf")
        store = open_store(load_settings(), os.environ)
        for variant in ("f16", "q8_0"):
            bring_in(store, look_through(directory)[0], Origin("small", variant, licence="MIT"))
        self.publisher = make_pair(root / "key")
        (root / "LICENSE").write_text(LICENCE)
        house = root / "house"
        house.mkdir()
        (house / ANY).write_bytes(wheel())
        (house / "perimeter_serving-0.1.0-py3-none-any.whl").write_bytes(wheel("perimeter_serving", "0.1.0"))
        (root / "base.lock").write_text(f"small-thing==1.0 --hash=sha256:{sha256(wheel())}\n")

    def at(self, host: str) -> None:
        """From here on this is that host."""
        self._monkeypatch.setenv("HOME", str(self.root / host))
        for name in ("DATA", "CONFIG", "CACHE"):
            self._monkeypatch.delenv(f"XDG_{name}_HOME", raising=False)

    def serve(self, *arguments: str) -> tuple[int, str, str]:
        """Status, stdout and stderr of `serve` with these arguments."""
        status = run(list(arguments))
        out, err = self._capsys.readouterr()
        return status, out, err

    def create(self, *more: str) -> tuple[int, str, str]:
        licence = f"small={self.root / 'LICENSE'}"
        return self.serve(
            "bundle",
            "create",
            "small",
            "-o",
            str(self.bundle),
            "--key",
            str(self.root / "key"),
            "--licence",
            licence,
            *more,
        )

    def create_with_wheels(self) -> tuple[int, str, str]:
        house, lock = str(self.root / "house"), str(self.root / "base.lock")
        target = ("--platform", PLATFORM, "--python", PYTHON)
        return self.create("--wheels", "base", "--wheelhouse", house, "--lock", lock, *target)

    def enrol(self) -> None:
        status, _, err = self.serve(
            "trust", "add", str(self.root / "key.pub"), "--fingerprint", self.publisher.fingerprint
        )
        assert status == 0, err


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_from_one_host_to_another(desk: Desk) -> None:
    """Made here, enrolled, inspected and installed there: the same manifests, and a catalogue that names them."""
    status, _, err = desk.create_with_wheels()
    assert status == 0, err
    assert "your signature answers for it" in err
    here = open_store(load_settings(), os.environ)
    desk.at("host")
    status, out, err = desk.serve("bundle", "inspect", str(desk.bundle))
    assert status == 19
    assert "NOBODY WHO IS ENROLLED" in out
    assert desk.serve("bundle", "install", str(desk.bundle))[0] == 19
    assert not (desk.root / "host" / ".local").exists()
    desk.enrol()
    status, out, err = desk.serve("bundle", "inspect", "--full", "--json", str(desk.bundle))
    assert status == 0, err
    told = json.loads(out)
    assert (told["signed_by"], told["serial"], told["every_digest_compared"]) == ("key", 1, True)
    assert not (desk.root / "host" / ".local").exists()
    status, _, err = desk.serve("bundle", "install", str(desk.bundle))
    assert status == 0, err
    there = open_store(load_settings(), os.environ)
    assert there.root != here.root
    assert there.manifests() == here.manifests()
    assert there.lock() == here.lock()
    model = catalogue_of(load_settings(), os.environ).find("small")
    assert sorted(variant.name for variant in model.variants if variant.path) == ["f16", "q8_0"]
    papers = next((there.bundles / "installed").iterdir())
    assert (papers / "licences/small/LICENSE").read_text() == LICENCE
    assert sorted(path.name for path in (papers / "wheels").glob("*.whl")) == [
        "perimeter_serving-0.1.0-py3-none-any.whl",
        ANY,
    ]


def test_a_model_without_a_licence_does_not_travel(desk: Desk) -> None:
    """It is refused by its name; a text of none is no licence."""
    bare = ("bundle", "create", "small:f16", "-o", str(desk.bundle))
    status, _, err = desk.serve(*bare)
    assert status == 4
    assert "small (f16) has no licence" in err
    (desk.root / "empty").write_text(" \n")
    assert desk.serve(*bare, "--licence", f"small={desk.root / 'empty'}")[0] == 5
    assert desk.serve(*bare, "--licence", f"other={desk.root / 'LICENSE'}")[0] == 2
    assert not desk.bundle.exists()


def test_damaged_weights_do_not_travel(desk: Desk) -> None:
    """A store that is not what was locked makes no bundle, and leaves no half of one."""
    store = open_store(load_settings(), os.environ)
    blob = next(store.blobs())
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert desk.create()[0] == 17
    assert not [path for path in desk.root.iterdir() if "bundle" in path.name]


def test_one_that_is_not_signed(desk: Desk) -> None:
    """Is said to be so when it is made, and comes in only with a word."""
    licence = f"small={desk.root / 'LICENSE'}"
    status, _, err = desk.serve("bundle", "create", "small", "-o", str(desk.bundle), "--licence", licence)
    assert status == 0
    assert "it is not signed" in err
    desk.at("host")
    assert desk.serve("bundle", "install", str(desk.bundle))[0] == 19
    assert desk.serve("bundle", "install", "--allow-unsigned", str(desk.bundle))[0] == 0


def test_a_sealed_host_makes_no_exceptions(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither flag is possible there, whatever the bundle is."""
    desk.create()
    desk.at("host")
    desk.enrol()
    monkeypatch.setattr("serving.cli.bundle.is_sealed", lambda settings: True)
    for flag in ("--allow-unsigned", "--allow-downgrade"):
        status, _, err = desk.serve("bundle", "install", flag, str(desk.bundle))
        assert status == 19
        assert flag in err
    assert desk.serve("bundle", "install", str(desk.bundle))[0] == 0


def test_a_copy_that_broke_off(desk: Desk) -> None:
    """Is told by its size, before anything is read in."""
    desk.create()
    desk.enrol()
    with desk.bundle.open("r+b") as file:
        file.truncate(desk.bundle.stat().st_size - 1000)
    desk.at("host")
    desk.enrol()
    status, _, err = desk.serve("bundle", "install", str(desk.bundle))
    assert status == 5
    assert "the copy broke off" in err
    assert not (desk.root / "host" / ".local").exists()


def test_fingerprints_are_typed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a person at a terminal, or given; a pipe types nothing."""
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        status, _, err = desk.serve("trust", "add", str(desk.root / "key.pub"))
    assert status == 2
    assert "typed by a person" in err
    status, _, err = desk.serve("trust", "add", str(desk.root / "key.pub"), "--fingerprint", "abcd")
    assert status == 19
    desk.enrol()
    status, out, _ = desk.serve("trust", "list", "--json")
    assert json.loads(out) == [{"name": "key", "fingerprint": desk.publisher.fingerprint}]
    assert desk.serve("trust", "remove", "key")[0] == 0
    assert desk.serve("trust", "list")[1].splitlines() == ["NAME  FINGERPRINT"]


def test_a_wheel_with_a_pth_does_not_travel(desk: Desk) -> None:
    """What the far side would refuse is refused here."""
    evil = wheel(extra=[("evil.pth", b"import os\n")])
    (desk.root / "house" / ANY).write_bytes(evil)
    (desk.root / "base.lock").write_text(f"small-thing==1.0 --hash=sha256:{sha256(evil)}\n")
    status, _, err = desk.create_with_wheels()
    assert status == 5
    assert "evil.pth" in err
    assert not desk.bundle.exists()


def test_the_bill_of_materials_is_cyclonedx(desk: Desk) -> None:
    """By the schema that CycloneDX publishes, of version 1.6; it has every model, every file and every wheel."""
    desk.create_with_wheels()
    desk.at("host")
    desk.enrol()
    desk.serve("bundle", "install", str(desk.bundle))
    papers = next((open_store(load_settings(), os.environ).bundles / "installed").iterdir())
    bill = json.loads((papers / "sbom.cdx.json").read_bytes())
    schemas = resources.files("cyclonedx.schema._res")

    def published(uri: str) -> Any:
        return json.loads(schemas.joinpath(uri.rsplit("/", 1)[-1]).read_text())

    schema = published("bom-1.6.SNAPSHOT.schema.json")
    jsonschema_rs.validator_for(schema, retriever=published).validate(bill)
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validator_for(schema, retriever=published).validate({**bill, "components": [{"name": "x"}]})
    manifest = json.loads((papers / "MANIFEST.json").read_bytes())
    told = {(each["name"], each["version"]): each for each in bill["components"]}
    assert {"small-thing", "perimeter-serving"} == {name for name, _ in told if name != "small"}
    for model in manifest["models"]:
        files = told["small", model["variant"]]["components"]
        assert [(file["name"], file["hashes"][0]["content"]) for file in files] == [
            (file["name"], file["sha256"]) for file in model["files"]
        ]
    assert told["small-thing", "1.0"]["licenses"] == [{"license": {"name": "MIT"}}]
