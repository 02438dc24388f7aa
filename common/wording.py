"""How numbers and foreign text are written in reports, tables and lines."""

import math

MISSING = "\u2013"
NARROW_SPACE = "\u202f"


def number_of(value: object) -> float:
    """`value` as a number; NaN for anything that is not one, such as the null of a value that was not finite."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def count(value: float) -> str:
    """Three significant digits with an SI prefix: 6123456 -> "6.12 M"."""
    return _scaled(value, ("", "k", "M", "G", "T", "P"), "")


def size(value: float) -> str:
    """Bytes in decimal units: 262144 -> "262 kB"."""
    return _scaled(value, ("", "k", "M", "G", "T", "P"), "B")


def percent(value: float) -> str:
    """A share in percent with one decimal: 0.9427 -> "94.3 %"."""
    return f"{100 * value:.1f}{NARROW_SPACE}%" if math.isfinite(value) else MISSING


def duration(seconds: float) -> str:
    """112.4 -> "1 min 52 s"."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f}{NARROW_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [part for part in parts if part[0]][:2]
    return " ".join(f"{amount}{NARROW_SPACE}{unit}" for amount, unit in shown)


def printable(text: object, limit: int = 300) -> str:
    """Text from a device without control characters, cut to `limit` characters; escaping is the page's work."""
    clean = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def plain(text: str) -> str:
    """`text` with ordinary spaces, as a terminal or a file of plain text shows it."""
    return text.replace(NARROW_SPACE, " ")


def plural(amount: int, noun: str) -> str:
    """`1 round`, `2 rounds`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def _scaled(value: float, prefixes: tuple[str, ...], unit: str) -> str:
    if not math.isfinite(value):
        return MISSING
    power = 0
    # Compared after rounding, so that 999,600 becomes 1 M and not 1000 k.
    while power < len(prefixes) - 1 and float(f"{abs(value) / 1000**power:.3g}") >= 1000:
        power += 1
    scaled = value / 1000**power
    if power == 0:
        digits = f"{scaled:.0f}" if scaled == int(scaled) else f"{scaled:.3g}"
    else:
        digits = f"{scaled:#.3g}".rstrip(".")
    suffix = prefixes[power] + unit
    return f"{digits}{NARROW_SPACE}{suffix}" if suffix else digits
