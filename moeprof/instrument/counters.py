"""Device counters through NVML: the driver's readings beside what moeprof measures, or why there are none.

NVML ignores CUDA_VISIBLE_DEVICES, so a device is found by its UUID and never by its number.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from moeprof.instrument.clock import Clock, wall_clock

Value = float | str
Query = Callable[[Any, Any], Value]
"""From the bindings and a device's handle."""

NOT_AVAILABLE = (2**32 - 1, 2**64 - 1)
"""Values that some queries return in place of an error."""

ALL_LINKS = 2**32 - 1

THROTTLE_REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal",
    0x040: "hw_thermal",
    0x080: "hw_power_brake",
    0x100: "display_clocks",
}
"""Bits of nvmlClocksEventReasons."""


@dataclass(frozen=True)
class Reading:
    """The reading of one counter: a value, or the reason why there is none."""

    value: Value | None
    unit: str
    reason: str = ""

    def __str__(self) -> str:
        return f"n/a: {self.reason}" if self.value is None else f"{self.value} {self.unit}".rstrip()


def either(nvml: Any, names: tuple[str, str], *arguments: object) -> Any:
    """The newer function's answer, or the older one's if bindings or driver do not have the newer."""
    known = [function for name in names if (function := getattr(nvml, name, None)) is not None]
    if not known:
        raise AttributeError(names[0])
    try:
        return known[0](*arguments)
    except Exception:
        return known[-1](*arguments)


def throttle_reasons(nvml: Any, handle: Any) -> str:
    """Names of the set bits, `none` if no bit is set."""
    bits = either(nvml, ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"), handle)
    named = [name for bit, name in THROTTLE_REASONS.items() if bits & bit]
    unnamed = bits & ~sum(THROTTLE_REASONS)
    return ", ".join([*named, *([hex(unnamed)] if unnamed else [])]) or "none"


def temperature(nvml: Any, handle: Any) -> int:
    """Temperature of the die, degrees Celsius."""
    return int(either(nvml, ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), handle, nvml.NVML_TEMPERATURE_GPU))


def active_links(nvml: Any, handle: Any) -> int:
    """The NVLinks that are up; the first link number that does not exist ends the list."""
    states: list[int] = []
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        try:
            states.append(int(nvml.nvmlDeviceGetNvLinkState(handle, link)))
        except Exception:
            if not states:
                raise
            break
    return sum(states)


def over_links(nvml: Any, handle: Any, counter: str) -> int:
    """Bytes since the driver was loaded, over all NVLinks."""
    (answer,) = nvml.nvmlDeviceGetFieldValues(handle, [(getattr(nvml, counter), ALL_LINKS)])
    if answer.nvmlReturn:
        raise nvml.NVMLError(answer.nvmlReturn)
    checked(answer.value.ullVal)
    return int(answer.value.ullVal) * 1024


