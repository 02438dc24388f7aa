"""Networks of DARTS cells: the supernet in which cells are searched, and networks of found cells.

Liu et al. 2019 (arXiv:1806.09055), as He et al. 2020 (FedNAS, arXiv:2004.08546) use them. Their names say all about
them: `darts_16x8` is the supernet of 16 channels and 8 cells, and `darts_16x8_NORMAL_REDUCE` a network of the two cells
whose code (`Genotype.code`) follows; with `_auxiliary` after it, it has a second head that only training uses.
"""

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import nn

from common.errors import ArchitectureError
from common.models.darts_operations import MAKERS, Halve, convolve
from common.models.darts_space import EDGES, INPUTS, KINDS, NODES, OPERATIONS, Cell, Genotype
from common.models.description import BaseNetwork

PREFIX = "darts_"
FEWEST_CELLS = 3  # with fewer, both are reduction cells, and nothing is learnt about normal ones
MOST_CHANNELS, MOST_CELLS = 256, 40  # no larger network is built for a stranger
_STEM = 3  # the stem has so many times the channels of the first cell
_FIRST_ALPHAS = 1e-3
_AUXILIARY_SIDE = 8


@dataclass(frozen=True)
class Design:
    """What a network's name says; without a genotype it is the supernet. Raises ArchitectureError for silly sizes."""

    channels: int
    cells: int
    genotype: Genotype | None = None
    auxiliary: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.channels <= MOST_CHANNELS and FEWEST_CELLS <= self.cells <= MOST_CELLS):
            raise ArchitectureError(
                f"a network of DARTS cells has 1 to {MOST_CHANNELS} channels and {FEWEST_CELLS} to {MOST_CELLS} cells, "
                f"not {self.channels} and {self.cells}"
            )
        if self.auxiliary and self.genotype is None:
            raise ArchitectureError("the supernet has no auxiliary head")

    @property
    def name(self) -> str:
        """As a base network is called."""
        code = f"_{self.genotype.code}" if self.genotype else ""
        return f"{PREFIX}{self.channels}x{self.cells}{code}{'_auxiliary' * self.auxiliary}"

    @classmethod
    def of(cls, name: str) -> "Design":
        """The inverse of `name`; raises ArchitectureError."""
        match = re.fullmatch(rf"{PREFIX}([0-9]{{1,3}})x([0-9]{{1,3}})(?:_([a-z0-9]+_[a-z0-9]+?)(_auxiliary)?)?", name)
        if match is None:
            raise ArchitectureError(
                f"{name!r:.80} names no network of DARTS cells; {PREFIX}16x8 is the supernet of 16 channels and 8 "
                f"cells, {PREFIX}16x8_NORMAL_REDUCE a network of two kinds of cells"
            )
        genotype = Genotype.from_code(match[3]) if match[3] else None
        return cls(int(match[1]), int(match[2]), genotype, bool(match[4]))

    @property
    def reductions(self) -> tuple[int, int]:
        """The positions of the two reduction cells, which double the channels."""
        return self.cells // 3, 2 * self.cells // 3


def build_darts(base: BaseNetwork) -> nn.Module:
    """The module of a base network of this kind."""
    design = Design.of(base.model)
    return CellNetwork(design, design.genotype, base) if design.genotype else Supernet(design, base)


