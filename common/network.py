"""What the federation needs of a network, whichever kind it is."""

from typing import Protocol, Self

from torch import nn

from common.budget import Costs
from common.layout import Layout


class Network(Protocol):
    """A network as immutable data: what is sent to a device, built there, and counted against its budget."""

    def __hash__(self) -> int:
        """Equal networks have equal hashes."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images it takes."""

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""

    @property
    def costs(self) -> Costs:
        """What it needs, for one image."""

    @property
    def layout(self) -> Layout:
        """How its weights lie in one flat vector."""

    def build(self, seed: int | None = None) -> nn.Module:
        """A fresh module; with `seed` its initial weights depend on nothing else."""

    def to_json(self) -> str:
        """Compact JSON, the same for equal networks."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; raises ArchitectureError."""
