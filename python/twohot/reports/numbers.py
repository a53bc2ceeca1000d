"""How a number is written, wherever a person reads one: on axes, in tables of a page, on a terminal."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"
"""What stands for a number that was not measured."""
ROUNDING = 1e-5
"""Of what a number stands beside, the share below which it is what rounding left of a 0."""


def format_si(value: float, digits: int = 3) -> str:
    """A number as a tick or a narrow cell shows it: `1.2M`, `35k`, `0.125`, `3e−4`, `1e15`."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e12:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", MINUS)
    for scale, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")):
        # 999.96 rounds up into the next scale
        if float(f"{abs(value):.{digits}g}") >= scale:
            text = f"{value / scale:.{digits}g}"
            return (f"{float(text):.0f}" if "e" in text else text).replace("-", MINUS) + suffix
    return f"{value:.{digits}g}".replace("-", MINUS)


def format_number(value: float | None, beside: float = 0.0) -> str:
    """A number in three significant digits, or whole with separators; a dash for None.

    Args:
        value: the number. beside: one that is read with it, such as a mean beside its bound: what is nothing against
            that is 0.
    """
    if value is None:
        return NOTHING
    if abs(value) < ROUNDING * abs(beside):
        return "0"
    if 1e-3 <= abs(value) < 1e7:
        text = f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:#.3g}".rstrip(".")
        return text.replace("-", MINUS)
    return format_si(value)


def format_measurement(value: float | None, error: float | None, beside: float = 0.0) -> str:
    """Value ± standard error, the error to two digits and the value to the error's precision.

    Of returns that are all the same, rounding leaves a standard error of about 1e-8 of them, which is 0.

    Args:
        value: the number. error: its standard error; None where it was not measured. beside: as for `format_number`.
    """
    if value is None or error is None:
        return format_number(value, beside)
    beside = max(abs(beside), abs(value))
    # Beside an exact 0 there is nothing that says what is small: rewards are of order 1.
    if error < ROUNDING * (beside or 1e-2):
        return f"{format_number(value, beside)} ± 0"
    decimals = 1 - math.floor(math.log10(error))
    if decimals > 6:
        return f"{format_number(value, beside)} ± {format_number(error)}"
    value, error = round(value, decimals) + 0.0, round(error, decimals)
    return f"{value:,.{max(decimals, 0)}f} ± {error:,.{max(decimals, 0)}f}".replace("-", MINUS)


def format_interval(low: float, high: float, beside: float = 0.0) -> str:
    """The bounds of an interval, `0.25 to 0.75`."""
    beside = max(abs(low), abs(high), abs(beside))
    return f"{format_number(low, beside)} to {format_number(high, beside)}"


def format_fixed(value: float | None, decimals: int = 2) -> str:
    """A number with this many decimals, for columns of scores; a dash for None."""
    return NOTHING if value is None else f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def tick_labels(values: list[float]) -> list[str]:
    """Numbers of an axis in as few digits, three at least, as tell them apart."""
    for digits in range(3, 17):
        labels = [format_si(value, digits) for value in values]
        if len(set(labels)) == len(set(values)):
            break
    return labels if values else []