QUERIES: dict[str, tuple[str, Query]] = {
    "memory_used": ("bytes", lambda nvml, handle: nvml.nvmlDeviceGetMemoryInfo(handle).used),
    "power": ("mW", lambda nvml, handle: nvml.nvmlDeviceGetPowerUsage(handle)),
    "energy": ("mJ", lambda nvml, handle: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)),
    "sm_clock": ("MHz", lambda nvml, handle: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
    "memory_clock": ("MHz", lambda nvml, handle: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
    "throttle_reasons": ("", throttle_reasons),
    "temperature": ("C", temperature),
    "utilization": ("percent", lambda nvml, handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
    "memory_utilization": ("percent", lambda nvml, handle: nvml.nvmlDeviceGetUtilizationRates(handle).memory),
    "pcie_sent": ("KB/s", lambda nvml, handle: nvml.nvmlDeviceGetPcieThroughput(handle, nvml.NVML_PCIE_UTIL_TX_BYTES)),
    "pcie_received": ("KB/s", lambda nvml, handle: nvml.nvmlDeviceGetPcieThroughput(handle, nvml.NVML_PCIE_UTIL_RX_BYTES)),
    "nvlink_active": ("links", active_links),
    "nvlink_sent": ("bytes", lambda nvml, handle: over_links(nvml, handle, "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX")),
    "nvlink_received": ("bytes", lambda nvml, handle: over_links(nvml, handle, "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX")),
}
"""Unit and query of every counter; `energy` and the bytes of NVLink only grow."""


@dataclass
class Counters:
    """The counters of one device; use it in a `with` block, and `sample` between rounds, never inside one."""

    uuid: str
    """The UUID as torch gives it, with or without `GPU-` or `MIG-`; empty if there is no device."""
    bindings: Any = None
    """The module pynvml, or what a test puts in its place."""
    clock: Clock = wall_clock
    samples: list[tuple[int, dict[str, Reading]]] = field(default_factory=list, init=False)
    """Time in ns and readings, oldest first."""
    handle: Any = field(default=None, init=False)
    reason: str = field(default="", init=False)
    """Why the device cannot be queried at all."""
    opened: bool = field(default=False, init=False)

    def __enter__(self) -> "Counters":
        try:
            self.bindings = self.bindings or import_bindings()
            if not self.uuid:
                raise LookupError("no CUDA device")
            self.bindings.nvmlInit()
            self.opened = True
            self.handle = find(self.bindings, self.uuid)
        except Exception as error:  # nvidia-ml-py raises its own family, made at run time
            self.reason = sentence(error)
        return self

    def __exit__(self, *exception: object) -> None:
        self.handle, self.reason = None, "closed"
        if self.opened:
            self.opened = False
            try:
                self.bindings.nvmlShutdown()
            except Exception as error:  # a lost GPU must not hide what was measured before
                self.reason = sentence(error)

    def snapshot(self) -> dict[str, Reading]:
        """All counters now; each PCIe counter takes about 20 ms."""
        return {name: self.read(unit, query) for name, (unit, query) in QUERIES.items()}

    def read(self, unit: str, query: Query) -> Reading:
        """The reading of one counter, or the reason why it has none."""
        if self.handle is None:
            return Reading(None, unit, self.reason or "not opened")
        try:
            return Reading(checked(query(self.bindings, self.handle)), unit)
        except AttributeError as error:
            return Reading(None, unit, f"this nvidia-ml-py does not have it: {error}")
        except Exception as error:  # as above; one counter that is not supported says nothing about the others
            return Reading(None, unit, sentence(error))

    def sample(self) -> None:
        """Keeps a snapshot; call it between rounds, never inside one."""
        self.samples.append((self.clock(), self.snapshot()))

    def change(self, name: str) -> Reading:
        """The increase of a counter that only grows, from the first sample to the last."""
        if len(self.samples) < 2:
            return Reading(None, QUERIES[name][0], "fewer than two samples")
        first, last = self.samples[0][1][name], self.samples[-1][1][name]
        if isinstance(first.value, str) or isinstance(last.value, str):
            raise TypeError(f"{name} is no number")
        if first.value is None or last.value is None:
            return first if first.value is None else last
        return Reading(last.value - first.value, last.unit)

    def report(self) -> dict[str, str]:
        """The last sample as text; of `energy`, the part used since the first sample."""
        readings = self.samples[-1][1] | {"energy": self.change("energy")}
        reasons = {reading.reason for reading in readings.values()}
        if len(reasons) == 1 and "" not in reasons:
            return {"device": f"n/a: {reasons.pop()}"}
        return {name: str(reading) for name, reading in readings.items()}


def import_bindings() -> Any:
    """The module that nvidia-ml-py installs."""
    import pynvml

    return pynvml


def device_uuid(index: int | None = None) -> str:
    """The UUID of the current or the `index`-th CUDA device; empty if torch sees none."""
    if not torch.cuda.is_available():
        return ""
    return str(torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index).uuid)


def find(nvml: Any, uuid: str) -> Any:
    """NVML's handle; torch gives UUIDs without the prefix that distinguishes a whole GPU from a slice of one."""
    if uuid.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except Exception as error:
        if getattr(error, "value", None) not in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT):
            raise
    return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def checked(value: Value) -> Value:
    """The value; LookupError if it is NVML's number for `not available`."""
    if value in NOT_AVAILABLE:
        raise LookupError("not available")
    return value


def sentence(error: Exception) -> str:
    """The message of an error, or the name of its class if it has none."""
    return str(error) or type(error).__name__
