"""Hostile bundles, also such as the right key has signed: each is refused, and nothing of it is on the disk."""

from __future__ import annotations

import io
import json
import random
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serving.bundle import (
    Exceptions,
    Wishes,
    complete,
    decide_exceptions,
    install,
    open_head,
    record,
    source_of,
)
from serving.bundle.form import END, header
from serving.errors import BadFile, NoFitError, StartError, Untrusted, Unverified, UsageError
from serving.keyfiles import fingerprint_of
from tests.support.bundles import (
    ANY,
    CONFIG,
    MOST,
    PLATFORM,
    UNSIGNED,
    Draft,
    Site,
    assemble,
    raw_header,
    sha256,
    tensors,
    wheel,
    written,
)
from tests.support.gguf_bytes import tiny

Change = Callable[[dict[str, Any]], None]
GGUF = {"small.gguf": tiny().encode()}
PICKLE = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94."


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def refused(site: Site, bundle: bytes, kind: type[StartError], word: str, wishes: Wishes | None = None) -> None:
    """It is refused for that reason, and the host is as it was."""
    before = site.traces()
    with pytest.raises(kind) as caught:
        site.bring(bundle, wishes or Wishes())
    assert type(caught.value) is kind
    assert word in caught.value.message, caught.value.message
    assert site.traces() == before


def test_a_sound_one_is_taken(site: Site) -> None:
    """The drafts that the others are made from are refused for what is wrong with them, not for being drafts."""
    site.bring(Draft(wheels=[(ANY, None, wheel())]).build(site.key))
    assert [str(model) for model in site.store.manifests()] == ["small (f16)"]
    assert any(trace.endswith(ANY) for trace in site.traces())


def of_files(files: dict[str, bytes], form: str = "gguf") -> Draft:
    return Draft(models=[("small", "f16", form, files)])


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({**GGUF, "pytorch_model.bin": PICKLE}, "a pickle"),
        ({**GGUF, "training_args.pt": PICKLE}, "a pickle"),
        ({**GGUF, "modeling_small.py": b"import os\n"}, "code"),
        ({**GGUF, "kernel.so": b"\x7fELF"}, "code"),
        ({**GGUF, "more.zip": b"PK\x03\x04"}, "an archive"),
        ({**GGUF, "../evil.json": b"{}"}, "leads elsewhere"),
        ({**GGUF, "/etc/evil.json": b"{}"}, "leads elsewhere"),
        ({**GGUF, "a/../../evil.json": b"{}"}, "leads elsewhere"),
        ({**GGUF, ".bashrc": b"true\n"}, "leads elsewhere"),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else None,
)
def test_what_is_no_part_of_a_model(site: Site, files: dict[str, bytes], word: str) -> None:
    """A pickle, code, an archive or a name that leads elsewhere, listed in a manifest that the right key signed."""
    value, members = of_files(GGUF).parts(site.key)
    value["models"][0]["files"] = [
        {"name": name, "sha256": sha256(content), "size": len(content)} for name, content in sorted(files.items())
    ]
    raw = written(value)
    refused(site, assemble(raw, site.key.sign(raw), members), BadFile, word)


@pytest.mark.parametrize(
    ("files", "form", "word"),
    [
        ({"config.json": CONFIG, "model.safetensors": PICKLE}, "safetensors", "a pickle"),
        ({"small.gguf": b"PK\x03\x04" + bytes(60)}, "gguf", "an archive"),
        ({"small.gguf": b"\x7fELF" + bytes(60)}, "gguf", "a program"),
        ({**GGUF, "tokenizer.json": b"#!/bin/sh\n"}, "gguf", "a script"),
        ({**GGUF, "config.json": b'{"auto_map": {"AutoModel": "x.Y"}}'}, "gguf", "code of its own"),
        ({**GGUF, "config.json": b"not JSON"}, "gguf", "not JSON"),
        ({**GGUF, "README.md": b"\xff\xfe"}, "gguf", "not text"),
        ({"small.gguf": tiny().encode()[:40]}, "gguf", "not a sound GGUF"),
        ({"config.json": CONFIG, "model.safetensors": tensors(64)}, "gguf", "are not gguf"),
        ({"config.json": CONFIG}, "safetensors", "no weights"),
    ],
)
def test_what_is_not_what_its_name_says(site: Site, files: dict[str, bytes], form: str, word: str) -> None:
    """Content that is a pickle, a program, a script or nothing under a name that may come in."""
    refused(site, of_files(files, form).build(site.key), BadFile, word)


