"""Fresh weights: residual blocks begin as the identity."""

import pytest
import torch

from common.architecture import Architecture
from common.initial_weights import fresh
from common.models import allow_network
from common.models.description import BaseNetwork

NETWORKS = [
    BaseNetwork("mobilenet_v2", (3, 16, 16), 5, 0.25),
    BaseNetwork("resnet8", (1, 8, 8), 4),
    BaseNetwork("resnet20", (3, 16, 16), 10),
]


@pytest.mark.parametrize("base", NETWORKS, ids=lambda base: base.model)
def test_a_network_begins_as_if_it_had_none_of_the_blocks_that_could_vanish(base: BaseNetwork) -> None:
    full = Architecture.full(base)
    module = fresh(full, 3).eval()
    shallow = Architecture.with_kept(base, {}, [block.name for block in full.description.blocks])
    state = module.state_dict()
    without = shallow.build_from({name: state[name] for name in shallow.build(0).state_dict()}).eval()
    images = torch.randn(4, *base.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(module(images), without(images), atol=1e-6)


@pytest.mark.parametrize("base", NETWORKS, ids=lambda base: base.model)
def test_nothing_but_the_last_scales_of_these_blocks_differs_from_the_module_as_it_is_built(base: BaseNetwork) -> None:
    full = Architecture.full(base)
    before, after = full.build(3).state_dict(), fresh(full, 3).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{block.scale}.weight" for block in full.description.blocks}
    as_built = fresh(full, 3, zero_init_residual=False).state_dict()
    assert all(torch.equal(before[name], as_built[name]) for name in before)


def test_blocks_that_are_gone_are_passed_over() -> None:
    full = Architecture.full(NETWORKS[0])
    gone = full.description.blocks[0].name
    architecture = Architecture.with_kept(NETWORKS[0], {}, [gone])
    kept = [block.scale for block in full.description.blocks if block.name != gone]
    state = fresh(architecture, 0).state_dict()
    assert all(not state[f"{scale}.weight"].any() for scale in kept)


def test_a_scale_that_its_author_set_and_pretrained_statistics_are_left_alone() -> None:
    model = "tests.common.models.users:residual"
    allow_network(model)
    full = Architecture.full(BaseNetwork(model, (1, 8, 8), 4))
    assert [block.scale for block in full.description.blocks] == [f"{number}.norm" for number in (1, 2, 3, 4)]
    scales = {name: value for name, value in fresh(full, 0).named_parameters() if name.endswith("norm.weight")}
    assert {name: set(value.tolist()) for name, value in scales.items()} == {
        "1.norm.weight": {0.0},
        "2.norm.weight": {torch.tensor(0.7).item()},
        "3.norm.weight": {1.0},
        "4.norm.weight": {1.0},
    }
