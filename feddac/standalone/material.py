"""What `feddac search`, `train` and `export` share: DAC for one user with one data set, no server and no devices."""

from dataclasses import dataclass

from rich.table import Table

from common.architecture import Architecture
from common.budget import Costs
from common.data.augment import Preprocessor
from common.data.images import DataSet, mean_std
from common.data.sources import load
from common.data.split import split_stratified
from common.errors import ArchitectureError, DataError
from common.groups import DataSettings
from common.learning import Feed
from common.seeds import torch_generator
from common.wording import count, percent, plain, size
from dac.model_file import Preparation


@dataclass(frozen=True)
class Material:
    """A data set ready to train on, choose by, and test on.

    Images are normalised by mean and deviation of all training images, whatever the split.
    """

    data: DataSet
    train: Feed
    validation: Feed
    test: Feed

    @property
    def preparation(self) -> Preparation:
        """How images are prepared for every network of this data set, and what their outputs are called."""
        return Preparation.of(self.train.preprocessor, self.data.class_names)


def load_material(settings: DataSettings, batch_size: int, seed: int) -> Material:
    """All training images are the user's; `validation_fraction` of them are held out. Raises DataError."""
    data = load(settings)
    kept, held_out = split_stratified(
        data.train.labels, settings.validation_fraction, torch_generator(seed, "split", "validation")
    )
    if len(kept) < 2 or len(held_out) < 1:
        raise DataError(f"{data.name} has only {len(data.train)} training images, too few to hold some out")
    preprocessor = Preprocessor(*mean_std(data.train.images), settings.augment)
    return Material(
        data,
        Feed(data.train.subset(kept), preprocessor, batch_size),
        Feed(data.train.subset(held_out), preprocessor, 256),
        Feed(data.test, preprocessor, 256),
    )


def check_fits(architecture: Architecture, data: DataSet, name: str) -> None:
    """Raise ArchitectureError if the architecture `name` is for other images or classes than those of `data`."""
    base = architecture.base
    if (base.input_shape, base.classes) != (data.input_shape, data.classes):
        raise ArchitectureError(
            f"{name} is for images of {_shape(base.input_shape)} and {base.classes} classes, but {data.name} has "
            f"{_shape(data.input_shape)} and {data.classes}; choose another --data or architecture"
        )


def cost_table(title: str, *extra: str) -> Table:
    """An empty table of architectures: name, costs, and right-aligned `extra` columns."""
    table = Table(title=title)
    table.add_column("architecture", no_wrap=True)
    for heading in ("MACs", "parameters", "peak memory", *extra):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def cost_row(name: str, costs: Costs, *accuracies: float) -> tuple[str, ...]:
    """One row of a `cost_table`; accuracies are 0 to 1."""
    figures = (count(costs.macs), count(costs.params), size(costs.peak_memory_bytes), *map(percent, accuracies))
    return (name, *map(plain, figures))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
