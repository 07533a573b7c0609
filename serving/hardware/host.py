"""What kind of machine this is, as far as the firmware and the kernel tell."""

from __future__ import annotations

from pathlib import Path

from serving.hardware.files import read_text
from serving.hardware.machine import Host

_IN_A_GROUP = ("/docker", "/kubepods", "/lxc", "/libpod", "/machine.slice")
_NO_ANSWER = (
    "",
    "Default string",
    "Not Specified",
    "System Product Name",
    "System manufacturer",
    "To Be Filled By O.E.M.",
)
"""What makers leave in the firmware."""


def read_host(root: Path) -> Host:
    """The host as the files under `root` show it."""
    flags = next((line for line in _lines(root / "proc/cpuinfo") if line.startswith("flags")), None)
    kernel = (read_text(root / "proc/sys/kernel/osrelease") or "").strip() or None
    return Host(
        product=_product(root),
        kernel=kernel,
        virtual=None if flags is None else "hypervisor" in flags.split(),
        container=_is_container(root),
    )


def _product(root: Path) -> str | None:
    """Maker and product from DMI, or the board's name from the device tree (ARM)."""
    dmi = root / "sys/class/dmi/id"
    maker, product = ((read_text(dmi / name) or "").strip() for name in ("sys_vendor", "product_name"))
    words = (product,) if product.startswith(maker) else (maker, product)
    known = [word for word in words if word not in _NO_ANSWER]
    board = (read_text(root / "proc/device-tree/model") or "").strip("\0\n ")
    return " ".join(known) or board or None


def _is_container(root: Path) -> bool | None:
    if any((root / marker).exists() for marker in (".dockerenv", "run/.containerenv", "run/systemd/container")):
        return True
    if (root / "var/run/secrets/kubernetes.io").exists():
        return True
    groups = _lines(root / "proc/self/cgroup")
    if any(group in line for line in groups for group in _IN_A_GROUP):
        return True
    # Under a private cgroup namespace a container's own group reads as the root, as init's does on a whole machine.
    return None if not groups or all(line.endswith(":/") for line in groups) else False


def _lines(path: Path) -> list[str]:
    return (read_text(path) or "").splitlines()
