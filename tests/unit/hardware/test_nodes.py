"""The driver's program is asked for CUDA's device file before nobody below may raise its rights."""

from __future__ import annotations

from pathlib import Path

from serving.hardware.nodes import make_memory_node


def host(root: Path) -> Path:
    """One with the driver, without the file, and with a program that makes it; returns where the program is."""
    (root / "proc/driver/nvidia").mkdir(parents=True)
    (root / "dev").mkdir()
    (root / "bin").mkdir()
    program = root / "bin/nvidia-modprobe"
    program.write_text(f'#!/bin/sh\necho "$@" > {root}/asked\n: > {root}/dev/nvidia-uvm\n')
    program.chmod(0o755)
    return root / "bin"


def test_it_is_asked_once(tmp_path: Path) -> None:
    """With the flags for that file, and not again where it is there."""
    path = str(host(tmp_path))
    assert make_memory_node(tmp_path, path)
    assert (tmp_path / "asked").read_text() == "-u -c=0\n"
    assert not make_memory_node(tmp_path, path)


def test_it_is_left_alone_where_there_is_no_driver_or_no_program(tmp_path: Path) -> None:
    """Nothing to ask for, nobody to ask."""
    path = host(tmp_path)
    assert not make_memory_node(tmp_path, str(tmp_path / "nowhere"))
    (tmp_path / "proc/driver/nvidia").rmdir()
    assert not make_memory_node(tmp_path, str(path))
    assert not (tmp_path / "asked").exists()