@pytest.mark.parametrize(
    ("kind", "target", "word"),
    [
        (b"2", "/etc/passwd", "a symbolic link"),
        (b"1", "MANIFEST.json", "a hard link"),
        (b"3", "", "a character device"),
        (b"5", "", "a directory"),
        (b"6", "", "a pipe"),
        (b"x", "", "a PAX header"),
        (b"g", "", "a PAX header"),
        (b"L", "", "a GNU long name"),
        (b"S", "", "a sparse file"),
        (b"7", "", "not as this program writes it"),
        (b"\0", "", "not as this program writes it"),
    ],
)
def test_a_member_that_is_no_file(site: Site, kind: bytes, target: str, word: str) -> None:
    """Whatever tar knows beside files, in the place of a member or before it."""
    value, members = Draft().parts(site.key)
    raw = written(value)
    whole = assemble(raw, site.key.sign(raw), members)
    name, content = members[-1]
    at = whole.index(header(name, len(content)))
    other = raw_header(name, len(content), kind, target)
    refused(site, whole[:at] + other + whole[at + 512 :], BadFile, word)
    before = raw_header(name, 0, kind, target)
    refused(site, whole[:at] + before + whole[at:], BadFile, word)


def test_a_name_that_leads_elsewhere_in_the_tar(site: Site) -> None:
    """The tar's own name is not the manifest's: it is shown, escaped, and refused."""
    value, members = Draft().parts(site.key)
    raw = written(value)
    whole = assemble(raw, site.key.sign(raw), members)
    name, content = members[-1]
    for evil in ("../../evil.gguf", "/etc/passwd", "models/small/f16/\x1b[2Jx"):
        refused(
            site, whole.replace(header(name, len(content)), raw_header(evil, len(content))), BadFile, "stands there"
        )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda value: value["members"].append({"name": "x.json", "size": 0, "sha256": sha256(b"")}), "not those of"),
        (lambda value: value["members"].pop(), "not those of"),
        (lambda value: value["members"].reverse(), "not those of"),
        (lambda value: value["members"].append(value["members"][0]), "not those of"),
        (lambda value: value["members"][0].update(name="../x"), "leads elsewhere"),
        (lambda value: value["members"][0].update(size=-1), "size"),
        (lambda value: value["members"][0].update(size=1.5), "size"),
        (lambda value: value["members"][-1].update(size=1), "two things"),
        (lambda value: value["members"][-1].update(sha256="0" * 64), "two things"),
        (lambda value: value["models"].append(value["models"][0]), "twice"),
        (lambda value: value.update(more=1), "fields"),
        (lambda value: value.pop("licences"), "fields"),
        (lambda value: value.update(version=2), "version"),
        (lambda value: value.update(format="other"), "not one of a bundle"),
        (lambda value: value.update(serial=0), "serial"),
        (lambda value: value.update(serial=True), "serial"),
        (lambda value: value.update(serial=MOST + 1), "serial"),
        (lambda value: value.update(created="today"), "created"),
        (lambda value: value.update(licences={}), "licence"),
        (lambda value: value["licences"].update(small=[]), "licence"),
        (lambda value: value["licences"].update(small=["licences/small/evil.sh"]), "licence"),
        (lambda value: value["licences"].update(small=["licences/small/LICENSE.py"]), "licence"),
        (lambda value: value["entries"].pop("small"), "entry"),
        (lambda value: value["entries"]["small"].update(code="x"), "small.code"),
        (lambda value: value["entries"]["small"].update(title="\x1b[2J"), "characters"),
        (lambda value: value["entries"]["small"].update(title="\ud800"), "characters"),
        (lambda value: value["entries"]["small"]["variants"][0].update(path="/etc/passwd"), "path"),
        (lambda value: value["entries"]["small"]["variants"][0].update(name="other"), "not of its variants"),
        (lambda value: value["models"][0].update(model="../x"), "model"),
        (lambda value: value["wheels"].update(python="2.7"), "Python"),
        (lambda value: value["wheels"]["files"][0].update(level=5), "level"),
        (lambda value: value["wheels"]["files"][0].update(file="../x.whl"), "wheel"),
        (lambda value: value["wheels"]["files"][0].update(sha256="0" * 64), "two things"),
    ],
)
def test_a_manifest_that_says_what_cannot_be(site: Site, change: Change, word: str) -> None:
    """Also where the right key signed it."""
    draft = Draft(wheels=[(ANY, None, wheel())], change=change)
    refused(site, draft.build(site.key), BadFile, word)


