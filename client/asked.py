"""What a device makes of a message that asks it to train, before it begins."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from flwr.app import Context, Message

from client.data import DeviceData, device_data
from client.identity import device_name
from client.methods import device_half, received_task
from client.steps import Step
from common.config import Config
from common.learning import pick_accelerator
from common.messages import Task
from common.methods import contract_of


@dataclass(frozen=True)
class Asked:
    """A task, the steps its method has, and by whom, with which images and where it is done."""

    task: Task
    steps: Mapping[str, Step]
    name: str
    data: DeviceData
    accelerator: torch.device


def asked(message: Message, context: Context) -> Asked:
    """What a message asks of the device that `context` is of; raises a FedDACError if it cannot be done."""
    config = Config.from_mapping(context.run_config)
    task = received_task(message, context, config)
    steps = device_half(contract_of(config.method.method))
    name = device_name(context.node_config, config.fleet, config.federation.local_training)
    data = device_data(context.node_config, config, task.class_names)
    return Asked(task, steps, name, data, pick_accelerator(config.run.accelerator))
