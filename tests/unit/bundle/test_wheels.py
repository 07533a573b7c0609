"""Which wheels travel: those of the lock for the platform, by digest; of what is built here, the one that is there."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from serving.bundle.gather import OURS, Target, gather, read_lock
from serving.bundle.host import Host, check_host, level_of, this_host
from serving.bundle.into import install_wheels
from serving.bundle.manifest import Wheel, Wheels, requirements_of
from serving.bundle.wheels import KNOWN_PTH, check_wheel, choose_wheels, pick_best, tags_of
from serving.errors import BadFile, FetchFailed, FileMissing, NoFitError, StartError, Unverified
from tests.support.bundles import ANY, MACHINE, PLATFORM, PYTHON, sha256, wheel

LOCKS = Path(__file__).parents[3] / "locks"
LINUX = Target("base", "manylinux_2_31_x86_64", "3.11")
HERE = Target("base", PLATFORM, PYTHON)


def test_tags_are_those_that_this_python_takes() -> None:
    """Against packaging's own, for this machine's glibc."""
    name, version = platform.libc_ver()
    if name != "glibc":
        pytest.skip("needs glibc")
    ours = set(tags_of(f"manylinux_{version.replace('.', '_')}_{MACHINE}", PYTHON))
    theirs = set(sys_tags())
    assert theirs <= ours
    # Where this Python was built for no glibc older than 2.17, packaging leaves those out.
    assert all("manylinux" in tag.platform for tag in ours - theirs)


def test_the_best_of_several() -> None:
    """The nearest platform and the most specific interface."""
    files = [
        "x-1.0-py3-none-any.whl",
        "x-1.0-cp39-abi3-manylinux_2_17_x86_64.whl",
        "x-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "x-1.0-cp311-cp311-manylinux_2_34_x86_64.whl",
        "x-1.0-cp311-cp311-musllinux_1_2_x86_64.whl",
        "x-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
    ]
    tags = tags_of("manylinux_2_31_x86_64", "3.11")
    assert pick_best(files, tags) == files[2]
    assert pick_best(files[:2], tags) == files[1]
    assert pick_best(files[3:], tags) is None


def test_our_own_locks_are_read() -> None:
    """Each package once, those of other systems left out."""
    for name in ("base", "dev", "build"):
        found = read_lock((LOCKS / f"{name}.lock").read_text(), LINUX, name)
        projects = [each.project for each in found]
        assert len(set(projects)) == len(projects) > 5
        assert "colorama" not in projects
        assert all(each.digests for each in found)
    windows = [line for line in (LOCKS / "base.lock").read_text().splitlines() if line.startswith("colorama")]
    assert windows, "the lock is for all systems"


@pytest.mark.parametrize(
    "line",
    ["x==1.0", "x>=1.0 --hash=sha256:" + "0" * 64, "-r other.txt", "--index-url https://x", "x @ https://x/y.whl"],
)
def test_a_line_that_locks_nothing(line: str) -> None:
    """It is refused: what it stands for could be anything."""
    with pytest.raises(BadFile):
        read_lock(line, LINUX, "it")


def house(directory: Path, content: bytes = b"") -> Path:
    directory.mkdir()
    (directory / ANY).write_bytes(content or wheel())
    (directory / "perimeter_serving-0.1.0-py3-none-any.whl").write_bytes(wheel("perimeter_serving", "0.1.0"))
    return directory


def lock_of(content: bytes) -> str:
    return f"small-thing==1.0 \\\n    --hash=sha256:{sha256(content)}\n"


def test_wheels_come_from_a_directory(tmp_path: Path) -> None:
    """With the lock's digest, and our own with whatever it has."""
    lock = read_lock(lock_of(wheel()), HERE, "it")
    found = gather(lock, HERE, [house(tmp_path / "house")], None, tmp_path)
    assert [(each.wheel.project, each.is_locked) for each in found] == [(OURS, False), ("small-thing", True)]


def test_a_wheel_that_the_lock_does_not_have(tmp_path: Path) -> None:
    """One of the right name and version with other bytes is refused."""
    lock = read_lock(lock_of(wheel()), HERE, "it")
    other = wheel(extra=[("more.py", b"")])
    with pytest.raises(Unverified, match="none of the wheels"):
        gather(lock, HERE, [house(tmp_path / "house", other)], None, tmp_path)


def test_wheels_come_from_an_index(tmp_path: Path) -> None:
    """What the directory lacks is fetched, by pip, with its digest."""
    content = wheel()
    index = tmp_path / "simple" / "small-thing"
    index.mkdir(parents=True)
    (index / ANY).write_bytes(content)
    (index / "index.html").write_text(f'<a href="{ANY}">{ANY}</a>')
    directory = house(tmp_path / "house")
    (directory / ANY).unlink()
    work = tmp_path / "work"
    work.mkdir()
    url = (tmp_path / "simple").as_uri()
    found = gather(read_lock(lock_of(content), HERE, "it"), HERE, [directory], url, work)
    assert [each.wheel.file for each in found] == ["perimeter_serving-0.1.0-py3-none-any.whl", ANY]
    (index / ANY).write_bytes(wheel(extra=[("more.py", b"")]))
    (work / ANY).unlink()
    with pytest.raises(FetchFailed, match="pip could not"):
        gather(read_lock(lock_of(content), HERE, "it"), HERE, [directory], url, work)


