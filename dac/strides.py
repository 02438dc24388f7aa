"""How strongly MobileNetV2 reduces images, chosen so that the search has something to choose from.

The least reduction is the published one, for 32x32 images. Larger images begin further along: Sandler et al. 2018,
table 2, reduce 224x224 images by 32, so that the last layers see 7x7 positions, and here they see at most 8x8. From
there on the first reduction is taken at which the smallest network of the search fits the tightest budget.
"""

from collections.abc import Iterable
from dataclasses import replace

from common.budget import Costs, DeviceBudget
from common.groups import AUTO_STEM, AUTO_STRIDES, ModelSettings
from common.models import allow_network
from common.models.description import BaseNetwork
from common.search_space import SearchSpace
from dac.plan import floor_costs

PUBLISHED = "1,1,2,2,1,2,1"
LADDER = (
    (1, PUBLISHED),
    (1, "1,2,2,2,1,2,1"),
    (2, "1,2,2,2,1,2,1"),
    (2, "2,2,2,2,1,2,1"),
    (4, "2,2,2,2,1,2,1"),
    (8, "2,2,2,2,1,2,1"),
)
"""Stem stride and strides of the stages, each reducing twice as much as the one before; past 2 pixels are skipped."""

STAGES = (PUBLISHED, "1,2,2,2,1,2,1", "2,2,2,2,1,2,1")
STEMS = (1, 2, 4, 8)
LARGEST_MAP = 8
"""Most positions a side that the last layers see."""

LARGEST_FLOOR = 0.9
"""Most of a budget that the smallest network may take: closer to it all networks of the search are nearly one."""


def is_chosen(settings: ModelSettings) -> bool:
    """Whether nothing is left to choose: both strides are numbers, or the network has none."""
    has_strides = settings.model == "mobilenet_v2"
    return not has_strides or (settings.strides != AUTO_STRIDES and settings.stem_stride != AUTO_STEM)


def with_strides(
    settings: ModelSettings,
    input_shape: tuple[int, int, int],
    classes: int,
    budgets: Iterable[DeviceBudget] = (),
    space: SearchSpace | None = None,
) -> ModelSettings:
    """`settings` with numbers where they say auto; what a user gave is kept.

    `input_shape` is (C, H, W). Budgets that fit at no reduction are left out of the choice, and of those that fit all
    must. Parameters do not count, since strides do not change them. The networks considered
    are those of the search space `inner` with the floor of `space`, whatever its kind, so that methods that are
    compared are cut from one network.
    """
    if is_chosen(settings):
        return settings
    steps = _steps(settings)
    large = [step for step in steps if _last_map(step, input_shape) <= LARGEST_MAP] or steps[-1:]
    space = replace(space or SearchSpace(), kind="inner")
    *candidates, last = (_filled(settings, step) for step in large)
    floors = (_floor(one, input_shape, classes, space) for one in candidates)
    smallest = _floor(last, input_shape, classes, space)
    # each by itself: the meet of devices that are slow in different work may admit nothing
    spare = [one for one in dict.fromkeys(map(_spare, budgets)) if one.admits(smallest)]
    fitting = (
        one for one, floor in zip(candidates, floors, strict=True) if all(budget.admits(floor) for budget in spare)
    )
    return next(fitting, last)


def base_of(settings: ModelSettings, input_shape: tuple[int, int, int], classes: int) -> BaseNetwork:
    """The base network for images of shape (C, H, W); strides that are left to choose suit the size of the images."""
    allow_network(settings.model)
    chosen = with_strides(settings, input_shape, classes)
    if chosen.strides == AUTO_STRIDES:  # a network without strides
        chosen = replace(chosen, strides=PUBLISHED)
    stem = chosen.stem_stride or LADDER[0][0]
    return BaseNetwork(chosen.model, input_shape, classes, chosen.width, stem, _numbers(chosen.strides))


def _numbers(strides: str) -> tuple[int, ...]:
    return tuple(map(int, strides.split(",")))


def _steps(settings: ModelSettings) -> tuple[tuple[int, str], ...]:
    if settings.strides != AUTO_STRIDES:
        return tuple((stem, settings.strides) for stem in STEMS)
    if settings.stem_stride != AUTO_STEM:
        return tuple((settings.stem_stride, stages) for stages in STAGES)
    return LADDER


def _filled(settings: ModelSettings, step: tuple[int, str]) -> ModelSettings:
    stem, stages = step
    return replace(
        settings,
        stem_stride=settings.stem_stride or stem,
        strides=stages if settings.strides == AUTO_STRIDES else settings.strides,
    )


def _last_map(step: tuple[int, str], input_shape: tuple[int, int, int]) -> int:
    """Positions a side that are left of the longer side."""
    side = max(input_shape[1:])
    for stride in (step[0], *_numbers(step[1])):
        side = -(-side // stride)
    return side


def _floor(settings: ModelSettings, input_shape: tuple[int, int, int], classes: int, space: SearchSpace) -> Costs:
    """What the smallest network of the search needs."""
    return floor_costs(base_of(settings, input_shape, classes), space)


def _spare(budget: DeviceBudget) -> DeviceBudget:
    """The part of a budget that the smallest network may take, of what depends on strides."""

    def share(bound: int | None) -> int | None:
        return None if bound is None else max(1, int(LARGEST_FLOOR * bound))

    return DeviceBudget(
        macs=share(budget.macs),
        peak_memory_bytes=share(budget.peak_memory_bytes),
        training_memory_bytes=share(budget.training_memory_bytes),
        latency=budget.latency and budget.latency.loosened(LARGEST_FLOOR),
        training=budget.training,
    )
