"""A supernet with gates at zero and the network cut out of it are the same function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.models import allow_network
from common.models.description import BaseNetwork
from common.seeds import torch_generator
from dac.attic import Attic
from dac.supernet import Supernet, make_optimizer, momentum_of, restore_momentum
from tests.examples import examples

BASES = {
    "mobilenet_v2": BaseNetwork("mobilenet_v2", (1, 8, 8), 10, width=0.25),
    "mobilenet_v2-colour": BaseNetwork("mobilenet_v2", (3, 16, 16), 5, width=0.25, stem_stride=2),
    "cnn": BaseNetwork("cnn", (1, 8, 8), 10, width=2.0),
    "mlp": BaseNetwork("mlp", (1, 8, 8), 10),
}
SEPARABLE = ("separable", "biased_separable", "multiplied_separable", "plain_normed_separable")
BASES |= {name: BaseNetwork(f"tests.common.models.strangers:{name}", (3, 8, 8), 10) for name in SEPARABLE}
WHOLE = ("sequential", "children", "split")
"""Networks that run all their children."""
BASES |= {name: BaseNetwork(f"tests.common.models.users:{name}", (3, 8, 8), 10) for name in WHOLE}
BRANCHES = ("two_branches", "mixed_branches")
"""Networks with several readers of what a depthwise convolution reads."""
BASES |= {name: BaseNetwork(f"tests.common.models.users:{name}", (3, 8, 8), 10) for name in BRANCHES}
for one in (*SEPARABLE, *WHOLE, *BRANCHES):
    allow_network(BASES[one].model)
CPU = torch.device("cpu")


def trained_supernet(base: BaseNetwork, position: str, seed: int) -> Supernet:
    """A supernet whose weights, statistics and gates are all away from their initial values."""
    supernet = Supernet(Architecture.full(base), position, seed, CPU)
    generator = torch_generator(seed, "values")
    with torch.no_grad():
        for gate in supernet.gates.values():
            gate.weight.copy_(torch.rand(gate.weight.shape, generator=generator) * 1.5 + 0.05)
        for name, value in supernet.module.state_dict().items():
            if name.endswith(("norm.bias", "running_mean")):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
            elif name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return supernet


def random_part(base: BaseNetwork, seed: int) -> Architecture:
    """An architecture that keeps a random half of every prunable group."""
    full = Architecture.full(base)
    kept = {}
    for group in full.description.prunable:
        order = torch.randperm(group.size, generator=torch_generator(seed, group.name))
        kept[group.name] = sorted(order[: max(1, group.size // 2)].tolist())
    return Architecture.with_kept(base, kept)


@settings(max_examples=examples(12), deadline=None)
@given(
    name=st.sampled_from(sorted(BASES)),
    position=st.sampled_from(["before-depthwise", "after-depthwise"]),
    seed=st.integers(0, 10_000),
)
def test_masked_supernet_equals_sliced_network(name: str, position: str, seed: int) -> None:
    check_that_slicing_is_masking(BASES[name], position, seed)


@pytest.mark.parametrize("name", SEPARABLE)
def test_whatever_the_norms_and_the_depthwise_convolution_are_like(name: str) -> None:
    check_that_slicing_is_masking(BASES[name], "before-depthwise", 0)


def test_a_published_gate_needs_one_filter_per_channel_and_norms_with_weights() -> None:
    gates = {name: sorted(Architecture.full(BASES[name]).description.depthwise_gates) for name in SEPARABLE}
    assert gates == {
        "separable": ["stem"],
        "biased_separable": ["stem"],
        "multiplied_separable": [],
        "plain_normed_separable": [],
    }


def check_that_slicing_is_masking(base: BaseNetwork, position: str, seed: int) -> None:
    supernet, part = trained_supernet(base, position, seed), random_part(base, seed)
    sliced = part.build(seed + 1)
    sliced.load_state_dict(supernet.extract(part))
    with torch.no_grad():
        for group, gate in supernet.gates.items():
            closed = sorted(set(range(len(gate.weight))) - set(part.indices[group]))
            gate.weight[closed] = 0.0
    images = torch.randn(4, *base.input_shape, generator=torch_generator(seed, "images"))
    with torch.no_grad():
        masked_logits = supernet.module.eval()(images)
        sliced_logits = sliced.eval()(images)
    torch.testing.assert_close(sliced_logits, masked_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BRANCHES)
def test_a_group_with_several_readers_is_gated_before_each_of_them(name: str) -> None:
    check_that_slicing_is_masking(BASES[name], "before-depthwise", 0)


@pytest.mark.parametrize("name", WHOLE)
def test_a_network_that_runs_all_its_children_does_not_run_its_gates(name: str) -> None:
    check_that_slicing_is_masking(BASES[name], "after-depthwise", 0)
    supernet = trained_supernet(BASES[name], "after-depthwise", 0)
    assert list(supernet.network.state_dict()) == list(supernet.architecture.build(0).state_dict())
    names = [parameter for parameter, _ in supernet.module.named_parameters()]
    assert names == [one for one in supernet.module.state_dict() if one in names]
    twin = supernet.copy()
    assert all(torch.equal(value, twin.state()[one]) for one, value in supernet.state().items())


@pytest.mark.parametrize("position", ["before-depthwise", "after-depthwise"])
def test_extracting_everything_changes_nothing(position: str) -> None:
    base = BASES["mobilenet_v2"]
    supernet = trained_supernet(base, position, 3)
    whole = supernet.architecture.build(0)
    whole.load_state_dict(supernet.extract(supernet.architecture))
    images = torch.randn(4, 1, 8, 8, generator=torch_generator(0, "images"))
    with torch.no_grad():
        torch.testing.assert_close(whole.eval()(images), supernet.module.eval()(images), atol=1e-5, rtol=1e-5)


def test_a_shrunk_supernet_inherits_weights_gates_and_momentum_channel_by_channel() -> None:
    base = BASES["cnn"]
    supernet = trained_supernet(base, "after-depthwise", 1)
    optimizer = make_optimizer(supernet, 0.1, 0.9, 0.0, 0.0)
    supernet.module(torch.randn(4, 1, 8, 8, generator=torch_generator(0))).square().sum().backward()
    optimizer.step()
    part = random_part(base, 1)
    attic = Attic.of(supernet)
    smaller = attic.shrunk(supernet, part)
    kept = list(part.indices["conv2"])
    assert torch.equal(smaller.gates["conv2"].weight, supernet.gates["conv2"].weight[kept])
    rows, columns = torch.tensor(kept)[:, None], torch.tensor(part.indices["conv1"])
    assert torch.equal(smaller.state()["conv2.weight"], supernet.state()["conv2.weight"][rows, columns])
    momentum = momentum_of(supernet.module, optimizer)
    restored = make_optimizer(smaller, 0.1, 0.9, 0.0, 0.0)
    restore_momentum(smaller.module, restored, attic.momentum(momentum, supernet.architecture, smaller))
    assert torch.equal(momentum_of(smaller.module, restored)["conv2.weight"], momentum["conv2.weight"][rows, columns])
    assert torch.equal(
        momentum_of(smaller.module, restored)["channel_gates.conv2.weight"],
        momentum["channel_gates.conv2.weight"][kept],
    )


def test_gates_have_their_own_weight_decay() -> None:
    supernet = trained_supernet(BASES["mlp"], "after-depthwise", 0)
    weights, gates = make_optimizer(supernet, 0.1, 0.9, 4e-5, 5e-4).param_groups
    assert [id(p) for p in gates["params"]] == [id(p) for p in supernet.gate_weights]
    assert (weights["weight_decay"], gates["weight_decay"]) == (4e-5, 5e-4)
    assert len(weights["params"]) + len(gates["params"]) == len(list(supernet.module.parameters()))


def test_saliency_is_the_squared_product_of_gate_and_gradient_and_ignores_penalties() -> None:
    supernet = trained_supernet(BASES["mlp"], "after-depthwise", 0)
    gate = supernet.gates["hidden"]
    supernet.module.train()
    images = torch.randn(4, 1, 8, 8, generator=torch_generator(0))
    torch.manual_seed(0)
    supernet.module(images).square().sum().backward()
    assert gate.weight.grad is not None
    expected = (gate.weight * gate.weight.grad).detach() ** 2
    torch.testing.assert_close(gate.saliency, expected)
    gate.saliency.zero_()
    torch.manual_seed(0)
    (supernet.module(images).square().sum() + 100 * gate.weight.square().sum()).backward()
    torch.testing.assert_close(gate.saliency, expected)


def test_a_gate_before_the_depthwise_convolution_gets_almost_no_gradient_and_one_after_it_does() -> None:
    """The finding that decides the default: the channel's own batch norm undoes the size of the gate."""
    gradients = {}
    for position in ("before-depthwise", "after-depthwise"):
        supernet = Supernet(Architecture.full(BASES["mobilenet_v2-colour"]), position, 0, CPU)
        supernet.module.train()
        logits = supernet.module(torch.randn(32, 3, 16, 16, generator=torch_generator(0)))
        torch.nn.functional.cross_entropy(logits, torch.arange(32) % 5).backward()
        gradients[position] = max(float(gate.weight.grad.abs().mean()) for gate in supernet.gates.values())  # type: ignore[union-attr]
    assert gradients["before-depthwise"] < 0.05 * gradients["after-depthwise"]
