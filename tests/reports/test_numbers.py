"""Numbers as they are written, by hand."""

import pytest

from twohot.reports.numbers import (
    MINUS,
    format_fixed,
    format_interval,
    format_measurement,
    format_number,
    format_si,
    tick_labels,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12, "12"),
        (-3.14159, f"{MINUS}3.14"),
        (999.96, "1k"),
        (35_000, "35k"),
        (1.2e6, "1.2M"),
        (3e-4, f"3e{MINUS}4"),
        (-2.5e15, f"{MINUS}2.5e15"),
    ],
)
def test_short_numbers(value, text):
    assert format_si(value) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.9, 1e-8, "0.900 ± 0"),
        (0.003, 1e-8, "0.00300 ± 0"),
        (-1234.0, 1e-5, f"{MINUS}1,234 ± 0"),
        (0.0, 1e-8, "0 ± 0"),
        (0.0, 0.0, "0 ± 0"),
        (0.0, 0.0012, "0.0000 ± 0.0012"),
        (-0.0001, 0.01, "0.000 ± 0.010"),
        (1234.5, 0.4, "1,234.50 ± 0.40"),
        (3e-7, 2e-8, f"3e{MINUS}7 ± 2e{MINUS}8"),
        (2.5, None, "2.50"),
        (None, None, "\N{EN DASH}"),
    ],
)
def test_a_standard_error_that_rounding_left_is_none(value, error, text):
    assert format_measurement(value, error) == text


def test_what_is_nothing_beside_another_number_is_zero():
    assert format_measurement(0.3 - 0.1 * 3, 1e-9, beside=0.3) == "0 ± 0"
    assert format_number(1e-8) == f"1e{MINUS}8"
    assert format_number(1e-8, beside=0.5) == "0"
    assert format_interval(-1e-9, 0.25) == "0 to 0.250"
    assert (format_fixed(-0.001), format_fixed(-0.25, 1)) == ("0.00", f"{MINUS}0.2")


def test_ticks_can_be_told_apart():
    assert tick_labels([1000.0, 1000.5, 1001.0]) == ["1k", "1.0005k", "1.001k"]
    assert tick_labels([0.0, 0.5, 1.0]) == ["0", "0.5", "1"]
    assert tick_labels([]) == []
