"""The report's heat map of the partition: how many images of each class each device has."""

from dataclasses import dataclass

from server.report.record import Run

MOST_ROWS = 60
MOST_CLASSES = 30
_LIGHT, _DARK = (243, 248, 252), (86, 160, 211)
_INK = "#1f2328"
"""It can be read on the darkest square: a contrast of 5.6, where WCAG 2.2 asks for 4.5."""


@dataclass(frozen=True)
class Square:
    """One device and class: the count, and colours that can be told apart and read."""

    count: int
    background: str
    ink: str


@dataclass(frozen=True)
class Row:
    """One device."""

    device: str
    squares: tuple[Square, ...]
    total: int


def heat_map(run: Run) -> list[Row]:
    """A row per device, the darkest square where most images are; none where the partition is not known."""
    rows = list(run.partition.items())[:MOST_ROWS]
    most = max((count for _, counts in rows for count in counts), default=0)
    return [
        Row(device, tuple(_square(count, most) for count in counts[:MOST_CLASSES]), sum(counts))
        for device, counts in rows
    ]


def _square(count: int, most: int) -> Square:
    share = count / most if most else 0.0
    red, green, blue = (round(light + (dark - light) * share) for light, dark in zip(_LIGHT, _DARK, strict=True))
    return Square(count, f"rgb({red},{green},{blue})", _INK)
