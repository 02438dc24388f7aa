"""Every base network's description tells the truth about the module that is built from it."""

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.models import describe
from common.models.description import BaseNetwork
from common.models.mobilenet_v2 import InvertedResidual, scaled
from tests.common.strategies import architectures
from tests.examples import examples

ALL = [BaseNetwork(model, (3, 32, 32), 10) for model in ("mobilenet_v2", "cnn", "mlp")]


def built(architecture: Architecture) -> nn.Module:
    with torch.device("meta"):
        return architecture.build()


@settings(max_examples=examples(25), deadline=None)
@given(architectures())
def test_the_state_dict_has_the_described_tensors_in_the_described_order(architecture: Architecture) -> None:
    state = built(architecture).state_dict()
    assert list(state) == list(architecture.description.tensor_axes)
    layout = architecture.layout
    floats = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.is_floating_point()}
    assert dict(zip(layout.names, layout.shapes, strict=True)) == floats
    assert layout.size == sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())


@settings(max_examples=examples(25), deadline=None)
@given(architectures())
def test_logits_have_one_value_per_class(architecture: Architecture) -> None:
    images = torch.zeros(5, *architecture.base.input_shape, device="meta")
    assert built(architecture).eval()(images).shape == (5, architecture.base.classes)


@settings(max_examples=examples(25), deadline=None)
@given(architectures())
def test_layers_lie_where_the_description_says(architecture: Architecture) -> None:
    module, sizes = built(architecture).eval(), architecture.sizes
    seen: dict[str, tuple[int, int]] = {}
    for name, layer in module.named_modules():
        if not list(layer.children()) and list(layer.parameters()):

            def record(_: nn.Module, __: object, output: torch.Tensor, name: str = name) -> None:
                seen[name] = (output.shape[1], output[0, 0].numel())

            layer.register_forward_hook(record)
    module(torch.zeros(1, *architecture.base.input_shape, device="meta"))
    described = {layer.name: (layer.outputs(sizes), layer.positions) for layer in architecture.description.layers}
    assert seen == described


@pytest.mark.parametrize("base", ALL, ids=lambda base: base.model)
def test_prunable_groups_have_one_reader_and_published_gates_sit_before_it(base: BaseNetwork) -> None:
    description = describe(base)
    for group in description.prunable:
        (reader,) = description.readers(group.name)
        assert [axis.group for axis in reader.source] == [group.name]
    published = {group: (point.reader, point.constant_path) for group, point in description.depthwise_gates.items()}
    if base.model != "mobilenet_v2":
        assert published == {}
        return
    assert published == {
        f"block{number}.inner": (
            f"blocks.{number}.depthwise_conv",
            (
                f"blocks.{number}.depthwise_norm",
                f"blocks.{number}.project_conv",
                f"blocks.{number}.project_norm",
            ),
        )
        for number in range(17)
    }


def test_groups_of_mobilenet_v2() -> None:
    description = describe(ALL[0])
    inner = [group.size for group in description.prunable]
    assert inner == [32, 96, 144, 144, 192, 192, 192, 384, 384, 384, 384, 576, 576, 576, 960, 960, 960]
    assert sum(inner) == 7_136
    others = {group.name: group.size for group in description.groups if not group.prunable}
    outputs = {f"stage{number}": size for number, size in enumerate((16, 24, 32, 64, 96, 160, 320), start=1)}
    assert others == {"input": 3, "stem": 32, **outputs, "head": 1280, "classes": 10}
    assert set(description.floor_sizes.values()) == {8, *others.values()}


def test_shortcuts_of_mobilenet_v2() -> None:
    # stride 1: identity where the channels stay, a projection where they change; stride 2: none
    blocks = [block for block in built(Architecture.full(ALL[0])).modules() if isinstance(block, InvertedResidual)]
    kinds = ["projected" if block.project_shortcut else "identity" if block.residual else "none" for block in blocks]
    assert [number for number, kind in enumerate(kinds) if kind == "none"] == [3, 6, 13]
    assert [number for number, kind in enumerate(kinds) if kind == "projected"] == [0, 1, 10, 16]


