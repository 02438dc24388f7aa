"""What a device can afford: strict upper bounds on what an architecture needs to be run, held and trained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from common.errors import BudgetError
from common.rates import LatencyBound

RESOURCES = ("macs", "params", "peak_memory_bytes")
"""What an architecture needs on every device alike."""
WHOLE_NUMBERS = (*RESOURCES, "training_memory_bytes")
BOUNDED = (*WHOLE_NUMBERS, "latency")
"""All that can be bounded; the last two depend on how the device trains, and on how fast it is."""

FLOAT32_BYTES = 4


OPTIMIZERS = {"sgd": 1, "nesterov": 1, "adam": 2, "amsgrad": 3}
"""The optimizers that settings name, and how many values each remembers of every parameter (`make_optimizer`).

Without momentum, plain SGD remembers none.
"""


@dataclass(frozen=True)
class LocalTraining:
    """How a device trains, as far as that takes memory: images per step, and values kept of each parameter.

    The last step of an epoch may take a few images more (`common.data.batches`); memory is counted for the most.
    The optimizer keeps them: none for plain SGD, 1 with momentum, 2 for Adam, 3 for AMSGrad.
    """

    batch_size: int = 16
    kept: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise BudgetError(f"a training step takes at least one image, not {self.batch_size}")
        if not 0 <= self.kept <= max(OPTIMIZERS.values()):
            raise BudgetError(f"no optimizer here keeps {self.kept} values of each parameter")

    @classmethod
    def of(cls, batch_size: int, optimizer: str, momentum: float) -> Self:
        """With one of OPTIMIZERS."""
        return cls(batch_size, 0 if optimizer == "sgd" and momentum == 0 else OPTIMIZERS[optimizer])


USUAL_TRAINING = LocalTraining()
"""How devices train where nothing else is said."""


class Network(Protocol):
    """Where the costs that depend on the device are counted from."""

    def training_memory_bytes(self, training: LocalTraining) -> int:
        """Bytes of weights, gradients, optimizer state and of what the backward pass needs of the forward pass."""

    def work(self) -> Sequence[int]:
        """Units of each of `common.rates.COUNTED` for one image."""


@dataclass(frozen=True)
class Costs:
    """What an architecture needs: exact counts for one image.

    `macs` are multiply-accumulates of convolution and linear layers, `params` are trainable scalars,
    `peak_memory_bytes` is the largest sum of live float32 activations at batch 1. What training takes and how long one
    image takes depend on the device as well; they are counted from `network` when they are asked for.
    """

    macs: int
    params: int
    peak_memory_bytes: int
    network: Network | None = field(default=None, compare=False, repr=False)

    def get(self, resource: str) -> int:
        """The amount of one of RESOURCES."""
        return int(getattr(self, resource))

    def training_memory_bytes(self, training: LocalTraining) -> int:
        """Bytes it takes to train it so."""
        return self._counted_from().training_memory_bytes(training)

    def work(self) -> Sequence[int]:
        """Units of each of `common.rates.COUNTED` for one image."""
        return self._counted_from().work()

    def _counted_from(self) -> Network:
        if self.network is None:
            raise ValueError("these costs were written down, not counted from a network")
        return self.network

    def __str__(self) -> str:
        return f"{self.macs:,} MACs, {self.params:,} parameters and {self.peak_memory_bytes:,} bytes of peak memory"


def largest(costs: Sequence[Costs]) -> Costs:
    """What suffices for any of several networks: the most of each cost, of training memory and of each kind of work."""
    networks = [one.network for one in costs if one.network is not None]
    counts = {resource: max(one.get(resource) for one in costs) for resource in RESOURCES}
    return Costs(**counts, network=_Largest(networks) if len(networks) == len(costs) else None)


@dataclass(frozen=True)
class _Largest:
    """The most of several networks."""

    networks: Sequence[Network]

    def training_memory_bytes(self, training: LocalTraining) -> int:
        return max(one.training_memory_bytes(training) for one in self.networks)

    def work(self) -> Sequence[int]:
        return [max(units) for units in zip(*(one.work() for one in self.networks), strict=True)]


@dataclass(frozen=True)
class DeviceBudget:
    """Strict upper bounds, None where the device does not care. Raises BudgetError for a bound that is not positive.

    `training_memory_bytes` holds while it trains as `training` says, which is of no meaning without that bound.

    >>> DeviceBudget(macs=100).admits(Costs(macs=100, params=1, peak_memory_bytes=4))
    False
    """

    macs: int | None = None
    params: int | None = None
    peak_memory_bytes: int | None = None
    training_memory_bytes: int | None = None
    latency: LatencyBound | None = None
    training: LocalTraining = USUAL_TRAINING

    def __post_init__(self) -> None:
        for resource in WHOLE_NUMBERS:
            bound = getattr(self, resource)
            if bound is None:
                continue
            if isinstance(bound, bool) or not isinstance(bound, int):
                raise BudgetError(f"the {resource} bound must be a whole number, not {bound!r}")
            if bound <= 0:
                raise BudgetError(f"the {resource} bound must be positive, not {bound}")
        if self.training_memory_bytes is None:
            object.__setattr__(self, "training", LocalTraining())  # equal budgets are equal

    def bound(self, resource: str) -> float:
        """The bound on one of BOUNDED, in the unit of `amount`; infinity where there is none."""
        if resource == "latency":
            return math.inf if self.latency is None else 1.0
        value: int | None = getattr(self, resource)
        return math.inf if value is None else value

    def amount(self, costs: Costs, resource: str) -> float:
        """How much of one of BOUNDED `costs` take on this device; 0 of what it does not bound and others do not know.

        Of latency, it is the share of the bound.
        """
        if resource == "training_memory_bytes":
            bounded = self.training_memory_bytes is not None
            return costs.training_memory_bytes(self.training) if bounded else 0
        if resource == "latency":
            return 0.0 if self.latency is None else self.latency.used(costs.work())
        return costs.get(resource)

    def share(self, costs: Costs, resource: str) -> float:
        """How much of what `costs` take of one of BOUNDED the bound leaves, 1 at most."""
        return min(1.0, self.bound(resource) / (self.amount(costs, resource) or 1.0))

    def latency_ms(self, costs: Costs) -> float:
        """Predicted milliseconds of one image on this device; 0 where it does not bound them."""
        return 0.0 if self.latency is None else self.latency.milliseconds * self.amount(costs, "latency")

    def violated(self, costs: Costs) -> list[str]:
        """The resources of which `costs` takes as much as the bound or more."""
        return [resource for resource in BOUNDED if self.amount(costs, resource) >= self.bound(resource)]

    def admits(self, costs: Costs) -> bool:
        """Whether every cost is strictly below its bound."""
        return not self.violated(costs)

    def meet(self, other: "DeviceBudget") -> "DeviceBudget":
        """The budget that is as tight as either: the smaller of each bound."""
        counts: dict[str, Any] = {r: _to_bound(min(self.bound(r), other.bound(r))) for r in WHOLE_NUMBERS}
        latency = self.latency.meet(other.latency) if self.latency and other.latency else self.latency or other.latency
        return DeviceBudget(**counts, latency=latency, training=self._training_with(other, max))

    def join(self, other: "DeviceBudget") -> "DeviceBudget":
        """The tightest budget that is as loose as both: the larger of each bound."""
        counts: dict[str, Any] = {r: _to_bound(max(self.bound(r), other.bound(r))) for r in WHOLE_NUMBERS}
        latency = self.latency.join(other.latency) if self.latency and other.latency else None
        return DeviceBudget(**counts, latency=latency, training=self._training_with(other, min))

    def _training_with(self, other: "DeviceBudget", choose: Any) -> LocalTraining:
        """The training of whoever bounds its memory; of two, the one that takes the most or the least of it."""
        bounded = [one.training for one in (self, other) if one.training_memory_bytes is not None]
        if not bounded:
            return LocalTraining()
        return LocalTraining(choose(one.batch_size for one in bounded), choose(one.kept for one in bounded))

    def within(self, other: "DeviceBudget") -> bool:
        """Whether whatever this budget admits, `other` admits too."""
        if any(self.bound(r) > other.bound(r) for r in BOUNDED):
            return False
        if self.training_memory_bytes is not None and other.training_memory_bytes is not None:
            mine, theirs = self.training, other.training
            if mine.batch_size < theirs.batch_size or mine.kept < theirs.kept:
                return False
        return self.latency is None or other.latency is None or self.latency.within(other.latency)

    def looseness(self) -> tuple[float, ...]:
        """A key that is largest for a budget that lies within no other."""
        shares = () if self.latency is None else self.latency.shares
        counts = tuple(self.bound(r) for r in WHOLE_NUMBERS)
        training = (-self.training.batch_size, -self.training.kept)
        return (*counts, *training, self.bound("latency"), *(-share for share in shares))

    def to_dict(self) -> dict[str, Any]:
        """As JSON: all of RESOURCES, None where there is no bound, and of the others those that are bounded."""
        data: dict[str, Any] = {resource: getattr(self, resource) for resource in RESOURCES}
        if self.training_memory_bytes is not None:
            data["training_memory_bytes"] = self.training_memory_bytes
            data["training"] = {"batch_size": self.training.batch_size, "kept": self.training.kept}
        if self.latency is not None:
            data["latency"] = self.latency.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; keys it does not know are not looked at. Raises BudgetError."""
        training, latency = data.get("training"), data.get("latency")
        counts: dict[str, Any] = {resource: data.get(resource) for resource in WHOLE_NUMBERS}
        try:
            how = LocalTraining() if training is None else LocalTraining(**training)
        except TypeError:
            raise BudgetError(f"training is a batch_size and how many values are kept, not {training!r:.60}") from None
        bound = None if latency is None else LatencyBound.from_dict(latency)
        return cls(**counts, latency=bound, training=how)

    def __str__(self) -> str:
        names = {"macs": "MACs", "params": "parameters", "peak_memory_bytes": "bytes of peak memory"}
        bounds = [f"{getattr(self, r):,} {names[r]}" for r in RESOURCES if getattr(self, r) is not None]
        if self.training_memory_bytes is not None:
            images = self.training.batch_size
            bounds.append(f"{self.training_memory_bytes:,} bytes while it trains in batches of {images} images")
        if self.latency is not None:
            bounds.append(f"{self.latency.milliseconds:g} ms for one image")
        return "below " + ", ".join(bounds) if bounds else "unbounded"


def _to_bound(value: float) -> int | None:
    return None if value == math.inf else int(value)