def test_a_manifest_in_another_writing(site: Site) -> None:
    """There is one way to write it: no blanks, no second value for a key, no other order, no depth."""
    value, members = Draft().parts(site.key)
    sound = written(value)
    twice = sound.replace(b'"serial":1', b'"serial":9,"serial":1')
    for raw in (json.dumps(value).encode(), twice, sound + b"\n", b"\xef\xbb\xbf" + sound, b"[" * 100_000, b"{}", b"1"):
        refused(site, assemble(raw, site.key.sign(raw), members), BadFile, "manifest")


def test_an_extra_file(site: Site) -> None:
    """After the last member, after the end, listed or not: the bundle is refused."""
    value, members = Draft().parts(site.key)
    raw = written(value)
    signature = site.key.sign(raw)
    evil = ("evil.sh", b"#!/bin/sh\n")
    refused(site, assemble(raw, signature, [*members, evil]), BadFile, "goes on")
    refused(site, assemble(raw, signature, [evil, *members]), BadFile, "stands there")
    refused(site, assemble(raw, signature, members) + b"x", BadFile, "goes on")
    refused(site, assemble(raw, signature, members) + header(*("x", 0)) + END, BadFile, "goes on")
    refused(site, assemble(raw, signature, [*members, members[-1]]), BadFile, "goes on")
    refused(site, assemble(raw, signature, members[:-1]), BadFile, "ends there")
    refused(site, Draft(added=[("evil.json", b"{}")]).build(site.key), BadFile, "not those of")
    refused(site, Draft(added=[("wheels/evil.whl", b"{}")]).build(site.key), BadFile, "not those of")


def test_something_hidden_in_the_padding(site: Site) -> None:
    """The bytes that fill a block are zeros."""
    whole = Draft().build(site.key)
    at = len(whole) - len(END) - 1
    assert whole[at] == 0
    refused(site, whole[:at] + b"x" + whole[at + 1 :], BadFile, "hidden")


def test_content_that_was_exchanged(site: Site) -> None:
    """Of the same size, and another file."""
    value, members = Draft().parts(site.key)
    raw = written(value)
    name, content = members[-1]
    other = content[:-1] + bytes([content[-1] ^ 1])
    refused(
        site, assemble(raw, site.key.sign(raw), [*members[:-1], (name, other)]), Unverified, "not what its manifest"
    )


def test_a_template_that_is_not_the_one_named(site: Site) -> None:
    """The lock would have a digest that no template has."""
    refused(site, Draft(template="0" * 64).build(site.key), Unverified, "chat template")


# whose it is


def test_a_stranger_signs_again(site: Site) -> None:
    """A sound bundle of somebody unknown, under his own name or the publisher's."""
    stranger = Ed25519PrivateKey.generate()
    refused(site, Draft().build(stranger), Untrusted, "not signed by any")
    value, members = Draft().parts(site.key)
    raw = written(value)
    forged = assemble(raw, stranger.sign(raw), members)
    refused(site, forged, Untrusted, "not signed by any")
    refused(site, forged, Untrusted, "the signature is not that key's", UNSIGNED)


def test_a_bundle_of_one_enrolled_that_another_enrolled_signed(site: Site) -> None:
    """Both are trusted; one does not speak for the other."""
    other = Ed25519PrivateKey.generate()
    site.enrol(other, "other")
    value, members = Draft().parts(site.key)
    raw = written(value)
    refused(site, assemble(raw, other.sign(raw), members), Untrusted, "`other` signed it")


def test_a_swapped_manifest(site: Site) -> None:
    """The manifest of one bundle before the signature and members of another."""
    one, members = Draft(serial=1).parts(site.key)
    two, _ = Draft(serial=2).parts(site.key)
    signature = site.key.sign(written(one))
    refused(site, assemble(written(two), signature, members), Untrusted, "not signed by any")
    raw = written(two)
    other = Draft(models=[("small", "f16", "gguf", {"small.gguf": tiny().encode() + bytes(32)})]).parts(site.key)[1]
    refused(site, assemble(raw, site.key.sign(raw), other), BadFile, "should have")


def test_an_unsigned_one(site: Site) -> None:
    """It comes in only where the operator says so, and never where the host is sealed."""
    bundle = Draft().build(None)
    refused(site, bundle, Untrusted, "is not signed")
    for wanted in (Exceptions(unsigned=True), Exceptions(downgrade=True)):
        with pytest.raises(Untrusted, match="is not possible"):
            decide_exceptions(wanted, sealed=True)
        assert decide_exceptions(wanted, sealed=False) == wanted
    assert decide_exceptions(Exceptions(), sealed=True) == Exceptions()
    site.bring(bundle, UNSIGNED)
    assert site.store.find("small", "f16") is not None
    assert "bundles/serials.json" not in site.traces()


