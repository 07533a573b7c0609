"""What the PCI bus says of NVIDIA GPUs, with or without a driver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.hardware.files import read_int, read_text

_NVIDIA = "0x10de"
_DISPLAY = "0x03"
"""PCI base class of display controllers; GPUs without outputs are 3D controllers (0x0302), of the same class."""


@dataclass(frozen=True, slots=True)
class NvidiaDevice:
    """An NVIDIA GPU on the bus."""

    address: str
    driver: str | None
    """The kernel driver that has taken it: `nvidia`, `nouveau`, `vfio-pci`."""


def nvidia_devices(root: Path) -> tuple[NvidiaDevice, ...]:
    """The NVIDIA GPUs that the kernel found, by address. In a container these are the host's."""
    found = []
    devices = root / "sys/bus/pci/devices"
    for device in sorted(devices.iterdir()) if devices.is_dir() else ():
        if (read_text(device / "vendor") or "").strip() != _NVIDIA:
            continue
        if (read_text(device / "class") or "").startswith(_DISPLAY):
            lines = (read_text(device / "uevent") or "").splitlines()
            driver = next((line.removeprefix("DRIVER=") for line in lines if line.startswith("DRIVER=")), None)
            found.append(NvidiaDevice(device.name, driver))
    return tuple(found)


def numa_node(root: Path, bus_id: str) -> int | None:
    """The NUMA node that a device hangs on; None where there is but one (the kernel says -1)."""
    node = read_int(root / "sys/bus/pci/devices" / address(bus_id) / "numa_node")
    return node if node is not None and node >= 0 else None


def address(bus_id: str | bytes) -> str:
    """A PCI address as the kernel writes it: NVML's has eight digits of domain, in upper case, perhaps as bytes."""
    text = bus_id.decode(errors="replace") if isinstance(bus_id, bytes) else bus_id
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:].rjust(4, '0')}:{rest}"