def test_what_must_be_built_is_asked_for(tmp_path: Path) -> None:
    """No index is asked for llama-cpp-python or for us."""
    told = f"llama-cpp-python==1.0 --hash=sha256:{'0' * 64}\n"
    with pytest.raises(FileMissing, match="llama-cpp-python"):
        gather(read_lock(told, HERE, "it"), HERE, [], None, tmp_path)
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / ANY).write_bytes(wheel())
    with pytest.raises(FileMissing, match=OURS):
        gather(read_lock(lock_of(wheel()), HERE, "it"), HERE, [tmp_path / "house"], None, tmp_path)


FLAGS = {
    1: frozenset({"sse2"}),
    2: frozenset({"cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"}),
    3: frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    4: frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}


def test_the_highest_level_that_runs_is_taken() -> None:
    """Of one wheel for each level; a processor below all of them is told the flag that it lacks."""
    name = "llama_cpp_python-0.3.36-py3-none-manylinux_2_17_x86_64.whl"
    wheels = Wheels("base", PLATFORM, PYTHON, tuple(Wheel(name, "0" * 64, level) for level in (2, 3, 4)))
    flags: frozenset[str] = frozenset()
    for level in (1, 2, 3, 4):
        flags |= FLAGS[level]
        found, lacks = level_of(flags)
        assert found == level
        if level > 1:
            assert [wheel.level for wheel in choose_wheels(wheels, found, lacks)] == [level]
        else:
            with pytest.raises(NoFitError, match="`cx16`"):
                choose_wheels(wheels, found, lacks)
    all_but_one = frozenset().union(*FLAGS.values()) - {"fma"}
    assert level_of(all_but_one) == (2, "fma")
    only_third = Wheels("base", PLATFORM, PYTHON, wheels.files[1:2])
    with pytest.raises(NoFitError, match="x86-64-v3 and better, and this one lacks `fma`"):
        choose_wheels(only_third, *level_of(all_but_one))


def test_numpy_needs_the_second_level() -> None:
    """A processor below it is refused before anything is installed, by the flags' names."""
    wheels = Wheels("base", PLATFORM, PYTHON, (Wheel("numpy-2.4.0-cp311-cp311-manylinux_2_28_x86_64.whl", "0" * 64),))
    old = Host("x86_64", PYTHON, 36, FLAGS[1])
    with pytest.raises(NoFitError, match=r"needs x86-64-v2.*lacks `cx16`"):
        check_host(wheels, old)
    check_host(wheels, dataclasses.replace(old, flags=FLAGS[1] | FLAGS[2]))


def test_a_llama_cpp_of_the_builders_own_processor_does_not_travel(tmp_path: Path) -> None:
    """A wheel without its compiler's record, as every native build's is, is refused when the bundle is made."""
    wheel = tmp_path / "llama_cpp_python-1.0-py3-none-manylinux_2_17_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as content:
        for name in ("libllama.so", "libggml-cpu.so"):
            content.writestr(f"llama_cpp/lib/{name}", b"\x7fELF")
    told = f"llama-cpp-python==1.0 --hash=sha256:{'0' * 64}\n"
    target = Target("base", "manylinux_2_17_x86_64", PYTHON)
    lock = read_lock(told, target, "the lock")
    with pytest.raises(BadFile):
        gather(lock, target, [tmp_path], None, tmp_path)


@pytest.mark.skipif(MACHINE != "x86_64", reason="the levels are of x86-64")
def test_this_host_has_a_level() -> None:
    """Its flags are read, not guessed."""
    assert this_host().flags
    assert level_of(this_host().flags)[0] >= 1


def test_a_pth_that_is_on_the_list(tmp_path: Path) -> None:
    """setuptools' own, by its digest."""
    content = (
        b"import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'; "
        b"enabled and __import__('_distutils_hack').add_shim(); \n"
    )
    if hashlib.sha256(content).hexdigest() != KNOWN_PTH["distutils-precedence.pth"]:
        content = content.replace(b" \n", b"\n")
    path = tmp_path / ANY
    path.write_bytes(wheel(extra=[("distutils-precedence.pth", content)]))
    assert hashlib.sha256(content).hexdigest() == KNOWN_PTH["distutils-precedence.pth"]
    assert check_wheel(path, ANY).project == "small-thing"


def test_wheels_into_an_environment(tmp_path: Path) -> None:
    """pip installs what was listed, from that directory; another digest is refused, and the try can be repeated."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    (directory / ANY).write_bytes(wheel())
    listed = Wheels("base", PLATFORM, PYTHON, (Wheel(ANY, sha256(wheel())),))
    wrong = Wheels("base", PLATFORM, PYTHON, (Wheel(ANY, "0" * 64),))
    (directory / "requirements.txt").write_bytes(requirements_of(wrong))
    into = tmp_path / "environment"
    with pytest.raises(StartError, match="could not install the wheels"):
        install_wheels(directory, into)
    (directory / "requirements.txt").write_bytes(requirements_of(listed))
    install_wheels(directory, into)
    subprocess.run([into / "bin/python", "-c", "import small_thing"], check=True)
    with pytest.raises(StartError, match="is there already"):
        install_wheels(directory, into)
    assert sys.prefix != str(into)
