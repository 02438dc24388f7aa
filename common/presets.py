"""Settings that go together, under one word: `--preset NAME`, or `preset = "NAME"` in a file of settings.

A preset is gone once the settings are read: what a run records is each setting's own value.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigurationError
from common.settings import Scalar

PRESET = "preset"
"""The key under which a preset is named."""


@dataclass(frozen=True)
class Preset:
    """What it is for, in a sentence, and the settings in which it differs from the defaults."""

    purpose: str
    settings: Mapping[str, Scalar]


PRESETS: Mapping[str, Preset] = {
    "default": Preset("Devices whose data are alike: each cohort averages its own devices, as in the paper.", {}),
    "recommended": Preset(
        "Devices whose data differ (non-IID): cohorts learn from each other (docs/methods.md).",
        {
            "aggregation": "overlap",
            "batch-norm": "frozen",
            "joint-epochs": 15,
            "distillation-epochs": 1,
            "max-gradient-norm": 5.0,
        },
    ),
    "paper": Preset(
        "The search as it was published: what it removes, where gates sit, their entropy and decay. Devices train on "
        "all their images.",
        {"recipe": "paper", "search-space": "inner", "search-learning-rate": 0.02, "device-evaluation": False},
    ),
    "fednas-published": Preset(
        "FedNAS as its program's scripts have it: 50 rounds of search, then 500 that train what was found.",
        {
            "method": "fednas",
            "data": "cifar10",
            "augment": "crop+flip+cutout",
            "partition": "balanced-dirichlet:0.5",
            "reference-fraction": 0.02,
            "devices": 16,
            "fleet": "workstation",
            "rounds": 550,
            "fednas-search-rounds": 50,
            "fednas-search-epochs": 5,
            "local-epochs": "15",
            "local-batch-size": 64,
            "learning-rate": 0.025,
            "momentum": 0.9,
            "weight-decay": 3e-4,
            "max-gradient-norm": 5.0,
            "fednas-drop-path": 0.5,
            "device-evaluation": False,
            "round-timeout": 86400.0,
        },
    ),
    "autoflip-published": Preset(
        "AutoFLIP as its program's CIFAR-10 command has it, 200 rounds after the exploration.",
        {
            "method": "autoflip",
            "data": "cifar10",
            "image-size": 24,
            "augment": "flip+jitter",
            "partition": "patho:2",
            "reference-fraction": 0.02,
            "model": "two_cnn",
            "initial-weights": "random",
            "devices": 20,
            "fleet": "workstation",
            "rounds": 201,
            "fraction": 0.25,
            "local-epochs": "5",
            "local-batch-size": 350,
            "optimizer": "adam",
            "learning-rate": 0.0003,
            "learning-rate-decay": 0.99,
            "momentum": 0.9,
            "evaluate-every": 10,
            "device-evaluation": True,
            "round-timeout": 36000.0,
            "autoflip-exploration-epochs": 150,
            "autoflip-patience": 40,
        },
    ),
}


def without_preset(settings: Mapping[str, Any], known: Collection[str] = ()) -> dict[str, Any]:
    """`settings` with those of the preset that they name, below their own.

    Only settings in `known` are taken from it, where any are given: a search has no rounds to set. Raises
    ConfigurationError for an unknown preset.
    """
    name = settings.get(PRESET, "default")
    if name not in PRESETS:
        raise ConfigurationError(f"preset must be one of {', '.join(PRESETS)}, not {name!r:.200}")
    wanted = {key: value for key, value in PRESETS[str(name)].settings.items() if not known or key in known}
    return {**wanted, **{key: value for key, value in settings.items() if key != PRESET}}
