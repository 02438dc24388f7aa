"""What is derived from a module is true of it: counts, shapes, groups and functions, against outside oracles."""

from collections import defaultdict
from pathlib import Path

import pytest
import torch
import torch_pruning
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.architecture import Architecture
from common.budget import USUAL_TRAINING
from common.errors import ArchitectureError
from common.models import allow_network, describe
from common.models.description import BaseNetwork, Layer
from common.slicing import slice_state
from tests.common.models.networks import EVERY, SHAPES, base_of, images, random_part
from tests.examples import slow

MODELS = list(SHAPES)
USERS = "tests.common.models.users"


def disturbed(module: nn.Module, seed: int) -> nn.Module:
    """The module in evaluation mode, with statistics, scales and shifts of its batch norms away from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                assert tensor is not None
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize("model", EVERY)
def test_counts_are_torchs_at_random_reductions(model: str) -> None:
    for seed in range(20):
        architecture = random_part(model, seed)
        with torch.device("meta"):
            module, image = architecture.build().eval(), torch.zeros(1, *SHAPES[model])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            assert module(image).shape == (1, 10)
        assert 2 * architecture.costs.macs == counter.get_total_flops()
        assert architecture.costs.peak_memory_bytes == 4 * max(
            architecture.description.live_elements(architecture.sizes)
        )
        assert architecture.costs.params == sum(one.numel() for one in module.parameters())
        floats = {name: tuple(one.shape) for name, one in module.state_dict().items() if one.is_floating_point()}
        assert dict(zip(architecture.layout.names, architecture.layout.shapes, strict=True)) == floats


def silence(module: nn.Module, architecture: Architecture) -> None:
    """Zero what every layer reads of the channels that the architecture lacks, and the ends of blocks it lacks."""
    description, full = architecture.description, architecture.description.full_sizes
    for name in architecture.removed:
        for tensor in module.get_submodule(description.block_by_name[name].scale).parameters():
            tensor.data.zero_()
    for layer in description.layers:
        if layer.mixes:
            weight, start = module.get_submodule(layer.name).get_parameter("weight").data, 0
            for axis in layer.source:
                kept = torch.zeros(full[axis.group], dtype=torch.bool)
                kept[list(architecture.indices[axis.group])] = True
                entries = kept.repeat_interleave(axis.spread)
                weight[:, start : start + len(entries)][:, ~entries] = 0
                start += len(entries)


@pytest.mark.parametrize("model", EVERY)
def test_a_reduced_network_computes_what_the_full_one_does_without_those_channels_and_blocks(model: str) -> None:
    architecture = random_part(model, 3, share=0.6)
    full = Architecture.full(architecture.base)
    module = disturbed(full.build(seed=1), 1)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    small = architecture.build_from(slice_state(state, full, architecture)).eval()
    silence(module, architecture)
    with torch.no_grad():
        expected, found = module(images(model)), small(images(model))
    assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


# Not the last two: there, the outside graph narrows each group of a grouped convolution, and we remove whole groups.
@pytest.mark.parametrize("model", [one for one in MODELS[:-2] if "shufflenet" not in one and "110" not in one])
def test_groups_are_those_of_an_outside_dependency_graph(model: str) -> None:
    """Torch-Pruning removes one channel of the layer that makes a group: the layers that lose something are ours."""
    description = describe(base_of(model))
    module = Architecture.full(base_of(model)).build(seed=0).eval()
    graph = torch_pruning.DependencyGraph().build_dependency(module, images(model))
    names = {one: name for name, one in module.named_modules()}
    makers: dict[str, Layer] = {}
    for layer in description.layers:
        for axis in layer.target:
            if layer.mixes:
                makers.setdefault(axis.group, layer)
    for group in description.reducible:
        layer = module.get_submodule(makers[group.name].name)
        prune = (
            torch_pruning.prune_conv_out_channels
            if isinstance(layer, nn.Conv2d)
            else torch_pruning.prune_linear_out_channels
        )
        theirs = defaultdict(set)
        for dependency, _ in graph.get_pruning_group(layer, prune, idxs=[0]):
            if dependency.target.module in names:
                inputs = "in_channels" in dependency.handler.__name__
                theirs[names[dependency.target.module]].add("source" if inputs else "target")
        ours = defaultdict(set)
        for one in description.layers:
            for side, dimension in (("source", one.source), ("target", one.target)):
                if any(axis.group == group.name for axis in dimension):
                    ours[one.name].add(side if one.mixes else "either")
        assert set(ours) == set(theirs), group.name
        for name, sides in ours.items():
            assert sides == {"either"} or sides == theirs[name], (group.name, name)


def test_a_users_network_by_hand() -> None:
    description = describe(base_of(f"{USERS}:thirty_lines"))
    # stem and the 4 groups of the convolution beside it are added: they go together, 3 channels at a time
    assert {group.name: group.size for group in description.reducible} == {"stem.0": 4, "right.0": 10, "join": 16}
    smaller = Architecture.with_kept(base_of(f"{USERS}:thirty_lines"), {"stem.0": (0, 3), "right.0": range(3)})
    module = smaller.build(seed=0)
    assert module.get_submodule("left").groups == 2
    assert module.get_parameter("join.weight").shape == (16, 2 * 3 + 3, 1, 3)
    assert module.get_parameter("scaled.factor").flatten().tolist() == pytest.approx(
        torch.linspace(0.5, 1.5, 12)[:6].tolist()
    )
    macs = 64 * (2 * 6 * 9) + 64 * (3 * 6 * 9) + 16 * (6 * 3) + 16 * (9 * 3 * 16) + 64 * 10
    assert smaller.costs.macs == macs


def test_what_relies_on_a_channel_count_is_frozen_and_says_so() -> None:
    allow_network(f"{USERS}:counting")
    description = describe(BaseNetwork(f"{USERS}:counting", (1, 8, 8), 10))
    assert [group.name for group in description.reducible] == ["first"]
    reasons = {group.name: group.frozen for group in description.groups}
    assert "does not run" in reasons["second"]
    with pytest.raises(ArchitectureError, match="second cannot be reduced: reduced, the network does not run"):
        Architecture.with_kept(BaseNetwork(f"{USERS}:counting", (1, 8, 8), 10), {"second": range(3)})


def test_a_block_that_scales_its_input_cannot_vanish_and_one_that_scales_its_branch_can() -> None:
    model = f"{USERS}:halved"
    allow_network(model)
    base = BaseNetwork(model, (1, 8, 8), 5)
    assert [block.name for block in describe(base).blocks] == ["2"]
    full, without = Architecture.full(base), Architecture.with_kept(base, {}, ["2"])
    module = disturbed(full.build(0), 1)
    silence(module, without)
    smaller = without.build_from(slice_state(module.state_dict(), full, without)).eval()
    image = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(smaller(image), module(image))


def test_what_breaks_in_training_alone_is_frozen() -> None:
    model = f"{USERS}:dropping"
    allow_network(model)
    reasons = {group.name: group.frozen for group in describe(BaseNetwork(model, (1, 8, 8), 5)).groups}
    assert reasons["0"].startswith("reduced, the network does not run: in training mode, RuntimeError: ")
    assert reasons["4"] == ""


def test_a_buffer_that_is_not_saved_is_in_a_reduced_network_what_its_author_made_it() -> None:
    allow_network(f"{USERS}:ordered")
    reduced = Architecture.with_kept(BaseNetwork(f"{USERS}:ordered", (1, 8, 8), 10), {"head": range(3)})
    torch.full((4096,), float("nan"))  # what is in memory that nobody has written to
    assert all(reduced.build(seed).get_buffer("scale").tolist() == [0.5] for seed in range(20))


def test_a_buffer_of_a_layer_that_resets_its_parameters_alone_is_in_a_reduced_network_as_in_the_whole() -> None:
    allow_network(f"{USERS}:resetting")
    reduced = Architecture.with_kept(BaseNetwork(f"{USERS}:resetting", (1, 8, 8), 10), {"0": range(3)})
    assert all(reduced.build(seed).get_buffer("1.constant").tolist() == [3] for seed in range(20))


def test_what_is_added_to_a_layer_of_torchs_is_in_a_reduced_network_as_in_the_whole() -> None:
    allow_network(f"{USERS}:added_to")
    reduced = Architecture.with_kept(BaseNetwork(f"{USERS}:added_to", (1, 8, 8), 10), {"0": range(3), "2": range(4)})
    for seed in range(20):
        module = reduced.build(seed)
        assert module.get_buffer("0.constant").tolist() == [3]
        assert module.get_buffer("1.number").tolist() == [7]
        assert module.get_buffer("1.running_var").tolist() == [1] * 3
        assert module.get_parameter("2.factor").flatten().tolist() == [0.25] * 4
        assert module.get_parameter("2.weight").std() > 0


def test_a_channel_shuffle_freezes_what_it_touches_and_leaves_the_rest() -> None:
    description = describe(base_of("torchvision:shufflenet_v2_x0_5"))
    reasons = {group.name: group.frozen for group in description.groups}
    assert reasons["stage2.0.branch1.2"] == "view in stage2.0 is not understood"
    assert len(description.reducible) == 18  # inside the 16 blocks, the stem, the head


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("torchvision:resnet19", "torchvision has no network 'resnet19'"),
        ("no.such.package:function", r"cannot find the network no\.such\.package:function.*installed"),
        (f"{USERS}:nothing", "cannot find the network"),
        (f"{USERS}:no_module", "returned str, not a torch module"),
        (f"{USERS}:two_outputs", r"cannot take images of shape \(3, 8, 8\): TypeError: its forward returns tuple"),
        (f"{USERS}:wrong_classes", "returns 11 logits, not 10"),
        (
            f"{USERS}:wrong_signature",
            r"when it was called with the input shape .*: TypeError: wrong_signature\(\)",
        ),
        (f"{USERS}:failing", r"failed when it was called with .* and 10 classes: KeyError: 'width'"),
        (f"{USERS}:tied", r"one tensor under two names, first\.weight and second\.weight; tied weights are not"),
        (f"{USERS}:shared", r"one tensor under two names, first\.weight and second\.weight; tied weights are not"),
        (f"{USERS}:plain_attribute", r"plain attribute 'scale' of 0, .* self\.register_buffer\('scale', \.\.\.\)"),
        (f"{USERS}:plain_list", r"plain attribute 'scale' of itself, .* self\.register_buffer"),
        (f"{USERS}:double", r"first\.weight of .* is of torch\.float64"),
        (f"{USERS}:auxiliary", r"in training mode the forward of .*:auxiliary returns tuple for 2 images"),
        (f"{USERS}:untrainable", "untrainable cannot be trained on .*: NotImplementedError: only for$"),
    ],
)
def test_a_network_that_cannot_be_used_says_why(model: str, message: str) -> None:
    allow_network(model)
    with pytest.raises(ArchitectureError, match=message):
        describe(BaseNetwork(model, (3, 8, 8), 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build(shape, classes:\n", r"broken, which broken:build is in, cannot be imported: SyntaxError: .*line 1"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero"),
        ("import no_such_package\n", "cannot find the network broken:build: No module named 'no_such_package'"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "broken.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    allow_network("broken:build")
    with pytest.raises(ArchitectureError, match=message):
        describe(BaseNetwork("broken:build", (3, 8, 8), 10))


def test_a_layer_without_weights_may_have_two_names() -> None:
    allow_network(f"{USERS}:one_activation")
    assert len(describe(BaseNetwork(f"{USERS}:one_activation", (3, 8, 8), 10)).reducible) == 2


@pytest.mark.parametrize("model", slow("torchvision:googlenet", "torchvision:inception_v3"))
def test_torchvisions_networks_with_further_classifiers_are_trained_without_them(model: str) -> None:
    allow_network(model)
    base = BaseNetwork(model, (3, 96, 96), 10)
    assert not any("aux" in tensor.name.lower() for tensor in describe(base).tensors)
    assert describe(base).costs(describe(base).full_sizes).training_memory_bytes(USUAL_TRAINING) > 0


def test_torchvisions_networks_want_colour_and_no_width() -> None:
    allow_network("torchvision:resnet18")
    with pytest.raises(ArchitectureError, match="takes colour images"):
        describe(BaseNetwork("torchvision:resnet18", (1, 32, 32), 10))
    with pytest.raises(ArchitectureError, match="neither --width nor --strides"):
        describe(BaseNetwork("torchvision:resnet18", (3, 32, 32), 10, width=0.5))


def test_a_name_that_this_process_was_not_configured_with_is_never_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr("common.models.networks.import_module", refuse)
    data = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10)).to_dict()
    for model in ("antigravity:fly", "torchvision:alexnet", "os:system", f"{USERS}:nobody_asked"):
        data["base"]["model"] = model
        with pytest.raises(ArchitectureError, match="unknown base network"):
            Architecture.from_dict(data)


@pytest.mark.parametrize(
    ("model", "params", "macs"),
    [("resnet20", 272_474, 40_813_184), ("resnet56", 855_770, 125_747_840)],
)
def test_residual_networks_have_the_published_counts(model: str, params: int, macs: int) -> None:
    # 0.27 M and 0.85 M in He et al., table 6, plus 2,752 for the two projections
    costs = Architecture.full(BaseNetwork(model, (3, 32, 32), 10)).costs
    assert (costs.params, costs.macs) == (params, macs)
    assert params - (16 * 32 + 2 * 32 + 32 * 64 + 2 * 64) == {"resnet20": 269_722, "resnet56": 853_018}[model]
