"""What can be wrong with a simulation is found before any work: settings, budgets, data, and how it is divided."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from common.config import Config
from common.data.shares import device_shares
from common.data.sources import load
from common.effects import require_effect
from common.fleet import virtual_fleet
from server.methods import server_half
from server.reference import base_network


@dataclass(frozen=True)
class Partition:
    """How many training images of each class (in the order of `class_names`) each device has, by its name."""

    class_names: tuple[str, ...]
    counts: Mapping[str, list[int]]


def check(config: Config) -> Partition:
    """Raise the error that the run would end with, or that would cost it a device.

    ConfigurationError for a setting that the method does not read or an unknown fleet; DataError for data that cannot
    be had or divided; and what the method itself finds wrong, such as BudgetError for a device that no architecture
    fits. Loading the data here also fills the cache that all processes share. Returns how the data is divided.
    """
    require_effect(config)
    half = server_half(config)
    fleet = virtual_fleet(config.fleet)
    data = load(config.data)
    base = base_network(config.model, data)
    shares = device_shares(data, config.data, config.run.seed, len(fleet))
    counts = [torch.bincount(data.train.labels[share], minlength=data.classes).tolist() for share in shares]
    half.check(config, base, {f"{device.name} ({device.profile})": device.budget for device in fleet})
    return Partition(data.class_names, dict(zip([one.name for one in fleet], counts, strict=True)))
