"""The tar of a bundle: other programs read it, and ours reads nothing else."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bundle.form import CutOff, Member, Source, header, padding, refuse_name, size_of
from serving.errors import BadFile, Unverified
from tests.support.bundles import Draft, Site, sha256

PARTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,60}", fullmatch=True)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join).filter(lambda name: refuse_name(name) is None)


@given(name=NAMES, size=st.one_of(st.integers(0, 1 << 20), st.integers(0, 1 << 45)))
def test_a_header_is_what_tar_understands(name: str, size: int) -> None:
    """Python's tarfile reads back name and size, of any size, and a plain file of nobody's."""
    info = tarfile.TarInfo.frombuf(header(name, size), "utf-8", "strict")
    assert (info.name, info.size, info.isreg(), info.mode, info.uid, info.gid) == (name, size, True, 0o644, 0, 0)


@given(name=st.text(max_size=300))
def test_a_name_is_refused_or_stays_below(name: str) -> None:
    """What is not refused has a header, and no part that leads up or away."""
    if refuse_name(name) is None:
        assert len(header(name, 0)) == 512
        assert not name.startswith("/")
        assert all(part not in ("", ".", "..") for part in name.split("/"))


def test_names_at_the_limits() -> None:
    """100 letters in the last part, 155 before; one more is refused, where it would be and not on the far side."""
    assert refuse_name("a" * 100) is None
    assert refuse_name("a" * 101) is not None
    assert refuse_name("b" * 155 + "/" + "a" * 100) is None
    assert refuse_name("b" * 156 + "/" + "a" * 100) is not None
    for name in ("", "/x", "x/", "a//b", "../x", "a/../b", ".x", "a b", "a\\b", "ü", "a\n"):
        assert refuse_name(name) is not None


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
def test_gnu_tar_reads_it(tmp_path: Path) -> None:
    """Names and contents, and a member of more than POSIX's 8 GiB."""
    site = Site(tmp_path)
    draft = Draft()
    path = tmp_path / "bundle.tar"
    path.write_bytes(draft.build(site.key))
    _, members = draft.parts(site.key)
    listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines() == ["MANIFEST.json", "MANIFEST.sig", *(name for name, _ in members)]
    assert listed.stderr == ""
    subprocess.run(["tar", "-xf", path, "-C", tmp_path, members[-1][0]], check=True, stderr=subprocess.STDOUT)
    assert (tmp_path / members[-1][0]).read_bytes() == members[-1][1]
    large = tmp_path / "large.tar"
    large.write_bytes(header("models/large/f16/large.gguf", 9 << 30))
    os.truncate(large, 512 + (9 << 30) + 1024)
    shown = subprocess.run(["tar", "-tvf", large], capture_output=True, text=True, check=True).stdout
    assert str(9 << 30) in shown


def test_python_extracts_it(tmp_path: Path) -> None:
    """With the strictest filter there is."""
    site = Site(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(Draft().build(site.key))) as archive:
        assert all(tarfile.data_filter(member, str(tmp_path)) for member in archive.getmembers())


def source_of(content: bytes) -> Source:
    descriptor = os.memfd_create("bundle")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return Source(descriptor, "it")


@given(content=st.binary(max_size=1500), at=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_changed_member_is_no_member(content: bytes, at: int, bit: int) -> None:
    """Whichever bit is another one: in its header, its content, or what fills its last block."""
    member = Member("models/small/f16/x.json", len(content), sha256(content))
    sound = header(member.name, member.size) + content + padding(member.size)
    taken: list[bytes] = []
    source_of(sound).read(member, taken.append)
    assert b"".join(taken) == content
    changed = bytearray(sound)
    changed[at % len(sound)] ^= 1 << bit
    with pytest.raises((BadFile, Unverified)):
        source_of(bytes(changed)).read(member)
    with pytest.raises(CutOff):
        source_of(sound[: at % len(sound)]).read(member)


def test_a_bundle_has_the_size_that_its_manifest_says(tmp_path: Path) -> None:
    """So that a copy that broke off is seen before anything is written."""
    site = Site(tmp_path)
    whole = Draft().build(site.key)
    value, members = Draft().parts(site.key)
    told = tuple(Member(name, len(content), "") for name, content in members)
    raw, _ = source_of(whole).read_head()
    assert value["publisher"] in raw.decode()
    assert size_of(len(raw), 64, told) == len(whole)


@pytest.mark.parametrize("content", [b"\0" * 4096, b"x" * 4096, header("other", 5) + b"hello".ljust(1024, b"\0")])
def test_what_is_no_bundle(content: bytes) -> None:
    """It is said to be none."""
    with pytest.raises(BadFile, match=r"is no bundle|should have"):
        source_of(content).read_head()
