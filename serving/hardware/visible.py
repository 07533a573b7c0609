"""Which GPUs the environment lets a process use, as CUDA and NVIDIA's container runtime read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.hardware.machine import Gpu

_NOT_A_CHOICE = ("all", "void", "")
"""What the container runtime takes as "no choice was made here". `void` also stands in containers that were given
their GPUs another way (CDI), so it hides nothing."""


def visible(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The GPUs left, in the order that CUDA would number them, and what to tell an operator."""
    kept, notes = _by_runtime(gpus, environment.get("NVIDIA_VISIBLE_DEVICES"))
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return kept, notes
    left, cuda_notes = _by_cuda(kept, chosen)
    if not left and kept:
        hidden = f"CUDA_VISIBLE_DEVICES=`{chosen}` hides all GPUs ({len(kept)})"
        return (), (*notes, *cuda_notes, hidden)
    names_index = any(entry.strip().isdigit() for entry in chosen.split(","))
    mixed = len({gpu.name for gpu in kept if gpu.slice is None}) > 1
    if names_index and mixed and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        advice = "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID"
        cuda_notes += (f"CUDA_VISIBLE_DEVICES counts GPUs fastest first, and they differ here: {advice}",)
    return left, (*notes, *cuda_notes)


def _by_cuda(gpus: Sequence[Gpu], chosen: str) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """As CUDA does: the list ends at the first entry that names nothing; one named twice makes the list void."""
    left: list[Gpu] = []
    for entry in (part.strip() for part in chosen.split(",")):
        named = _named(gpus, entry)
        if not named:
            # The empty string and -1 are how people say "none".
            if entry in ("", "-1") or not gpus:
                break
            return tuple(left), (f"CUDA_VISIBLE_DEVICES names `{entry}`, which is no GPU here: the list ends there",)
        if named[0] in left:
            return (), (f"CUDA_VISIBLE_DEVICES names `{entry}` twice: CUDA then offers no GPU",)
        left.append(named[0])  # of a sliced GPU, CUDA takes the first slice
    return tuple(left), ()


def _by_runtime(gpus: Sequence[Gpu], chosen: str | None) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The container runtime's choice, for containers that see every GPU in spite of it (privileged ones).

    Where it was carried out, what is left is numbered anew: indices then mean nothing any more, and as many GPUs are
    here as were named.
    """
    if chosen is None or chosen.strip() in _NOT_A_CHOICE or chosen.startswith("/"):
        return tuple(gpus), ()
    if chosen.strip() == "none":
        return (), ("NVIDIA_VISIBLE_DEVICES=`none` hides all GPUs",) if gpus else ()
    entries = [entry.strip() for entry in chosen.split(",")]
    by_index = all(entry.replace(":", "").isdigit() for entry in entries)
    if by_index and len(entries) == len(gpus):
        return tuple(gpus), ()
    named = {gpu for entry in entries for gpu in _named(gpus, entry)}
    if not named and gpus:
        return (), (f"NVIDIA_VISIBLE_DEVICES=`{chosen}` names none of the GPUs here: all are hidden",)
    return tuple(gpu for gpu in gpus if gpu in named), ()


def _named(gpus: Sequence[Gpu], entry: str) -> tuple[Gpu, ...]:
    """The GPU that an entry names, or all slices of it: by index, `index:slice`, or UUID; () where it names none.

    A UUID may be cut short while only one GPU begins with it.
    """
    if entry.isdigit():
        return tuple(gpu for gpu in gpus if gpu.index == int(entry))
    index, colon, number = entry.partition(":")
    if colon and index.isdigit() and number.isdigit():
        return tuple(gpu for gpu in gpus if gpu.slice and gpu.index == int(index))[int(number) :][:1]
    if not entry.upper().startswith(("GPU-", "MIG-")):
        return ()
    for name in (_uuid, _old_name, _parent):
        found = tuple(gpu for gpu in gpus if name(gpu).startswith(entry.lower()))
        if found:
            return found if len(found) == 1 or (name is _parent and len({gpu.index for gpu in found}) == 1) else ()
    return ()


def _uuid(gpu: Gpu) -> str:
    return (gpu.uuid or "").lower()


def _parent(gpu: Gpu) -> str:
    return (gpu.slice.parent_uuid or "").lower() if gpu.slice else ""


def _old_name(gpu: Gpu) -> str:
    """How drivers before R470 named a slice: MIG-GPU-…/instance/instance."""
    part = gpu.slice
    return f"mig-{part.parent_uuid}/{part.gpu_instance}/{part.compute_instance}".lower() if part else ""
