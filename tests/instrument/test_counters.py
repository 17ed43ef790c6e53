"""Counters are found by UUID, fail one by one, and say why."""

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from moeprof.instrument.counters import QUERIES, Counters, Reading, device_uuid
from moeprof.instrument.timing import PreparedRound, interleaved

UUID = "3f0a1b2c-0000-1111-2222-333344445555"
CODES = sorted(code for code in pynvml.NVMLError._valClassMapping)


class FakeNvml:
    """A driver with one GPU; `broken` functions raise what stands beside their names, `absent` ones do not exist."""

    NVMLError = pynvml.NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM = pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM
    NVML_PCIE_UTIL_TX_BYTES, NVML_PCIE_UTIL_RX_BYTES = 0, 1
    NVML_TEMPERATURE_GPU, NVML_NVLINK_MAX_LINKS = 0, 36
    NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX = 138, 139
    NVML_ERROR_NOT_FOUND, NVML_ERROR_INVALID_ARGUMENT = pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT

    def __init__(
        self, broken: dict[str, Exception] | None = None, absent: tuple[str, ...] = (), known: str = f"GPU-{UUID}"
    ) -> None:
        self.broken, self.absent, self.known = broken or {}, absent, known
        self.calls: list[str] = []
        self.energy = 1_000
        self.answers: dict[str, Any] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetHandleByUUID": self.handle,
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=5 * 2**30),
            "nvmlDeviceGetPowerUsage": lambda handle: 321_000,
            "nvmlDeviceGetTotalEnergyConsumption": self.grown_energy,
            "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1980, 2: 2619}[kind],
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: 0x4 | 0x20,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: 0x400,
            "nvmlDeviceGetTemperatureV": lambda handle, sensor: 61,
            "nvmlDeviceGetTemperature": lambda handle, sensor: 60,
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=97, memory=40),
            "nvmlDeviceGetPcieThroughput": lambda handle, way: (100, 200)[way],
            "nvmlDeviceGetNvLinkState": self.link_state,
            "nvmlDeviceGetFieldValues": lambda handle, fields: [
                SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(ullVal=fields[0][0]))
            ],
        }

    def __getattr__(self, name: str) -> Any:
        if name in self.absent or name not in self.answers:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.broken:
                raise self.broken[name]
            return self.answers[name](*arguments)

        return call

    def handle(self, uuid: str) -> str:
        if uuid != self.known:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return f"handle of {uuid}"

    def grown_energy(self, handle: str) -> int:
        self.energy += 500
        return self.energy

    def link_state(self, handle: str, link: int) -> int:
        if link >= 18:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return int(link != 3)


def snapshot(nvml: FakeNvml, uuid: str = UUID) -> dict[str, Reading]:
    with Counters(uuid, nvml) as counters:
        return counters.snapshot()


def test_every_counter_of_a_device_that_answers_has_its_value_and_unit() -> None:
    found = {name: (reading.value, reading.unit) for name, reading in snapshot(FakeNvml()).items()}
    assert found == {
        "memory_used": (5 * 2**30, "bytes"),
        "power": (321_000, "mW"),
        "energy": (1_500, "mJ"),
        "sm_clock": (1980, "MHz"),
        "memory_clock": (2619, "MHz"),
        "throttle_reasons": ("sw_power_cap, sw_thermal", ""),
        "temperature": (61, "C"),
        "utilization": (97, "percent"),
        "memory_utilization": (40, "percent"),
        "pcie_sent": (100, "KB/s"),
        "pcie_received": (200, "KB/s"),
        "nvlink_active": (17, "links"),
        "nvlink_sent": (138 * 1024, "bytes"),
        "nvlink_received": (139 * 1024, "bytes"),
    }


@pytest.mark.parametrize("uuid", [UUID, f"GPU-{UUID}"])
def test_a_gpu_is_found_by_its_uuid_with_or_without_the_prefix(uuid: str) -> None:
    with Counters(uuid, FakeNvml()) as counters:
        assert counters.handle == f"handle of GPU-{UUID}"


@pytest.mark.parametrize("uuid", [UUID, f"MIG-{UUID}"])
def test_a_slice_of_a_gpu_is_found_too(uuid: str) -> None:
    with Counters(uuid, FakeNvml(known=f"MIG-{UUID}")) as counters:
        assert counters.handle == f"handle of MIG-{UUID}"


def test_a_uuid_that_the_driver_does_not_know_leaves_every_counter_without_a_value() -> None:
    readings = snapshot(FakeNvml(), "ffffffff-0000-1111-2222-333344445555")
    assert {str(reading) for reading in readings.values()} == {"n/a: Not Found"}


def test_a_lost_gpu_is_not_looked_for_among_the_slices() -> None:
    nvml = FakeNvml({"nvmlDeviceGetHandleByUUID": pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)})
    assert snapshot(nvml)["power"].reason == "GPU is lost"
    assert nvml.calls.count("nvmlDeviceGetHandleByUUID") == 1


@pytest.mark.parametrize("code", CODES)
def test_a_driver_that_does_not_start_gives_its_reason_for_every_counter(code: int) -> None:
    error = pynvml.NVMLError(code)
    readings = snapshot(FakeNvml({"nvmlInit": error}))
    assert set(readings) == set(QUERIES)
    assert all(reading.value is None and reading.reason == str(error) for reading in readings.values())


