"""The cell space of DARTS as data (Liu et al. 2019, arXiv:1806.09055, section 2.1 and appendix A.1.1), and its cells.

A cell has two inputs (nodes 0 and 1) and four nodes of its own (2 to 5). While searching, each own node has an edge
from every earlier node, 14 in all, and each edge is a mixture of eight operations. A found cell keeps two edges into
each node, with one operation each, and its output is its four nodes side by side.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import ArchitectureError

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""In the order of the columns of the architecture parameters."""

INPUTS, NODES = 2, 4
EDGES = sum(INPUTS + node for node in range(NODES))
KINDS = ("normal", "reduce")
"""Two kinds of cell; a reduction cell halves the sides of its inputs."""

_LETTERS = dict(zip(OPERATIONS[1:], "maistde", strict=True))

Edge: TypeAlias = tuple[str, int]
"""An operation, and the node that it reads."""
Cell: TypeAlias = tuple[Edge, ...]
"""Eight edges: the two into the first own node, into the second, and so on."""


@dataclass(frozen=True)
class Genotype:
    """The two cells of a network; raises ArchitectureError for edges that are not of the space."""

    normal: Cell
    reduce: Cell

    def __post_init__(self) -> None:
        for kind in KINDS:
            _check(getattr(self, kind), kind)

    @property
    def code(self) -> str:
        """Both cells in letters and digits: each edge is the letter of its operation and the node that it reads.

        >>> PUBLISHED["DARTS_V2"].code
        's0s1s0s1s1i0i0d2_m0m1i2m1m0i2i2m1'
        """
        return "_".join("".join(f"{_LETTERS[name]}{node}" for name, node in getattr(self, kind)) for kind in KINDS)

    @classmethod
    def from_code(cls, code: str) -> Self:
        """The inverse of `code`; raises ArchitectureError."""
        names = {letter: name for name, letter in _LETTERS.items()}
        try:
            cells = [
                tuple((names[letter], int(node)) for letter, node in zip(text[::2], text[1::2], strict=True))
                for text in code.split("_")
            ]
            return cls(*cells)
        except (KeyError, ValueError, TypeError):
            raise ArchitectureError(f"{code!r:.80} is not the code of two cells") from None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: for each kind of cell the list of its edges."""
        return {kind: [[name, node] for name, node in getattr(self, kind)] for kind in KINDS}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The inverse of `to_dict`, which looks at no other key; raises ArchitectureError."""
        try:
            return cls(*(tuple((name, node) for name, node in data[kind]) for kind in KINDS))
        except (KeyError, TypeError, ValueError):
            raise ArchitectureError(f"this is no genotype: {reprlib.repr(data)}") from None


def chosen(alphas: NDArray[Any]) -> Genotype:
    """The genotype that architecture parameters of shape (2, EDGES, operations) stand for; DARTS, section 2.4.

    Into each node go the two edges whose strongest operation (by the softmax over the edge's operations, "none" left
    out) is strongest, the stronger first, each with that operation. Of equal ones the earlier node and operation win.
    """
    return Genotype(*(_cell(one) for one in shares_of(alphas)))


def shares_of(alphas: NDArray[Any]) -> NDArray[np.float64]:
    """The softmax over the last dimension, the operations (DARTS, equation 2)."""
    exponentials = np.exp(alphas - alphas.max(axis=-1, keepdims=True), dtype=np.float64)
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares


def _cell(shares: NDArray[Any]) -> Cell:
    strongest = shares[:, 1:].max(axis=1)
    operations = shares[:, 1:].argmax(axis=1) + 1
    edges: list[Edge] = []
    first = 0
    for node in range(NODES):
        sources = INPUTS + node
        order = sorted(range(sources), key=lambda source: -strongest[first + source])
        edges += [(OPERATIONS[operations[first + source]], source) for source in order[:2]]
        first += sources
    return tuple(edges)


def _check(cell: Sequence[Edge], kind: str) -> None:
    if len(cell) != 2 * NODES:
        raise ArchitectureError(f"a {kind} cell has {2 * NODES} edges, not {len(cell)}")
    for position, (name, node) in enumerate(cell):
        own = INPUTS + position // 2
        if name not in OPERATIONS[1:]:
            raise ArchitectureError(f"{name!r:.40} is no operation of a {kind} cell: {', '.join(OPERATIONS[1:])}")
        if not isinstance(node, int) or isinstance(node, bool) or not 0 <= node < own:
            raise ArchitectureError(f"node {own} of a {kind} cell reads nodes 0 to {own - 1}, not {node!r:.40}")
    if any(cell[first][1] == cell[first + 1][1] for first in range(0, len(cell), 2)):
        raise ArchitectureError(f"a node of the {kind} cell reads the same node twice")


HEAVIEST = Genotype(*(tuple(("sep_conv_5x5", number % 2) for number in range(2 * NODES)) for _ in KINDS))
"""No other needs more parameters or multiply-accumulates."""


def _published(normal: str, reduce: str) -> Genotype:
    return Genotype.from_code(f"{normal}_{reduce}")


PUBLISHED: Mapping[str, Genotype] = {
    "FedNAS_V1": _published("s1s0s2t0s1t3e3s4", "m0i1m0m2m0e1m0e2"),
    "DARTS_V2": _published("s0s1s0s1s1i0i0d2", "m0m1i2m1m0i2i2m1"),
}
"""Found by others: FedNAS's, which its program trains (FedML, `model/cv/darts/genotypes.py`), and DARTS's second."""
