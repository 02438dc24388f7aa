"""How long each kind of operation takes on this machine, as PyTorch runs it: one image at a time, evaluation mode.

First every kind is measured alone: rows of equal layers of several sizes, whose times are explained by so long per
call, per multiply-accumulate and per value read or written, none of them negative, by the least sum of squared relative
errors. In a network the same layers take two to three times as long, because the others drive their code and data from
the caches; how much longer is one factor for a network, taken from a few random parts of it. They are such parts as
the search may end with: widths that are multiples of 8 are up to a fifth faster per multiply-accumulate than others.

Every time is the least of several runs, taken in turn, so that other work on the machine disturbs all alike. Measuring
stops after a few seconds on slow machines, which then have fewer runs to take the least of, but at least two.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from common.architecture import Architecture
from common.learning import place
from common.models.description import BaseNetwork
from common.rates import COUNTED, FIGURES, KINDS, Rates
from common.search_space import SearchSpace
from common.seeds import numpy_generator

PARTS = 8
RUNS, LEAST_RUNS, IN_A_ROW = 8, 2, 3
LONGEST_SECONDS = 5.0
ROW = 6  # equal layers in a row
SIZES = ((8, 16), (16, 32), (32, 4), (32, 16), (64, 8), (128, 2), (128, 8), (256, 4))  # channels, side of the image
SMALLEST_SHARES = (0.1, 0.3, 0.6)  # of a group's channels that a part of a network keeps at least, in turn
REMOVED_BLOCKS = 0.3

Clock = Callable[[], float]


def measured_rates(base: BaseNetwork, space: SearchSpace, clock: Clock | None = None) -> Rates:
    """What each kind of operation takes on this machine in those parts of the network that `space` holds."""
    clock = clock or fair_clock()
    alone = layer_rates(clock)
    parts = [random_part(base, space, number) for number in range(PARTS)]
    factor = slowdown(alone, parts, seconds_of(parts, clock=clock))
    return Rates(tuple(factor * seconds for seconds in alone.seconds))


def fair_clock() -> Clock:
    """Seconds of this process where it computes with one thread, which other processes do not lengthen; else of all."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def seconds_of(
    architectures: Sequence[Architecture],
    runs: int = RUNS,
    clock: Clock | None = None,
    longest_seconds: float = LONGEST_SECONDS,
) -> list[float]:
    """The least time of one image through each network."""
    modules = [place(one.build(0), torch.device("cpu")).eval() for one in architectures]
    images = [_image(1, *one.input_shape) for one in architectures]
    return _least_seconds(modules, images, runs, clock or fair_clock(), longest_seconds)


def random_part(base: BaseNetwork, space: SearchSpace, number: int) -> Architecture:
    """Random channels of every group that `space` may narrow, and most of its blocks; the same for the same number."""
    generator = numpy_generator(number, "part")
    whole = Architecture.full(base)
    least = SMALLEST_SHARES[number % len(SMALLEST_SHARES)]
    kept = {}
    for group in space.groups(whole.description):
        size = int(generator.integers(max(1, int(group.size * least)), group.size + 1))
        allowed = size if size == group.size else space.next_size(size + 1)
        kept[group.name] = range(max(space.least(group), allowed))
    gone = [block.name for block in space.blocks(whole.description) if generator.random() < REMOVED_BLOCKS]
    return Architecture.with_kept(base, kept, gone)


def slowdown(rates: Rates, architectures: Sequence[Architecture], seconds: Sequence[float]) -> float:
    """The factor by which the rates explain the times best, by the sum of squared relative errors."""
    predicted = np.array([rates.seconds_for(one.costs.work()) for one in architectures]) / np.array(seconds)
    return float(predicted.sum() / (predicted**2).sum())


@lru_cache(maxsize=1)
def layer_rates(clock: Clock) -> Rates:
    """What each kind of operation takes where nothing else runs."""
    rows = [_row(kind, *size) for kind in KINDS for size in SIZES]
    seconds = np.array(_least_seconds([one.module for one in rows], [one.image for one in rows], RUNS, clock))
    work = np.array([one.work for one in rows], dtype=float)
    found: dict[tuple[str, str], float] = {}
    for kind in KINDS:
        mine = [number for number, one in enumerate(rows) if one.kind == kind]
        found |= zip(((kind, figure) for figure in FIGURES), fitted(work[mine], seconds[mine]), strict=True)
    return Rates(tuple(found[one] for one in COUNTED))


def fitted(work: np.ndarray, seconds: np.ndarray) -> list[float]:
    """Seconds per unit of each column of `work`, none negative, that explain the times of its rows best."""
    from scipy.optimize import nnls

    scale = np.maximum(work.max(axis=0), 1.0)  # columns of like size
    found, _ = nnls(work / scale / seconds[:, None], np.ones(len(work)))
    return [float(one) for one in found / scale]


@dataclass(frozen=True)
class _Row:
    """Equal layers one after the other, and the calls, multiply-accumulates and values of them all."""

    kind: str
    module: nn.Module
    image: torch.Tensor
    work: tuple[int, int, int]


def _row(kind: str, channels: int, side: int) -> _Row:
    if kind == "linear":
        channels, side = channels * side // 2, 1
    layers = [_layer(kind, channels) for _ in range(ROW)]
    positions = side * side
    weights = sum(one.weight.numel() for one in layers if isinstance(one, nn.Conv2d | nn.Linear))
    module = place(nn.Sequential(*layers), torch.device("cpu")).eval()
    image = torch.randn(1, channels) if kind == "linear" else _image(1, channels, side, side)
    return _Row(kind, module, image, (ROW, weights * positions, ROW * 2 * channels * positions))


def _layer(kind: str, channels: int) -> nn.Module:
    if kind == "conv":
        return nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    if kind == "pointwise":
        return nn.Conv2d(channels, channels, 1, bias=False)
    if kind == "depthwise":
        return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    if kind == "grouped":
        return nn.Conv2d(channels, channels, 3, padding=1, groups=4, bias=False)
    if kind == "linear":
        return nn.Linear(channels, channels, bias=False)
    return nn.BatchNorm2d(channels) if kind == "batch_norm" else nn.ReLU()


def _least_seconds(
    modules: Sequence[nn.Module],
    images: Sequence[torch.Tensor],
    runs: int,
    clock: Clock,
    longest_seconds: float = LONGEST_SECONDS,
) -> list[float]:
    least = [float("inf")] * len(modules)
    begin = clock()
    with torch.inference_mode():
        for run in range(1 + runs):  # the first, which allocates, does not count
            if run > LEAST_RUNS and clock() - begin > longest_seconds:
                break
            for number, (module, image) in enumerate(zip(modules, images, strict=True)):
                for _ in range(IN_A_ROW):
                    start = clock()
                    module(image)
                    taken = clock() - start
                    least[number] = min(least[number], taken) if run else least[number]
    return least


def _image(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator).to(memory_format=torch.channels_last)
