"""Costs as others count them: the published program, the profiler thop, and the largest single activation."""

from common.architecture import Architecture


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
    return architecture.costs.macs + operations_per_norm_element * norms