class _Stack(nn.Module):
    """Stem, cells and classifier, which both networks have: (N, C, H, W) -> (N, classes)."""

    def __init__(self, design: Design, base: BaseNetwork) -> None:
        super().__init__()
        affine = design.genotype is not None
        stem = _STEM * design.channels
        self.stem = nn.Sequential(nn.Conv2d(base.input_shape[0], stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList()
        before, last, channels, halved = stem, stem, design.channels, False
        for position in range(design.cells):
            reduces = position in design.reductions
            channels *= 1 + reduces
            ends = _Ends(before, last, channels, halved, affine)
            self.cells.append(self.make_cell(design, ends, channels, reduces))
            before, last, halved = last, NODES * channels, reduces
        self.classifier = nn.Linear(last, base.classes)

    @abstractmethod
    def make_cell(self, design: Design, ends: "_Ends", channels: int, reduces: bool) -> nn.Module:
        """The cell of a position."""


class _Ends(nn.Module):
    """Brings the outputs of the two cells before to a cell's channels, and to one size."""

    def __init__(self, before: int, last: int, channels: int, halved: bool, affine: bool) -> None:
        super().__init__()
        self.before = Halve(before, channels, affine) if halved else convolve(before, channels, affine)
        self.last = convolve(last, channels, affine)

    def forward(self, before: torch.Tensor, last: torch.Tensor) -> list[torch.Tensor]:
        """The two inputs of the cell."""
        return [self.before(before), self.last(last)]


class Supernet(_Stack):
    """Every edge is all operations at once, weighted by a softmax of its architecture parameters (DARTS, equation 2).

    `alphas`, shape (2, EDGES, operations), are those of the normal and of the reduction cells.
    """

    def __init__(self, design: Design, base: BaseNetwork) -> None:
        super().__init__(design, base)
        self.alphas = nn.Parameter(_FIRST_ALPHAS * torch.randn(len(KINDS), EDGES, len(OPERATIONS)))

    def make_cell(self, design: Design, ends: _Ends, channels: int, reduces: bool) -> nn.Module:
        """A cell to be searched."""
        return _MixedCell(ends, channels, reduces)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        shares = torch.softmax(self.alphas, dim=-1)
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last, shares)
        result: torch.Tensor = self.classifier(last.mean(dim=(2, 3)))
        return result


class _MixedCell(nn.Module):
    def __init__(self, ends: _Ends, channels: int, reduces: bool) -> None:
        super().__init__()
        self.ends = ends
        self.kind = int(reduces)
        self.edges = nn.ModuleList()
        for node in range(NODES):
            for source in range(INPUTS + node):
                stride = 2 if reduces and source < INPUTS else 1
                self.edges.append(nn.ModuleList(MAKERS[name](channels, stride, False) for name in OPERATIONS[1:]))

    def forward(self, before: torch.Tensor, last: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) twice, and the shares of all operations, -> (N, NODES * channels, H, W)."""
        states, edge = self.ends(before, last), 0
        for _ in range(NODES):
            mixtures = []
            for state in states:
                mixtures.append(_mixture(self.edges[edge], shares[self.kind, edge], state))
                edge += 1
            states = [*states, _sum(mixtures)]
        return torch.cat(states[INPUTS:], dim=1)


def _mixture(operations: nn.Module, shares: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Equation 2 of DARTS; "none", the first, adds nothing, but its share is lost to the others."""
    return _sum([share * operation(state) for share, operation in zip(shares[1:], operations.children(), strict=True)])


def _sum(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return reduce(torch.add, tensors)


class CellNetwork(_Stack):
    """A network of found cells. While training, each operation's output vanishes with probability `drop_path`.

    With an auxiliary head, a forward pass in training mode leaves that head's logits in `auxiliary_logits`.
    """

    def __init__(self, design: Design, genotype: Genotype, base: BaseNetwork) -> None:
        self._genotype = genotype
        super().__init__(design, base)
        self.drop_path = 0.0
        self.auxiliary_logits: torch.Tensor | None = None
        self.auxiliary_head: nn.Module | None = None
        self._second = design.reductions[1]
        if design.auxiliary:
            if min(base.input_shape[1:]) < 4 * _AUXILIARY_SIDE:
                raise ArchitectureError(
                    f"the auxiliary head needs images of at least {4 * _AUXILIARY_SIDE} pixels a side; leave it out"
                )
            self.auxiliary_head = _auxiliary_head(4 * design.channels * NODES, base.classes)

    def make_cell(self, design: Design, ends: _Ends, channels: int, reduces: bool) -> nn.Module:
        """A found cell."""
        return _FoundCell(ends, self._genotype.reduce if reduces else self._genotype.normal, channels, reduces)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        before = last = self.stem(x)
        for position, cell in enumerate(self.cells):
            before, last = last, cell(before, last, self.drop_path if self.training else 0.0)
            if self.training and self.auxiliary_head is not None and position == self._second:
                self.auxiliary_logits = self.auxiliary_head(last)
        result: torch.Tensor = self.classifier(last.mean(dim=(2, 3)))
        return result


class _FoundCell(nn.Module):
    def __init__(self, ends: _Ends, cell: Cell, channels: int, reduces: bool) -> None:
        super().__init__()
        self.ends = ends
        self.sources = [source for _, source in cell]
        self.operations = nn.ModuleList(
            MAKERS[name](channels, 2 if reduces and source < INPUTS else 1, True) for name, source in cell
        )

    def forward(self, before: torch.Tensor, last: torch.Tensor, drop_path: float) -> torch.Tensor:
        states = self.ends(before, last)
        for node in range(NODES):
            first, second = (
                self._edge(2 * node + number, states[self.sources[2 * node + number]], drop_path) for number in (0, 1)
            )
            states.append(first + second)
        return torch.cat(states[INPUTS:], dim=1)

    def _edge(self, number: int, state: torch.Tensor, drop_path: float) -> torch.Tensor:
        operation = self.operations[number]
        made: torch.Tensor = operation(state)
        return made if isinstance(operation, nn.Identity) else dropped(made, drop_path)


def dropped(x: torch.Tensor, probability: float) -> torch.Tensor:
    """(N, C, H, W) with every image's values, all at once, zero with this probability and else scaled up to keep means.

    Larsson et al. 2017 (arXiv:1605.07648), as DARTS uses it; it draws from torch's global generator.
    """
    if probability == 0:
        return x
    kept = 1 - probability
    return x * (torch.rand(len(x), 1, 1, 1, device=x.device) < kept) / kept


def auxiliary_macs(design: Design, base: BaseNetwork) -> int:
    """Multiply-accumulates of the auxiliary head for one image; 0 where there is none."""
    if not design.auxiliary:
        return 0
    height, width = ((-(-side // 4) - 5) // 3 + 1 for side in base.input_shape[1:])
    squeeze = 4 * design.channels * NODES * 128 * height * width
    return squeeze + 4 * 128 * 768 * (height - 1) * (width - 1) + 768 * base.classes


def _auxiliary_head(channels: int, classes: int) -> nn.Module:
    """Logits (N, classes) from the output of the second reduction cell (DARTS, appendix A.1.2)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, stride=3, count_include_pad=False),
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        nn.BatchNorm2d(768),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(768, classes),
    )