def test_an_old_one(site: Site) -> None:
    """A number that is not beyond the last is refused, but for the very bundle that was the last."""
    second = Draft(serial=2)
    site.bring(second.build(site.key))
    refused(site, Draft(serial=1).build(site.key), Untrusted, "serial number 1")
    same_number = Draft(serial=2, wheels=[(ANY, None, wheel())])
    refused(site, same_number.build(site.key), Untrusted, "serial number 2")
    site.bring(second.build(site.key))
    site.bring(Draft(serial=1).build(site.key), Wishes(Exceptions(downgrade=True)))
    refused(site, b"", BadFile, "breaks off")


def test_a_stranger_does_not_spend_the_publishers_numbers(site: Site) -> None:
    """What nobody enrolled signed is not counted, whatever number it has."""
    stranger = Ed25519PrivateKey.generate()
    site.bring(Draft(serial=MOST).build(stranger), UNSIGNED)
    fingerprint = fingerprint_of(site.key.public_key())
    unsigned = Draft(serial=MOST, change=lambda value: value.update(publisher=fingerprint))
    site.bring(unsigned.build(None), UNSIGNED)
    site.bring(Draft(serial=1).build(site.key))


def test_a_model_that_differs_from_what_is_locked(site: Site) -> None:
    """A newer bundle with other weights under a known name needs a word of the operator, before any of it comes in."""
    site.bring(Draft(serial=1).build(site.key))
    other = of_files({"small.gguf": tiny().encode() + bytes(32)})
    other.serial = 2
    refused(site, other.build(site.key), Unverified, "not what was locked")


# wheels


def zipped(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    held = io.BytesIO(wheel())
    with zipfile.ZipFile(held, "a", zipfile.ZIP_DEFLATED) as archive:
        for info, content in entries:
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return held.getvalue()


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("small_link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def overlapping() -> bytes:
    """Many entries that share the bytes of one: more unpacked than any ratio of compression gives."""
    content = zlib.compress(bytes(1 << 20), 9)[2:-4]
    local = struct.pack(
        "<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 33, zlib.crc32(bytes(1 << 20)), len(content), 1 << 20, 1, 0
    )
    local += b"a" + content
    central = b""
    for number in range(200):
        name = f"f{number}".encode()
        central += struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            *(b"PK\1\2", 20, 20, 0, 8, 0, 33, zlib.crc32(bytes(1 << 20)), len(content), 1 << 20, len(name)),
            *(0, 0, 0, 0, 0, 0),
        )
        central += name
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 200, 200, len(central), len(local), 0)
    return local + central + end


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (wheel(extra=[("zeros.py", bytes(64 << 20))]), "made to fill the disk|would unpack"),
        (overlapping(), "would unpack"),
        (wheel(extra=[("../evil.py", b"")]), "leads elsewhere"),
        (wheel(extra=[("/evil.py", b"")]), "leads elsewhere"),
        (wheel(extra=[("a/../../evil.py", b"")]), "leads elsewhere"),
        (wheel(extra=[("a\\..\\evil.py", b"")]), "leads elsewhere"),
        (wheel(extra=[("evil.pth", b"import os\n")]), "whenever Python starts"),
        (wheel(extra=[("small_thing-1.0.data/purelib/evil.pth", b"import os\n")]), "whenever Python starts"),
        (wheel(extra=[("EVIL.PTH", b"import os\n")]), "whenever Python starts"),
        (wheel(extra=[("distutils-precedence.pth", b"import evil\n")]), "whenever Python starts"),
        (wheel(extra=[("sitecustomize.py", b"import os\n")]), "whenever Python starts"),
        (wheel(extra=[("once.py", b"1"), ("ONCE.py", b"2")]).replace(b"ONCE.py", b"once.py"), "is there twice"),
        (wheel(extra=[("sitecustomize/__init__.py", b"import os\n")]), "whenever Python starts"),
        (wheel(extra=[("usercustomize.cpython-311-x86_64-linux-gnu.so", b"x")]), "whenever Python starts"),
        (wheel(extra=[("small_thing-1.0.data/data/pyvenv.cfg", b"home = /\n")]), "whenever Python starts"),
        (wheel(extra=[("small_thing-1.0.data/scripts/python3", b"#!/bin/sh\n")]), "whenever Python starts"),
        (wheel(extra=[("small_thing-1.0.data/data/bin/pip", b"#!/bin/sh\n")]), "whenever Python starts"),
        (zipped([(link(), b"/etc/passwd")]), "neither a file nor a directory"),
        (wheel(project="other_thing"), "says of itself"),
        (wheel(version="2.0"), "says of itself"),
        (b"not a wheel", "is no wheel"),
        (wheel()[:-30], "is no wheel"),
    ],
    ids=range(22),
)
def test_a_wheel_that_is_more_than_one(site: Site, content: bytes, word: str) -> None:
    """A bomb, a name that leads elsewhere, a link, what Python would run at its start: nothing of it is laid down."""
    before = site.traces()
    with pytest.raises(BadFile) as caught:
        site.bring(Draft(wheels=[(ANY, None, content)]).build(site.key))
    assert any(each in f"{caught.value.message} {caught.value.hint}" for each in word.split("|")), caught.value.message
    assert site.traces() == before


