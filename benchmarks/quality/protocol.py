"""Everything a result depends on apart from its seed: data, network, recipe, and how architectures are searched."""

import argparse
import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace

from common.groups import SearchSettings, TrainSettings
from common.search_space import SearchSpace


@dataclass(frozen=True)
class Protocol:
    """Each field is a flag. Zero images are all there are."""

    stem_stride: int = 2
    strides: str = "1,2,2,2,1,2,1"
    train_images: int = 10000
    validation_images: int = 2000
    test_images: int = 0
    augment: str = "crop+flip"
    batch_size: int = 64
    epochs: int = 12  # of every final training
    learning_rate: float = 0.1  # of networks with fresh weights
    inherited_learning_rate: float = 0.1  # of those that inherit theirs
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    recipe: str = "default"
    search_space: str = "all"
    channel_multiple: int = 1  # as fine as plain scaling
    channel_floor: int = 4
    warmup_epochs: int = 3
    epochs_per_step: int = 1
    step_share: float = 0.25
    search_learning_rate: float = 0.1
    slimming_strength: float = 1e-4
    distillation: float = 0.7  # share of the loss in rows with a teacher
    bf16: bool = False

    def search_settings(self) -> SearchSettings:
        """Of the search, which leaves the final training to the cells."""
        return SearchSettings(
            recipe=self.recipe,
            search_space=self.search_space,
            channel_multiple=self.channel_multiple,
            channel_floor=self.channel_floor,
            warmup_epochs=self.warmup_epochs,
            epochs_per_step=self.epochs_per_step,
            step_share=self.step_share,
            fine_tune_epochs=0,
            search_learning_rate=self.search_learning_rate,
            search_batch_size=self.batch_size,
            search_weight_decay=self.weight_decay,
        )

    def widths(self) -> SearchSpace:
        """What random widths, L1 and slimming may narrow: all that the search may, to the channel."""
        return replace(SearchSpace.of(self.search_settings()), multiple=1)

    def train_settings(self, epochs: int, learning_rate: float) -> TrainSettings:
        """Of every other training."""
        return TrainSettings(
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=learning_rate,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            distillation=self.distillation,
            bf16=self.bf16,
        )

    def key(self, data: str) -> str:
        """What tells the rows of one protocol on one data set from others in the same file."""
        return hashlib.sha256(json.dumps({"data": data, **vars(self)}).encode()).hexdigest()[:12]


PRESETS = {
    "cpu": Protocol(),
    "gpu": Protocol(
        stem_stride=1,
        strides="1,1,2,2,1,2,1",
        train_images=0,
        validation_images=5000,
        batch_size=256,
        epochs=100,
        learning_rate=0.2,
        inherited_learning_rate=0.2,
        warmup_epochs=20,
        epochs_per_step=3,
        step_share=0.2,
        search_learning_rate=0.1,
        bf16=True,
    ),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for every field; one that is not given leaves the preset's value."""
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    for field in dataclasses.fields(Protocol):
        flag, kind = f"--{field.name.replace('_', '-')}", field.type
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(flag, type=kind, default=None)


def protocol_of(arguments: argparse.Namespace) -> Protocol:
    """The preset with the flags that were given."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Protocol)}
    changed = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(PRESETS[arguments.preset], **changed)