@pytest.mark.parametrize(
    ("width", "strides", "merged"),
    [
        (1.0, (1, 1, 2, 2, 1, 2, 1), set()),
        (0.25, (1, 1, 2, 2, 1, 2, 1), {"stage1", "stage2"}),  # stem, stage 1 and stage 2: 8
        (0.5, (1, 1, 1, 1, 1, 1, 1), {"stage3"}),  # stage 2: 16, stage 3: 16
        (0.01, (1, 1, 1, 1, 1, 1, 1), {f"stage{number}" for number in range(1, 8)}),
    ],
)
def test_stages_joined_by_an_identity_shortcut_are_one_group(
    width: float, strides: tuple[int, ...], merged: set[str]
) -> None:
    base = BaseNetwork("mobilenet_v2", (1, 8, 8), 10, width, strides=strides)
    sizes = describe(base).full_sizes
    assert {f"stage{number}" for number in range(1, 8)} - set(sizes) == merged
    halves = {name: range(size // 2) for name, size in sizes.items() if name not in ("input", "classes")}
    for kept in (halves, {"stem": range(4)}):
        module = Architecture.with_kept(base, kept).build(seed=0).eval()
        assert list(module.state_dict()) == list(describe(base).tensor_axes)
        assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_widths_are_multiples_of_8_and_at_least_nine_tenths() -> None:
    assert [scaled(32, width) for width in (0.1, 0.25, 0.5, 0.75, 1.0, 1.4)] == [8, 8, 16, 24, 32, 48]
    assert [scaled(24, 0.5), scaled(96, 0.75), scaled(320, 0.62)] == [16, 72, 200]
    for channels in (16, 24, 32, 64, 96, 160, 320):
        for percent in range(5, 400, 5):
            result = scaled(channels, percent / 100)
            assert result % 8 == 0
            assert result >= 0.9 * channels * percent / 100


@pytest.mark.parametrize("percent", [75, 62, 56, 40, 25])
def test_a_narrow_base_keeps_its_head(percent: int) -> None:
    assert describe(BaseNetwork("mobilenet_v2", (3, 32, 32), 10, percent / 100)).full_sizes["head"] == 1280


def test_strides_divide_the_image() -> None:
    small = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, 1.0, 2, (1, 2, 2, 2, 1, 2, 1))
    head = describe(small).layer_by_name["head_conv"]
    assert head.positions == 1  # 32 / 2 / 2 / 2 / 2 / 2
    odd = BaseNetwork("mobilenet_v2", (1, 9, 7), 10)
    assert describe(odd).layer_by_name["head_conv"].positions == 2 * 1  # 9 -> 5 -> 3 -> 2, 7 -> 4 -> 2 -> 1


@pytest.mark.parametrize("model", ["mobilenet_v2", "cnn", "mlp"])
def test_no_group_goes_below_8_channels_or_its_own_size(model: str) -> None:
    description = describe(BaseNetwork(model, (1, 8, 8), 10))
    for group in description.prunable:
        assert 1 <= group.floor <= group.size
        assert group.floor == min(8, group.size)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (BaseNetwork("vgg", (3, 32, 32), 10), "unknown base network 'vgg'; known are mobilenet_v2, cnn, mlp"),
        (BaseNetwork("cnn", (1, 3, 3), 10), "cnn needs larger images than 3x3"),
        (BaseNetwork("cnn", (1, 40, 2), 10), "cnn needs larger images than 40x2"),
        (BaseNetwork("mlp", (1, 8, 5000), 10), "cannot build mlp for input"),
        (BaseNetwork("mlp", (1, 8, 8), 0), "0 classes"),
        (BaseNetwork("mlp", (1, 8), 10), "an input shape is"),  # type: ignore[arg-type]
        (BaseNetwork("mobilenet_v2", (1, 8, 8), 10, strides=(1, 1)), "strides must be 7 numbers"),
        (BaseNetwork("mobilenet_v2", (1, 8, 8), 10, stem_stride=0), "from 1 to 8"),
    ],
)
def test_a_base_that_cannot_be_built_says_why(base: BaseNetwork, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        describe(base)


def test_smallest_images() -> None:
    for base in (BaseNetwork("cnn", (1, 4, 4), 10), BaseNetwork("mobilenet_v2", (1, 1, 1), 10)):
        assert Architecture.full(base).build(seed=0).eval()(torch.zeros(2, *base.input_shape)).shape == (2, 10)