def test_a_slow_installation_does_not_take_a_later_ones_number_back(site: Site) -> None:
    """Its wheels went in meanwhile; the later bundle stays the last, unless an older one was wanted."""
    older, newer = (site.root / f"{serial}.tar" for serial in (4, 5))
    for serial, path in ((4, older), (5, newer)):
        path.write_bytes(Draft(serial=serial).build(site.key))
    with source_of(older) as source, complete(source):
        slow = open_head(source, site.trust, Exceptions())
        install(source, slow, site.store, site.host, Wishes())
    site.bring(newer)
    record(site.store, slow)
    refused(site, older.read_bytes(), Untrusted, "serial number 4")
    record(site.store, slow, may_go_back=True)
    site.bring(older)


def test_a_bundle_has_no_word_on_what_a_mirror_hands_on(site: Site) -> None:
    """What was withdrawn here stays so when the same model comes in again; what is handed on stays so, too."""
    bundle = Draft().build(site.key)
    site.bring(bundle)
    (first, *_) = site.store.manifests()
    assert not first.publishable
    site.store.mark(first.model, first.variant, publishable=True)
    site.bring(bundle)
    found = site.store.find(first.model, first.variant)
    assert found is not None
    assert found.publishable
    site.store.mark(first.model, first.variant, publishable=False)
    site.bring(bundle)
    found = site.store.find(first.model, first.variant)
    assert found is not None
    assert not found.publishable


def test_wheels_for_another_host(site: Site) -> None:
    """Another processor, glibc, Python or level is refused before anything is laid down, with what is lacking."""
    content = wheel()
    for draft, kind, word in [
        (Draft(platform="manylinux_2_17_sparc"), NoFitError, "sparc"),
        (Draft(platform=PLATFORM.replace("2_17", "2_99")), NoFitError, "glibc 2.99"),
        (Draft(python="3.4"), UsageError, "Python 3.4"),
    ]:
        draft.wheels = [(ANY, None, content)]
        refused(site, draft.build(site.key), kind, word)
    refused(site, Draft(wheels=[(ANY, 2, content)]).build(site.key), NoFitError, "`cx16`")
    site.bring(Draft(wheels=[(ANY, 2, content)]).build(site.key), Wishes(models_only=True))


# all of it


def smallest() -> Draft:
    draft = of_files({"config.json": CONFIG, "model.safetensors": tensors(64)}, "safetensors")
    draft.wheels = [(ANY, None, wheel())]
    return draft


def test_every_flipped_bit_is_found(site: Site) -> None:
    """At hundreds of positions of a small bundle one bit is flipped: each time it is refused, and nothing is left."""
    whole = smallest().build(site.key)
    rng = random.Random(6)
    positions = rng.sample(range(len(whole)), 500)
    for at in positions:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.randrange(8)
        with pytest.raises((BadFile, Unverified, Untrusted)):
            site.bring(bytes(flipped))
        assert not [trace for trace in site.traces() if not trace.startswith("incoming/")], at
    site.bring(whole)


def test_every_truncation_is_found(site: Site) -> None:
    """Cut anywhere, a bundle is refused; what had come in whole is not written again when it is there as a whole."""
    whole = smallest().build(site.key)
    rng = random.Random(7)
    for size in [*sorted(rng.sample(range(len(whole)), 300)), len(whole) - 1]:
        with pytest.raises((BadFile, Untrusted)):
            site.bring(whole[:size])
        assert not [trace for trace in site.traces() if not trace.startswith("incoming/")], size
    assert site.bring(whole).written_bytes == 0
