"""The images of a device: its partition of the run's data set, or a data set of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from client.identity import partition_of
from common.config import Config
from common.data.augment import Preprocessor
from common.data.class_names import renumbered
from common.data.function import allow
from common.data.images import DataSet, Images, mean_std
from common.data.partition import MINIMUM_IMAGES
from common.data.shares import device_shares
from common.data.sources import load
from common.data.split import split_reference
from common.errors import DataError
from common.groups import DataSettings
from common.seeds import torch_generator
from common.settings import Scalar

ONE_IN = 10
"""Of so many images one is held out."""

FEWEST_IMAGES = 50
"""A device with fewer trains on all of them: five are the fewest on which an accuracy says something."""


@dataclass(frozen=True)
class DeviceData:
    """What a device trains on, what it holds out for evaluation (if anything), and how both are prepared."""

    train: Images
    held_out: Images | None
    preprocessor: Preprocessor


def device_data(node_config: Mapping[str, Scalar], config: Config, class_names: Sequence[str] = ()) -> DeviceData:
    """The images of the device that `node_config` describes, in a run whose classes are called `class_names`.

    A node configuration with `data` names a data set of the device's own, or with `data-path` the folder that
    `flwr-datasets create` made for it: all its training images are used, whatever `train-images` the run has and with
    all of a set that has no test part, normalised by their own statistics, and labelled by the names of their classes
    as the run numbers them (`common.data.class_names`). Otherwise the run's data set is split and partitioned by the
    run's seed, and normalised by the statistics of the server's reference set; `data-folder` may say where this machine
    keeps it. A tenth is held out if the run evaluates on the devices and there are FEWEST_IMAGES.

    Raises DataError if the images cannot be had or are of a class that the run does not have, ConfigurationError for a
    partition id that does not exist.
    """
    settings = config.data
    if "data-folder" in node_config:
        settings = replace(settings, data_folder=str(node_config["data-folder"]))
    number = partition_of(node_config, config.fleet)
    own = str(node_config.get("data") or node_config.get("data-path") or "")
    if own:
        allow(own)  # the owner of the device named it, not the run
        images, mean, std = _own(replace(settings, data=own, train_images=0, test_images=0), tuple(class_names))
    else:
        shared = _shared(settings, config.run.seed, config.fleet.devices)
        images, mean, std = shared.data.train.subset(shared.parts[number]), shared.mean, shared.std
    if len(images) < MINIMUM_IMAGES:
        raise DataError(f"this device has {len(images)} training images, but batch norm needs {MINIMUM_IMAGES}")
    train, held_out = images, None
    if config.federation.device_evaluation:
        train, held_out = _hold_out(images, config.run.seed, number)
    return DeviceData(train, held_out, Preprocessor(mean, std, settings.augment))


@dataclass(frozen=True)
class _Shared:
    """The run's data set and, for every device, the indices of its training images."""

    data: DataSet
    parts: list[torch.Tensor]
    mean: torch.Tensor
    std: torch.Tensor


@lru_cache(maxsize=1)
def _shared(settings: DataSettings, seed: int, devices: int) -> _Shared:
    data = load(settings)
    parts = device_shares(data, settings, seed, devices)
    mean, std = mean_std(data.train.images[split_reference(data, settings, seed).reference_train])
    return _Shared(data, parts, mean, std)


@lru_cache(maxsize=1)
def _own(settings: DataSettings, class_names: tuple[str, ...]) -> tuple[Images, torch.Tensor, torch.Tensor]:
    data = load(settings)
    images = renumbered(data.whole, data.class_names, class_names, settings.data)
    return images, *mean_std(images.images)


def _hold_out(images: Images, seed: int, number: int) -> tuple[Images, Images | None]:
    """A tenth held out, or nothing of fewer than FEWEST_IMAGES.

    Of the images in the order of their classes, within a class in any, every tenth from a random one of the first ten:
    each image is as likely as any other, and each class gives its share, also where it has fewer than ten.
    """
    if len(images) < FEWEST_IMAGES:
        return images, None
    generator = torch_generator(seed, "held-out", number)
    order = torch.randperm(len(images), generator=generator)
    order = order[torch.argsort(images.labels[order], stable=True)]
    is_held_out = torch.zeros(len(images), dtype=torch.bool)
    is_held_out[order[int(torch.randint(ONE_IN, (1,), generator=generator)) :: ONE_IN]] = True
    return images.subset(torch.nonzero(~is_held_out).flatten()), images.subset(torch.nonzero(is_held_out).flatten())
