"""Strides left to choose suit the size of the images and the tightest budget; what a user says is kept."""

import pytest

from common.budget import DeviceBudget
from common.errors import ConfigurationError
from common.fleet import virtual_fleet
from common.groups import FleetSettings, ModelSettings
from common.models import describe
from common.models.description import BaseNetwork
from common.rates import COUNTED, LatencyBound
from common.search_space import SearchSpace
from dac.plan import floor_costs
from dac.strides import LADDER, base_of, with_strides

FLEET = [device.budget for device in virtual_fleet(FleetSettings())]
SIX_MILLION = (2, "1,2,2,2,1,2,1")


def chosen(
    side: int, budgets: list[DeviceBudget], model: ModelSettings | None = None, channels: int = 3
) -> tuple[int, str]:
    found = with_strides(model or ModelSettings(), (channels, side, side), 10, budgets)
    return found.stem_stride, found.strides


def floor(side: int, step: tuple[int, str]) -> "DeviceBudget":
    """The budget that the smallest network just breaks."""
    base = base_of(ModelSettings(stem_stride=step[0], strides=step[1]), (3, side, side), 10)
    costs = describe(base).costs(SearchSpace().floor_sizes(describe(base)))
    return DeviceBudget(costs.macs, costs.params, costs.peak_memory_bytes)


def test_the_digits_keep_the_published_strides() -> None:
    assert chosen(8, FLEET, channels=1) == LADDER[0] == (1, "1,1,2,2,1,2,1")


@pytest.mark.parametrize("side", [28, 32, 64, 224])
def test_the_default_fleet_takes_part_at_every_size(side: int) -> None:
    step = chosen(side, FLEET)
    base = base_of(ModelSettings(stem_stride=step[0], strides=step[1]), (3, side, side), 10)
    costs = describe(base).costs(SearchSpace().floor_sizes(describe(base)))
    assert all(one.admits(costs) for one in FLEET)
    if side in (28, 32):
        assert step == SIX_MILLION


def test_without_a_budget_the_image_size_decides_as_in_the_papers() -> None:
    assert chosen(32, []) == (1, "1,1,2,2,1,2,1")
    assert chosen(224, []) == SIX_MILLION  # in all 32, as in table 2 of Sandler et al.


def test_no_more_is_reduced_than_the_tightest_budget_needs() -> None:
    needed = floor(32, LADDER[1])
    enough = DeviceBudget(macs=int(needed.macs / 0.9) + 2)
    assert chosen(32, [enough, DeviceBudget()]) == LADDER[1]
    assert chosen(32, [DeviceBudget(macs=needed.macs)]) == LADDER[2]
    tight_memory = DeviceBudget(peak_memory_bytes=needed.peak_memory_bytes)
    assert chosen(32, [enough, tight_memory]) == LADDER[2]


def test_no_device_is_asked_to_be_as_slow_as_others_in_what_they_are_slow_in() -> None:
    """Half of one's time goes into depthwise convolutions, half of the other's into pointwise ones."""
    base = base_of(ModelSettings(stem_stride=1, strides=LADDER[0][1]), (3, 32, 32), 10)
    work = dict(zip(COUNTED, floor_costs(base, SearchSpace()).work(), strict=True))
    budgets = [
        DeviceBudget(latency=LatencyBound(20.0, tuple(0.5 / work[one] if one == slow else 0.0 for one in COUNTED)))
        for slow in (("depthwise", "mac"), ("pointwise", "mac"))
    ]
    assert chosen(32, budgets) == LADDER[0]


def test_a_device_that_no_strides_help_does_not_decide() -> None:
    assert chosen(8, [*FLEET, DeviceBudget(macs=10)]) == LADDER[0]


def test_parameters_do_not_decide() -> None:
    assert chosen(8, [DeviceBudget(params=10)]) == LADDER[0]


def test_what_a_user_says_is_kept() -> None:
    assert chosen(8, FLEET, ModelSettings(stem_stride=1, strides="1,1,1,1,1,1,1")) == (1, "1,1,1,1,1,1,1")
    assert chosen(64, FLEET, ModelSettings(stem_stride=2)) == (2, "2,2,2,2,1,2,1")
    assert chosen(32, FLEET, ModelSettings(strides="1,2,2,2,1,2,1")) == (2, "1,2,2,2,1,2,1")


def test_networks_without_strides_have_none_chosen() -> None:
    settings = ModelSettings(model="resnet8")
    assert with_strides(settings, (3, 224, 224), 10, FLEET) is settings
    assert base_of(settings, (3, 32, 32), 10) == BaseNetwork("resnet8", (3, 32, 32), 10)


def test_a_stem_stride_has_a_limit() -> None:
    with pytest.raises(ConfigurationError, match="stem-stride must be at most 8"):
        ModelSettings(stem_stride=9)
