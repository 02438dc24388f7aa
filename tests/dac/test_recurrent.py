"""Recurrent layers keep all their channels, and the convolutions before them are searched."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.learning import Feed, evaluate
from common.models import allow_network
from common.models.description import BaseNetwork
from tests.dac.test_search import SETTINGS, run

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "gates"), [("gru", 3), ("lstm", 4)])
def test_a_recurrent_network_is_counted_and_searched(
    name: str, gates: int, feeds: tuple[Feed, Feed], tmp_path: Path
) -> None:
    base = BaseNetwork(f"tests.common.models.users:{name}", (1, 8, 8), 4)
    allow_network(base.model)
    full = Architecture.full(base)
    pixels = 16
    recurrent = pixels * gates * 10 * (6 + 10)
    assert full.costs.macs == pixels * 9 * (8 + 8 * 6) + recurrent + 10 * 4
    assert [group.name for group in full.description.reducible] == ["stem"]
    frozen = {group.name: group.frozen for group in full.description.groups}
    assert frozen["body"].endswith("in layer is not understood")
    budgets = [DeviceBudget(macs=full.costs.macs - removed * pixels * 9 * 7) for removed in (1, 4)]
    settings = replace(SETTINGS, joint_epochs=1, channel_floor=2)
    family = run(feeds, tmp_path, budgets=budgets, settings=settings, base=base)
    assert [len(one.architecture.indices["stem"]) for one in family.members] == [6, 2]  # in steps of two
    whole = full.build(0).state_dict()
    for member in family.members:
        module = member.architecture.build_from(member.state)
        assert evaluate(module, feeds[1], CPU).accuracy == member.validation_accuracy
        assert not torch.equal(member.state["layer.weight_hh_l0"], whole["layer.weight_hh_l0"])
