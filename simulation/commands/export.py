"""`feddac export`: an architecture and its weights as ONNX."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.config import DataSettings
from common.errors import ConfigurationError
from simulation.options import with_settings

if TYPE_CHECKING:
    import torch

    from common.learning import Feed

CHECKED_IMAGES = 256
"""Images that the file is checked on, and that calibrate its int8 version."""

USED = ("data", "data_folder")

EXAMPLES = """
Examples:

feddac export runs/train/architectures/trained.json

feddac export runs/search/architectures/budget-1.json --data cifar10 --int8 --out phone.onnx
"""


@with_settings(DataSettings, omit=[one.name for one in dataclasses.fields(DataSettings) if one.name not in USED])
def export(
    settings: dict[str, Any],
    architecture: Annotated[Path, typer.Argument(metavar="FILE.json", help="Architecture file with its weights.")],
    out: Annotated[
        Path | None,
        typer.Option(help="ONNX file to write (default: beside the architecture file).", metavar="FILE.onnx"),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write an int8 version, calibrated on training images of --data.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="The network that the file names, where it is not one of ours.", metavar="MODEL"),
    ] = None,
) -> None:
    """Export to ONNX with batch norms folded in, checked against PyTorch on random and, with --data, real images."""
    import torch

    from common.data.images import mean_std
    from common.models import allow_network
    from common.seeds import torch_generator
    from dac import export as onnx
    from dac.files import load_member
    from simulation.standalone import check_fits, load_material

    if int8 and "data" not in settings:
        raise ConfigurationError("--int8 needs images to calibrate with: give --data")
    if model is not None:
        allow_network(model)
    member = load_member(architecture)
    target = out or architecture.with_suffix(".onnx")
    images = torch.randn(16, *member.architecture.base.input_shape, generator=torch_generator(0, "export"))
    material = None
    metadata = {}
    if "data" in settings:
        material = load_material(DataSettings.from_mapping(settings), CHECKED_IMAGES, seed=0)
        check_fits(member.architecture, material.data, str(architecture))
        metadata = onnx.normalisation(*mean_std(material.data.train.images))
        images = torch.cat([images, next(material.test.evaluation(images.device))[0]])
    onnx.export_onnx(member.architecture, member.state, target, metadata)
    worst = onnx.check(target, member.architecture, member.state, images)
    print(f"{_line(target)}; equal to PyTorch within {worst:.1g} on {len(images)} images")
    if material is not None:
        print(f"test accuracy {onnx.accuracy(target, material.test):.2%}")
    if int8 and material is not None:
        small = target.with_suffix(".int8.onnx")
        onnx.quantise(target, small, _calibration(material.train))
        print(_line(small))
        print(f"test accuracy {onnx.accuracy(small, material.test):.2%}")


def _line(path: Path) -> str:
    from dac.export import latency_ms

    return f"{path}: {path.stat().st_size / 1e6:.2f} MB, {latency_ms(path):.2f} ms per image on one thread"


def _calibration(train: "Feed") -> "torch.Tensor":
    """Normalised training images, chosen at random because data sets may be sorted by class."""
    import torch

    from common.seeds import torch_generator

    chosen = torch.randperm(len(train.images), generator=torch_generator(0, "calibration"))[:CHECKED_IMAGES]
    return train.preprocessor.eval_batch(train.images.images[chosen])
