"""Exact costs of an architecture, by counting rather than by tracing.

MACs are the multiply-accumulates of convolution and linear layers for one image. Peak memory is the largest sum of
live activations over the execution order: inputs and outputs of the running layer and a held residual, at batch 1 in
float32; element-wise layers work in place.
"""

from collections.abc import Mapping

from common.architecture import Architecture
from common.budget import Costs
from common.models.description import Description

BYTES_PER_VALUE = 4


def count(description: Description, sizes: Mapping[str, int]) -> Costs:
    """The costs of a network with `sizes` channels per group."""
    macs = sum(layer.macs(sizes) for layer in description.layers)
    params = sum(layer.params(sizes) for layer in description.layers)
    return Costs(macs, params, BYTES_PER_VALUE * max(live_elements(description, sizes)))


def costs_of(architecture: Architecture) -> Costs:
    """The costs of an architecture."""
    return count(architecture.description, architecture.sizes)


def live_elements(description: Description, sizes: Mapping[str, int]) -> list[int]:
    """Elements alive at each step of the forward pass, for one image."""
    return [sum(sizes[group] * positions for group, positions in step) for step in description.steps]


def largest_tensor_elements(architecture: Architecture) -> int:
    """Elements of the largest single activation, for one image."""
    sizes = architecture.sizes
    return max(sizes[group] * positions for step in architecture.description.steps for group, positions in step)


def legacy_peak_elements(architecture: Architecture) -> int:
    """The published program's peak feature map: it takes every block's tensors at the block's *output* resolution.

    The expanded tensor of a stride-2 block lives at the input resolution, so this is up to 4x too small; it is kept
    only to reproduce the paper's figure 3.
    """
    sizes = architecture.sizes
    return max(
        sizes[layer.target] * layer.positions
        for layer in architecture.description.layers
        if not layer.name.endswith(("expand_conv", "expand_norm"))
    )


def thop_macs(architecture: Architecture, operations_per_norm_element: int = 2) -> int:
    """The "MACs" that the profiler thop prints: true MACs plus 2 per batch-norm output element.

    The published results were counted this way. thop 0.1.1 counts 4 for a batch norm with scale and shift.
    """
    sizes = architecture.sizes
    norms = sum(
        sizes[layer.target] * layer.positions for layer in architecture.description.layers if layer.kind == "batch_norm"
    )
    return costs_of(architecture).macs + operations_per_norm_element * norms
