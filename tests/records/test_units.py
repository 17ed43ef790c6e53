"""Sizes are written for people and read back; everything stored stays in bytes and nanoseconds."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moeprof.records.units import (
    format_bytes,
    format_count,
    format_duration,
    format_significant,
    parse_bandwidth,
    parse_bytes,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4096", 4096),
        ("4096B", 4096),
        ("512MiB", 536_870_912),
        ("1.5GiB", 1_610_612_736),
        (" 200 MB ", 200_000_000),
        ("1K", 1024),
        ("1KB", 1000),
        ("2T", 2_199_023_255_552),
        ("2TB", 2_000_000_000_000),
        ("0", 0),
    ],
)
def test_sizes_are_read_in_binary_and_decimal_units(text: str, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "rate"), [("12GB/s", 12 * 10**9), ("12 GB / s", 12 * 10**9), ("1.5GiB/s", 1_610_612_736), ("900MB", 900 * 10**6)]
)
def test_a_bandwidth_is_a_size_per_second(text: str, rate: int) -> None:
    assert parse_bandwidth(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "12GB/h", "12GB/", "0GB/s", "/s", "12/s/s", "-1GB/s", "0.1B/s"])
def test_what_is_no_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (bandwidth|size)"):
        parse_bandwidth(text)


@pytest.mark.parametrize(("text", "time_ns"), [("2ms", 2_000_000), ("1.5 s", 1_500_000_000), ("350us", 350_000), ("0ns", 0)])
def test_a_duration_is_read_in_nanoseconds(text: str, time_ns: int) -> None:
    assert parse_duration(text) == time_ns


@pytest.mark.parametrize("text", ["", "2", "ms", "2 min", "-2ms", "1e3ms", "2ms 3us"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 2ms"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "lots", "GiB", "-1GiB", "1.GiB", "1e9", "1 Gib", "1gib", "1 GiB 2", "0x10", "nan", "inf"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size such as 512MiB or 2GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.50 KiB"),
        (67_129_344, "64.0 MiB"),
        (20_273_036_820, "18.9 GiB"),
        (2**30 * 1023, "1023 GiB"),
    ],
)
def test_sizes_are_written_with_three_digits_in_the_largest_fitting_unit(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text


@given(st.integers(0, 2**60))
@example(int(1023.7 * 1024))
def test_a_size_that_was_written_is_read_back_to_three_digits(size_bytes: int) -> None:
    assert parse_bytes(format_bytes(size_bytes)) == pytest.approx(size_bytes, rel=0.005)


@given(st.integers(0, 2**60), st.sampled_from(["", "B", " B", "K", "KiB", "MB", " GiB"]))
def test_a_whole_number_of_units_is_read_exactly(count: int, unit: str) -> None:
    factor = {"": 1, "B": 1, "K": 1024, "KiB": 1024, "MB": 10**6, "GiB": 2**30}[unit.strip()]
    assert parse_bytes(f"{count}{unit}") == count * factor


def test_a_size_with_more_digits_than_a_float_holds_is_a_size() -> None:
    assert parse_bytes("9" * 400) == 10**400 - 1


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0 ns"),
        (640, "640 ns"),
        (5_000, "5 us"),
        (3_214_000, "3.21 ms"),
        (90e6, "90 ms"),
        (1.09e9, "1.09 s"),
        (74.2e6, "74.2 ms"),
    ],
)
def test_durations_are_written_in_the_unit_that_suits(duration_ns: float, text: str) -> None:
    assert format_duration(duration_ns) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (51_831_000_000, "51.8 B"),
        (3_750_000, "3.75 M"),
        (960, "960"),
        (9999, "9999"),
        (52_736, "52.7 k"),
        (12.875, "12.9"),
        (0, "0"),
    ],
)
def test_counts_are_written_short(count: float, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("value", "text"), [(64.0, "64"), (12.8125, "12.8"), (2.5, "2.50"), (0.4375, "0.438"), (205.3, "205"), (-1.5, "-1.50")]
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert format_significant(value) == text


@pytest.mark.parametrize(("value", "text"), [(9.999, "10.0"), (99.96, "100"), (0.0001234, "0.000123"), (0.03157, "0.0316")])
def test_three_significant_digits_whatever_the_rounding_carries(value: float, text: str) -> None:
    assert format_significant(value) == text


@pytest.mark.parametrize(("text", "written"), [(format_duration(999_999), "1 ms"), (format_count(999_999), "1 M")])
def test_a_number_that_rounds_up_to_the_next_unit_is_written_in_it(text: str, written: str) -> None:
    assert text in (written, written.replace(" ", ".00 "), written.replace(" ", ".0 "))
