"""Images and network of a protocol."""

from dataclasses import dataclass
from functools import cache

import torch

from benchmarks.quality.protocol import Protocol
from common.data.augment import Preprocessor
from common.data.images import Images, mean_std
from common.data.sources import load
from common.data.split import split_stratified
from common.groups import DataSettings
from common.learning import Feed
from common.models.description import BaseNetwork
from common.seeds import torch_generator


@dataclass(frozen=True)
class Material:
    """What all cells of a protocol share; stratified subsets that no seed changes."""

    name: str
    base: BaseNetwork
    train: Feed
    validation: Feed
    test: Feed


@cache
def material_of(data: str, protocol: Protocol, accelerator: torch.device) -> Material:
    """Loaded once per process."""
    found = load(DataSettings(data=data))
    wanted = protocol.train_images + protocol.validation_images if protocol.train_images else len(found.train)
    chosen = found.train.subset(_some(found.train, wanted))
    kept, held_out = split_stratified(
        chosen.labels, protocol.validation_images / wanted, torch_generator(0, "quality", "validation")
    )
    train, validation = chosen.subset(kept), chosen.subset(held_out)
    test = found.test.subset(_some(found.test, protocol.test_images or len(found.test)))
    preprocessor = Preprocessor(*mean_std(train.images), protocol.augment)

    def feed(images: Images, batch_size: int) -> Feed:
        return Feed(Images(images.images.to(accelerator), images.labels.to(accelerator)), preprocessor, batch_size)

    strides = tuple(int(stride) for stride in protocol.strides.split(","))
    base = BaseNetwork("mobilenet_v2", found.input_shape, found.classes, 1.0, protocol.stem_stride, strides)
    return Material(found.name, base, feed(train, protocol.batch_size), feed(validation, 250), feed(test, 250))


def _some(images: Images, wanted: int) -> torch.Tensor:
    """Positions of a stratified choice of `wanted` images; all of them if there are not more."""
    if wanted >= len(images):
        return torch.arange(len(images))
    return split_stratified(images.labels, wanted / len(images), torch_generator(0, "quality", "subset"))[1]
