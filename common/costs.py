"""Costs as others count them: the published program, the profiler thop, and the largest single activation."""

from collections.abc import Sequence

from common.architecture import Architecture
from common.models.description import Layer


def largest_tensor_elements(architecture: Architecture) -> int:
    """Elements of the largest single activation, for one image."""
    sizes = architecture.sizes
    return max(elements for step in architecture.description.steps for elements in step.elements(sizes))


def legacy_peak_elements(architecture: Architecture) -> int:
    """The published program's peak feature map: it takes every block's tensors at the block's *output* resolution.

    The expanded tensor of a stride-2 block lives at the input resolution, so this is up to 4x too small; it is kept
    only to reproduce the paper's figure 3.
    """
    sizes, expanding = architecture.sizes, _before_depthwise(architecture.description.layers)
    return max(
        layer.outputs(sizes) * layer.positions
        for layer in architecture.description.layers
        if layer.name not in expanding
    )


def thop_macs(architecture: Architecture, operations_per_norm_element: int = 2) -> int:
    """The "MACs" that the profiler thop prints: true MACs plus 2 per batch-norm output element.

    The published results were counted this way. thop 0.1.1 counts 4 for a batch norm with scale and shift.
    """
    sizes = architecture.sizes
    norms = sum(
        layer.outputs(sizes) * layer.positions
        for layer in architecture.description.layers
        if layer.kind == "batch_norm"
    )
    return architecture.costs.macs + operations_per_norm_element * norms


def _before_depthwise(layers: Sequence[Layer]) -> set[str]:
    """The layers whose output a depthwise convolution filters: those that expand a block's channels."""
    found: set[str] = set()
    for number, layer in enumerate(layers):
        if layer.kind == "depthwise":
            found |= {earlier.name for earlier in layers[:number] if earlier.target == layer.target}
    return found
