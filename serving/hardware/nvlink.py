"""NVLink: which links are up, and which GPUs they join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serving.hardware.machine import Gpu
from serving.hardware.pci import address

_MOST_LINKS = 36
"""More than any GPU has; NVML says where they end."""


@dataclass(frozen=True, slots=True)
class Links:
    """The NVLinks of one GPU."""

    up: int | None = None
    """None where it has none at all."""
    to_switch: bool | None = None
    remotes: tuple[str, ...] = ()
    """PCI addresses at the far ends, in lower case, each once."""


def read_links(nvml: Any, handle: Any) -> Links:
    """The links of a GPU. Raises nvml.NVMLError where the GPU is gone."""
    states: list[bool] = []
    switches: list[bool] = []
    remotes: set[str] = set()
    for link in range(_MOST_LINKS):
        try:
            state = bool(nvml.nvmlDeviceGetNvLinkState(handle, link))
        except (nvml.NVMLError_GpuIsLost, nvml.NVMLError_ResetRequired):
            raise
        except nvml.NVMLError:
            break  # not a GPU with links, or no further one
        states.append(state)
        if not state:
            continue
        try:
            remotes.add(address(nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId))
            kind = nvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)
            switches.append(kind == nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH)
        except nvml.NVMLError:
            continue  # up, and the driver does not say to where (virtual machines)
    if not states:
        return Links()
    return Links(sum(states), any(switches) if switches else None, tuple(sorted(remotes)))


def join(gpus: Sequence[Gpu], links: Mapping[int, tuple[str, ...]]) -> tuple[Gpu, ...]:
    """The GPUs with their peers: who is at the far end of a link, or has links to the same switches.

    `links` holds the far ends by index. Slices have no peers.
    """
    whole = {gpu.index: gpu for gpu in gpus if gpu.slice is None}
    at = {address(gpu.pci_address): gpu.index for gpu in whole.values() if gpu.pci_address}

    def peers(gpu: Gpu) -> tuple[int, ...]:
        if gpu.index not in whole or gpu.slice is not None:
            return ()
        direct = {at[remote] for remote in links.get(gpu.index, ()) if remote in at}
        switched = {
            other.index
            for other in whole.values()
            if gpu.nvswitch and other.nvswitch and set(links[gpu.index]) & set(links[other.index])
        }
        return tuple(sorted((direct | switched) - {gpu.index}))

    return tuple(replace(gpu, nvlink_peers=peers(gpu)) for gpu in gpus)
