"""What a method asks of the devices in a round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from common.arrays import Arrays, ArraySpec
from common.messages import Result
from common.settings import Settings
from server.cohorts import Cohort
from server.devices import Device


@dataclass(frozen=True)
class Order:
    """What one device is told beyond what its whole cohort is: how to do the step, and arrays that only it is sent.

    `macs_per_sample` are the multiply-accumulates that the whole step takes per image of the device, all its passes,
    forward and backward.
    """

    settings: Settings
    macs_per_sample: int
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One request to the devices of a cohort, under a name that its device half knows.

    `arrays` are the same for the whole cohort. `reply` is all that may come back: an answer with other arrays, or with
    values out of their range, never reaches the method. With `in_order` the answers are folded in the canonical order
    of devices, whatever order they come in; without, as they come. `share` is how many of the cohort's devices are
    asked, where it is not the run's `fraction`. `work` are the multiply-accumulates that an admitted answer took, where
    the order alone does not say it.
    """

    name: str
    cohort: Cohort
    arrays: Arrays
    reply: Mapping[str, ArraySpec]
    order: Callable[[Device], Order]
    in_order: bool = True
    share: float | None = None
    work: Callable[[Order, Result], int] | None = None

    def largest_reply(self, rows: int) -> int:
        """Bytes that the arrays of an answer take at most, from a device of so many images."""
        return sum(spec.nbytes(rows) for spec in self.reply.values())