@pytest.mark.parametrize("code", CODES)
def test_one_query_that_fails_says_nothing_about_the_others(code: int) -> None:
    error = pynvml.NVMLError(code)
    readings = snapshot(FakeNvml({"nvmlDeviceGetPowerUsage": error}))
    assert readings["power"] == Reading(None, "mW", str(error))
    assert [name for name, reading in readings.items() if reading.value is None] == ["power"]


@pytest.mark.parametrize(
    ("function", "counters"),
    [
        ("nvmlDeviceGetMemoryInfo", ["memory_used"]),
        ("nvmlDeviceGetTotalEnergyConsumption", ["energy"]),
        ("nvmlDeviceGetClockInfo", ["sm_clock", "memory_clock"]),
        ("nvmlDeviceGetUtilizationRates", ["utilization", "memory_utilization"]),
        ("nvmlDeviceGetPcieThroughput", ["pcie_sent", "pcie_received"]),
        ("nvmlDeviceGetNvLinkState", ["nvlink_active"]),
        ("nvmlDeviceGetFieldValues", ["nvlink_sent", "nvlink_received"]),
    ],
)
def test_what_a_device_does_not_support_is_missing_alone(function: str, counters: list[str]) -> None:
    unsupported = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    for nvml in (FakeNvml({function: unsupported}), FakeNvml(absent=(function,))):
        readings = snapshot(nvml)
        assert [name for name, reading in readings.items() if reading.value is None] == counters
    assert function in readings[counters[0]].reason


def test_older_bindings_and_drivers_are_asked_by_the_older_names() -> None:
    newer = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTemperatureV")
    unknown = pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    for nvml in (FakeNvml(absent=newer), FakeNvml(dict.fromkeys(newer, unknown))):
        readings = snapshot(nvml)
        assert (readings["throttle_reasons"].value, readings["temperature"].value) == ("0x400", 60)


def test_a_device_that_is_not_throttled_says_none() -> None:
    nvml = FakeNvml()
    nvml.answers["nvmlDeviceGetCurrentClocksEventReasons"] = lambda handle: 0
    assert snapshot(nvml)["throttle_reasons"] == Reading("none", "")


def test_a_field_that_the_driver_could_not_read_gives_the_fields_own_error() -> None:
    nvml = FakeNvml()
    nvml.answers["nvmlDeviceGetFieldValues"] = lambda handle, fields: [SimpleNamespace(nvmlReturn=3)]
    assert snapshot(nvml)["nvlink_sent"] == Reading(None, "bytes", "Not Supported")


@pytest.mark.parametrize("number", [2**32 - 1, 2**64 - 1])
def test_the_number_for_not_available_is_no_value(number: int) -> None:
    nvml = FakeNvml()
    nvml.answers["nvmlDeviceGetPowerUsage"] = lambda handle: number
    assert snapshot(nvml)["power"] == Reading(None, "mW", "not available")


def test_missing_bindings_and_a_missing_device_are_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise ModuleNotFoundError("No module named 'pynvml'")

    monkeypatch.setattr("moeprof.instrument.counters.import_bindings", absent)
    with Counters(UUID) as counters:
        assert str(counters.snapshot()["power"]) == "n/a: No module named 'pynvml'"
    assert str(snapshot(FakeNvml(), "")["power"]) == "n/a: no CUDA device"


def test_the_real_bindings_answer_on_this_machine_or_say_why_not() -> None:
    with Counters(device_uuid()) as counters:
        assert all((reading.value is None) == bool(reading.reason) for reading in counters.snapshot().values())


def test_torch_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: SimpleNamespace(uuid=f"uuid {index}"))
    assert (device_uuid(), device_uuid(0)) == ("uuid 1", "uuid 0")


def test_the_change_of_a_growing_counter_is_last_minus_first() -> None:
    with Counters(UUID, FakeNvml(), iter(range(10)).__next__) as counters:
        assert counters.change("energy").reason == "fewer than two samples"
        for _ in range(3):
            counters.sample()
        assert counters.change("energy") == Reading(1_000, "mJ")
        assert [time_ns for time_ns, _ in counters.samples] == [0, 1, 2]


def test_a_change_over_a_missing_reading_gives_its_reason() -> None:
    nvml = FakeNvml()
    with Counters(UUID, nvml) as counters:
        counters.sample()
        nvml.broken["nvmlDeviceGetTotalEnergyConsumption"] = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        counters.sample()
        assert counters.change("energy") == Reading(None, "mJ", "GPU is lost")
        with pytest.raises(TypeError, match="throttle_reasons is no number"):
            counters.change("throttle_reasons")


def test_sampling_between_rounds_asks_nothing_inside_a_round() -> None:
    nvml, seen = FakeNvml(), []

    def clock() -> int:
        seen.append(len(nvml.calls))
        return len(seen)

    with Counters(UUID, nvml) as counters:
        interleaved({"static": PreparedRound(lambda: None)}, rounds=3, warmup=0, clock=clock, between=counters.sample)
    starts, ends = seen[0::2], seen[1::2]
    assert starts == ends
    assert starts == sorted(set(starts))
    assert len(counters.samples) == 3


def test_the_driver_is_let_go_once_even_where_that_fails() -> None:
    nvml = FakeNvml({"nvmlShutdown": pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)})
    with Counters(UUID, nvml) as counters:
        pass
    assert nvml.calls.count("nvmlShutdown") == 1
    assert str(counters.snapshot()["power"]) == "n/a: GPU is lost"
