"""Costs by golden numbers, by hand and against three outside counters."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import thop
import torch
from hypothesis import given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.architecture import Architecture
from common.budget import Costs
from common.costs import largest_tensor_elements, legacy_peak_elements, thop_macs
from common.models.description import BYTES_PER_VALUE, BaseNetwork
from tests.common.strategies import architectures, published
from tests.examples import examples

BASE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
PUBLISHED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "published_architectures.json").read_text(encoding="utf-8")
)


def live_peak(architecture: Architecture) -> int:
    return max(architecture.description.live_elements(architecture.sizes))


def test_mobilenet_v2() -> None:
    full = Architecture.full(BASE)
    assert full.costs == Costs(macs=91_154_944, params=2_296_922, peak_memory_bytes=4 * 319_488)
    assert thop_macs(full) == 94_604_800
    assert largest_tensor_elements(full) == legacy_peak_elements(full) == 147_456  # 144 channels of 32x32


def test_floor_of_the_search_space() -> None:
    description = Architecture.full(BASE).description
    floor = description.costs(description.floor_sizes)
    assert (floor.params, floor.macs) == (511_586, 12_319_232)
    assert thop_macs(published([8] * 17)) == 12_961_024
    assert (published([1] * 17).costs.params, published([1] * 17).costs.macs) == (490_999, 9_923_328)


def test_there_are_75_published_architectures() -> None:
    assert len(PUBLISHED) == 75
    assert PUBLISHED["195"]["inner"] == [8, 15, 55, 66, 81, 59, 27, 119, 72, 8, 58, 39, 8, 56, 95, 8, 215]


@pytest.mark.parametrize("key", PUBLISHED)
def test_every_published_count(key: str) -> None:
    architecture = published(PUBLISHED[key]["inner"])
    assert architecture.costs.params == PUBLISHED[key]["params"]
    assert thop_macs(architecture) == PUBLISHED[key]["thop_macs"]


@pytest.mark.parametrize(
    ("key", "params", "thop", "macs"),
    [
        ("128", 714_032, 26_328_640, 25_078_464),
        ("39", 840_821, 34_196_512, 32_670_560),
        ("15", 1_096_973, 51_755_680, 49_537_856),
        ("10", 1_338_287, 64_238_800, 61_603_152),
        ("0", 2_296_922, 94_604_800, 91_154_944),
    ],
)
def test_the_five_models_behind_the_published_budgets(key: str, params: int, thop: int, macs: int) -> None:
    architecture = published(PUBLISHED[key]["inner"])
    assert (architecture.costs.params, thop_macs(architecture), architecture.costs.macs) == (params, thop, macs)


# Figure 3 of the paper: parameters, thop's MACs, the feature map it reports, the largest tensor there really is, and
# the elements that live together. The reported map is too small where a stride-2 block expands.
@pytest.mark.parametrize(
    ("key", "params", "thop_millions", "reported", "largest", "live"),
    [
        ("0", 2_296_922, 94.60, 147_456, 147_456, 319_488),
        ("10", 1_338_287, 64.24, 104_448, 134_144, 233_472),
        ("20", 1_000_234, 45.85, 81_920, 114_688, 188_416),
        ("30", 898_514, 38.77, 64_512, 109_568, 153_600),
        ("39", 840_821, 34.20, 58_368, 92_160, 141_312),
        ("50", 792_021, 31.11, 56_320, 86_016, 137_216),
        ("65", 752_074, 28.54, 56_320, 77_824, 137_216),
        ("195", 714_059, 26.23, 56_320, 67_584, 137_216),
    ],
)
def test_figure_3_snapshots(
    key: str, params: int, thop_millions: float, reported: int, largest: int, live: int
) -> None:
    architecture = published(PUBLISHED[key]["inner"])
    assert architecture.costs.params == params
    assert round(thop_macs(architecture) / 1e6, 2) == thop_millions
    assert legacy_peak_elements(architecture) == reported
    assert largest_tensor_elements(architecture) == largest
    assert live_peak(architecture) == live


@pytest.mark.parametrize(
    ("width", "params", "thop_millions", "largest", "live"),
    [
        (1.0, 2_296_922, 94.60, 147_456, 319_488),
        (0.75, 1_402_586, 64.36, 147_456, 319_488),
        (0.62, 986_666, 44.44, 98_304, 212_992),
        (0.56, 881_098, 42.75, 98_304, 212_992),
        (0.55, 832_650, 33.95, 98_304, 212_992),
        (0.50, 715_834, 30.73, 98_304, 212_992),
        (0.45, 609_258, 27.85, 98_304, 212_992),
        (0.40, 512_618, 25.14, 98_304, 212_992),
    ],
)
def test_figure_3_width_multipliers(width: float, params: int, thop_millions: float, largest: int, live: int) -> None:
    architecture = Architecture.full(BaseNetwork("mobilenet_v2", (3, 32, 32), 10, width))
    assert architecture.costs.params == params
    assert round(thop_macs(architecture) / 1e6, 2) == thop_millions
    assert largest_tensor_elements(architecture) == largest
    assert live_peak(architecture) == live


def test_one_inner_channel_by_hand() -> None:
    # expansion: 24 in; depthwise: 9; projection: 24 out; two batch norms: 4. At stride 1 on 32x32.
    full = Architecture.full(BASE)
    less = Architecture.with_kept(BASE, {"block2.inner": range(143)}).costs
    assert full.costs.params - less.params == 24 + 9 + 24 + 4
    assert full.costs.macs - less.macs == (24 + 9 + 24) * 32 * 32


def test_cnn_by_hand() -> None:
    # 5x5 convolutions and 2x2 pooling: 32 -> 28 -> 14 -> 10 -> 5
    full = Architecture.full(BaseNetwork("cnn", (3, 32, 32), 10))
    params = (3 * 25 + 1) * 6 + (6 * 25 + 1) * 16 + (16 * 25 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    macs = 3 * 25 * 6 * 28**2 + 6 * 25 * 16 * 10**2 + 16 * 25 * 120 + 120 * 84 + 84 * 10
    assert params == 62_006
    assert full.costs == Costs(macs, params, peak_memory_bytes=4 * (3 * 32**2 + 6 * 28**2))


def test_cnn_pads_small_images() -> None:
    # 8 -> 8 -> 4 -> 4 -> 2
    full = Architecture.full(BaseNetwork("cnn", (1, 8, 8), 10))
    params = (25 + 1) * 6 + (6 * 25 + 1) * 16 + (16 * 4 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    macs = 25 * 6 * 64 + 6 * 25 * 16 * 16 + 64 * 120 + 120 * 84 + 840
    assert full.costs == Costs(macs, params, peak_memory_bytes=4 * 6 * (64 + 16))


@pytest.mark.parametrize(("shape", "inputs"), [((3, 32, 32), 3072), ((1, 28, 28), 784)])
def test_mlp_by_hand(shape: tuple[int, int, int], inputs: int) -> None:
    full = Architecture.full(BaseNetwork("mlp", shape, 10))
    assert full.costs == Costs(
        macs=inputs * 200 + 200 * 10, params=(inputs + 1) * 200 + 201 * 10, peak_memory_bytes=4 * (inputs + 200)
    )


def test_live_memory_of_two_blocks_by_hand() -> None:
    live = Architecture.full(BASE).description.live_elements(Architecture.full(BASE).sizes)
    # block 2, 24 -> 144 -> 24 at 32x32 with an identity shortcut: the input is held until it is added
    assert live[9:12] == [(24 + 144) * 1024, (24 + 144 + 144) * 1024, (24 + 144 + 24) * 1024]
    # block 3, 24 -> 144 -> 32, 32x32 to 16x16 without a shortcut: the expanded tensor lives at the input resolution
    assert live[12:15] == [(24 + 144) * 1024, 144 * 1024 + 144 * 256, (144 + 32) * 256]
    # block 1, 16 -> 96 -> 24 with a projection shortcut, the fourth step: input, block output, shortcut output
    assert live[8] == (16 + 24 + 24) * 1024


def probe(architecture: Architecture) -> tuple[nn.Module, torch.Tensor]:
    """The built module in evaluation mode and one image, without storage."""
    with torch.device("meta"):
        return architecture.build().eval(), torch.zeros(1, *architecture.base.input_shape)


@settings(max_examples=examples(25), deadline=None)
@given(architectures())
def test_parameters_are_those_of_the_built_module(architecture: Architecture) -> None:
    module, _ = probe(architecture)
    assert architecture.costs.params == sum(parameter.numel() for parameter in module.parameters())


@settings(max_examples=examples(25), deadline=None)
@given(architectures())
def test_macs_are_half_the_flops_torch_counts(architecture: Architecture) -> None:
    module, image = probe(architecture)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(image)
    assert 2 * architecture.costs.macs == counter.get_total_flops()


@settings(max_examples=examples(10), deadline=None)
@given(architectures(widths=(0.5,)))
def test_thop_counts_four_operations_per_element_of_an_affine_batch_norm(architecture: Architecture) -> None:
    # The published results used an older thop with 2 per element; 0.1.1 doubles that for scale and shift.
    module = architecture.build(seed=0)
    with torch.no_grad():
        macs, params = thop.profile(module, (torch.zeros(1, *architecture.base.input_shape),), verbose=False)
    assert macs == thop_macs(architecture, operations_per_norm_element=4)
    assert params == architecture.costs.params


def measured_live(module: nn.Module, image: torch.Tensor) -> list[int]:
    """Elements of the real tensors around each convolution and linear layer: its input, its output and what waits.

    In a residual block the block's input waits for the addition while the main path runs, and the main path's output
    waits while the projection shortcut runs.
    """
    waiting: dict[nn.Module, int] = {}
    live: list[int] = []
    handles: list[Any] = []

    def enter(path: list[nn.Module]) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            waiting.update({layer: inputs[0].numel() for layer in path})

        return hook

    def leave(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        live.append(inputs[0].numel() + output.numel() + waiting.get(layer, 0))

    for block in module.modules():
        if getattr(block, "residual", False):
            path = [block.get_submodule("depthwise_conv"), block.get_submodule("project_conv")]
            handles.append(block.register_forward_pre_hook(enter(path)))
            if block.project_shortcut:

                def hold(_: nn.Module, __: Any, output: torch.Tensor, layer: Any = block.shortcut_conv) -> None:
                    waiting[layer] = output.numel()

                handles.append(block.get_submodule("project_norm").register_forward_hook(hold))
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            handles.append(layer.register_forward_hook(leave))
    with torch.no_grad():
        module(image)
    for handle in handles:
        handle.remove()
    return live


@settings(max_examples=examples(25), deadline=None)
@given(architectures())
def test_live_memory_is_that_of_the_real_tensors(architecture: Architecture) -> None:
    description = architecture.description
    kinds = {layer.name: layer.kind for layer in description.layers}
    layers = [
        sum(step.elements(architecture.sizes))
        for step in description.steps
        if kinds.get(step.module) in ("conv", "depthwise", "linear")
    ]
    measured = measured_live(*probe(architecture))
    assert measured == layers
    assert architecture.costs.peak_memory_bytes >= BYTES_PER_VALUE * max(measured)


@settings(max_examples=examples(25), deadline=None)
@given(architectures())
def test_the_three_memory_figures_are_ordered(architecture: Architecture) -> None:
    assert largest_tensor_elements(architecture) <= live_peak(architecture)
    assert live_peak(architecture) <= 3 * largest_tensor_elements(architecture)
    assert max(legacy_peak_elements(architecture), math.prod(architecture.base.input_shape)) <= largest_tensor_elements(
        architecture
    )
