"""`feddac describe`: a network as the search sees it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import ConfigurationError
from common.groups import ModelSettings
from feddac.cli.display import result_console
from feddac.cli.options import with_settings

if TYPE_CHECKING:
    from rich.table import Table

    from common.architecture import Architecture

EXAMPLES = """
Examples:
  feddac describe mobilenet_v2
  feddac describe torchvision:efficientnet_b0 --input-shape 3x64x64 --classes 100
  feddac describe runs/search/architectures/budget-1.json
"""


@with_settings(ModelSettings, omit=["model"])
def describe(
    settings: dict[str, Any],
    what: Annotated[str, typer.Argument(metavar="MODEL|FILE.json", help="A base network or an architecture file.")],
    input_shape: Annotated[
        str | None,
        typer.Option(help="Channels, height and width of the images (default: 3x32x32).", metavar="CxHxW"),
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes (default: 10).", metavar="N")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The network that the file names, where it is not one of ours.", metavar="MODEL"),
    ] = None,
) -> None:
    """Print layers, channel groups, what of it a search may remove, and costs by our count and by others."""
    from common.architecture import Architecture
    from common.models import allow_network
    from dac.files import load_architecture
    from dac.strides import base_of

    file = Path(what).suffix == ".json"
    if file and (settings or input_shape or classes):
        raise ConfigurationError(f"{what} says of which network it is: leave out all options but --model")
    if model is not None and not file:
        raise ConfigurationError("--model goes with an architecture file; here the network is named already")
    allow_network(model or what)
    if file:
        architecture = load_architecture(Path(what))
    else:
        chosen = ModelSettings.from_mapping({**settings, "model": what})
        shape = shape_of(input_shape or "3x32x32")
        architecture = Architecture.full(base_of(chosen, shape, 10 if classes is None else classes))
    console = result_console()
    tables = _layers, _groups, _blocks, _costs, _on_devices
    for table in (make(architecture) for make in tables):
        if table is not None:
            console.print(table)


def shape_of(text: str) -> tuple[int, int, int]:
    """(C, H, W) of a text such as 3x32x32; raises ConfigurationError."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigurationError(f"--input-shape is written as 3x32x32, not {text!r}")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _table(title: str, *headings: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for heading in headings:
        words = heading in ("layer", "kind", "group", "block", "may shrink", "layers", "by", "profile")
        table.add_column(heading, justify="left" if words else "right", overflow="fold")
    return table


def _layers(architecture: "Architecture") -> "Table":
    import math

    sizes = architecture.sizes
    table = _table("Layers", "layer", "kind", "in", "out", "kernel", "positions", "MACs", "parameters", "block")
    for layer in architecture.description.layers:
        if layer.block in architecture.removed:
            continue
        own = [
            tensor
            for tensor in architecture.description.tensors
            if tensor.name.rpartition(".")[0] == layer.name and tensor.trainable
        ]
        table.add_row(
            layer.name or "(the network itself)",
            layer.kind,
            str(layer.inputs(sizes)),
            str(layer.outputs(sizes)),
            "x".join(map(str, layer.kernel)),
            f"{layer.positions:,}",
            f"{layer.macs(sizes):,}",
            f"{sum(math.prod(tensor.shape_at(sizes)) for tensor in own):,}",
            layer.block,
        )
    return table


def _groups(architecture: "Architecture") -> "Table":
    table = _table("Channel groups", "group", "channels", "of", "may shrink", "layers")
    description = architecture.description
    for group in description.groups:
        layers = [
            layer.name
            for layer in description.layers
            if any(axis.group == group.name for axis in (*layer.source, *layer.target))
        ]
        may = f"no: {group.frozen}" if group.frozen else "inner, all" if group.prunable else "all"
        table.add_row(group.name, str(architecture.sizes[group.name]), str(group.size), may, ", ".join(layers))
    return table


def _blocks(architecture: "Architecture") -> "Table | None":
    if not architecture.description.blocks:
        return None
    table = _table("Blocks that may vanish (search space all)", "block", "there")
    for block in architecture.description.blocks:
        table.add_row(block.name, "no" if block.name in architecture.removed else "yes")
    return table


def _costs(architecture: "Architecture") -> "Table":
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from common.costs import largest_tensor_elements, thop_macs

    costs = architecture.costs
    table = _table("Costs of one image", "by", "MACs", "parameters", "peak memory (bytes)", "largest tensor (elements)")
    largest = f"{largest_tensor_elements(architecture):,}"
    table.add_row("FedDAC", f"{costs.macs:,}", f"{costs.params:,}", f"{costs.peak_memory_bytes:,}", largest)
    with torch.device("meta"):
        module, image = architecture.build().eval(), torch.zeros(1, *architecture.base.input_shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(image)
    params = sum(parameter.numel() for parameter in module.parameters())
    table.add_row("torch's FlopCounterMode", f"{counter.get_total_flops() // 2:,}", f"{params:,}", "", "")
    table.add_row("as thop counted for the paper", f"{thop_macs(architecture):,}", "", "", "")
    try:
        import thop
    except ImportError:
        return table
    module, image = architecture.build(0), torch.zeros(1, *architecture.base.input_shape)
    macs, count = thop.profile(module, (image,), verbose=False)
    table.add_row("thop, installed here", f"{int(macs):,}", f"{int(count):,}", "", "")
    return table


def _on_devices(architecture: "Architecture") -> "Table":
    from common.budget import USUAL_TRAINING
    from common.fleet import PROFILES

    costs = architecture.costs
    training = costs.training_memory_bytes(USUAL_TRAINING)
    title = f"On devices, where training in batches of {USUAL_TRAINING.batch_size} images takes {training:,} bytes"
    table = _table(title, "profile", "milliseconds of one image, predicted")
    for name, profile in PROFILES.items():
        table.add_row(name, f"{1000 * profile.rates.seconds_for(costs.work()):.3g}")
    return table
