"""A pynvml that plays recorded answers: the same names, and the same errors with NVML's own words.

A recording is `{"system": {question: answer}, "devices": [{question: answer, "mig": [{…}]}]}`. A question that is
not in it has the answer "Not Supported", as with a real GPU; `{"error": "NVMLError_GpuIsLost"}` raises that error; a
device may be `{"like": 0, …}`, another's answers with its own over them. `{"init": "NVMLError_…"}` alone is a driver
that does not come up. A test compares every name offered here with the real package, so that nothing can be asked
which NVML lacks.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ERRORS = {
    "Uninitialized": "Uninitialized",
    "InvalidArgument": "Invalid Argument",
    "NotSupported": "Not Supported",
    "NoPermission": "Insufficient Permissions",
    "NotFound": "Not Found",
    "DriverNotLoaded": "Driver Not Loaded",
    "Timeout": "Timeout",
    "LibraryNotFound": "NVML Shared Library Not Found",
    "FunctionNotFound": "Function Not Found",
    "GpuIsLost": "GPU is lost",
    "ResetRequired": "GPU requires restart",
    "LibRmVersionMismatch": "RM has detected an NVML/RM version mismatch.",
    "Unknown": "Unknown Error",
}

SYSTEM_QUESTIONS = ("nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2")

DEVICE_QUESTIONS = (
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetPciInfo",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetMemoryBusWidth",
    "nvmlDeviceGetMaxClockInfo",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetNumaNodeId",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetClockInfo",
)
LINK_QUESTIONS = (
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetNvLinkRemoteDeviceType",
    "nvmlDeviceGetNvLinkRemotePciInfo",
)


class NVMLError(Exception):
    """The base, as in pynvml; `str` of one is NVML's text for its code."""

    text = "Unknown Error"

    def __str__(self) -> str:
        return self.text


def _error(name: str, text: str) -> type[NVMLError]:
    return type(f"NVMLError_{name}", (NVMLError,), {"text": text})


class FabricInfo(ctypes.Structure):
    """The fields of NVML's structure that are asked for."""

    _fields_ = [("state", ctypes.c_uint)]


class RecordedNvml:
    """Stands in for the pynvml module."""

    NVMLError = NVMLError
    NVML_CLOCK_MEM = 2
    NVML_CLOCK_SM = 1
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_AGGREGATE_ECC = 1
    NVML_NVLINK_DEVICE_TYPE_SWITCH = 2
    NVML_GPU_FABRIC_STATE_NOT_SUPPORTED = 0
    NVML_GPU_FABRIC_STATE_COMPLETED = 3
    c_nvmlGpuFabricInfo_t = FabricInfo  # noqa: N815

    def __init__(self, recording: dict[str, Any]) -> None:
        self.recording = recording
        self.is_open = 0
        self.errors = {f"NVMLError_{name}": _error(name, text) for name, text in ERRORS.items()}
        for name, kind in self.errors.items():
            setattr(self, name, kind)
        for question in SYSTEM_QUESTIONS:
            setattr(self, question, self._system(question))
        for question in DEVICE_QUESTIONS:
            setattr(self, question, self._device(question))
        for question in LINK_QUESTIONS:
            setattr(self, question, self._link(question))

    @classmethod
    def read(cls, path: Path) -> RecordedNvml:
        """The recording in a file; where there is none, a machine without a driver."""
        return cls(json.loads(path.read_text()) if path.exists() else {"init": "NVMLError_LibraryNotFound"})

    @property
    def devices(self) -> list[dict[str, Any]]:
        """The recorded devices, each with the answers of the one it is like."""
        recorded = self.recording.get("devices", [])
        return [{**(recorded[device["like"]] if "like" in device else {}), **device} for device in recorded]

    def nvmlInit(self) -> None:  # noqa: N802
        if "init" in self.recording:
            raise self.errors[self.recording["init"]]
        self.is_open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        device = self.devices[index]
        self._raise_if_error(device.get("handle"))
        return device

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> dict[str, Any]:  # noqa: N802
        for device in self.devices:
            for one in (device, *device.get("mig", ())):
                if one.get("nvmlDeviceGetUUID") == uuid:
                    self._raise_if_error(device.get("handle"))
                    return one
        raise self.errors["NVMLError_NotFound"]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: dict[str, Any]) -> int:  # noqa: N802
        return 7 if "mig" in device else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: dict[str, Any], index: int) -> dict[str, Any]:  # noqa: N802
        slices = device["mig"]
        if index >= len(slices):
            raise self.errors["NVMLError_NotFound"]
        return slices[index]

    def nvmlDeviceGetGpuFabricInfo(self, device: dict[str, Any], info: Any) -> int:  # noqa: N802
        if "fabric" not in device:
            raise self.errors["NVMLError_NotSupported"]
        info._obj.state = device["fabric"]
        return 0

    def _system(self, question: str) -> Any:
        return lambda: self._answer(self.recording.get("system", {}), question)

    def _device(self, question: str) -> Any:
        return lambda device, *_: self._answer(device, question)

    def _link(self, question: str) -> Any:
        def answer(device: dict[str, Any], link: int) -> Any:
            links = self._answer(device, question)
            if link >= len(links):
                raise self.errors["NVMLError_InvalidArgument"]
            return links[link]

        return answer

    def _answer(self, answers: dict[str, Any], question: str) -> Any:
        assert self.is_open > 0, f"{question} was asked outside of a session"
        answer = answers.get(question, {"error": "NVMLError_NotSupported"})
        self._raise_if_error(answer)
        return _as_pynvml(answer)

    def _raise_if_error(self, answer: Any) -> None:
        if isinstance(answer, dict) and "error" in answer:
            raise self.errors[answer["error"]]


def offered() -> set[str]:
    """Every name that code may use of the stand-in."""
    nvml = RecordedNvml({})
    return {name for name in dir(nvml) if name.lower().startswith(("nvml", "c_nvml"))}


def _as_pynvml(answer: Any) -> Any:
    if isinstance(answer, dict):
        return SimpleNamespace(**answer)
    if isinstance(answer, list):
        return [_as_pynvml(part) for part in answer]
    return answer
