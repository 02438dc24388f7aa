"""The device half of each method, and how it is found."""

from collections.abc import Mapping

from flwr.app import Context, Message

from client.identity import own_model
from client.steps import Step
from common.config import Config
from common.errors import ConfigurationError, MessageError
from common.messages import Task
from common.methods import contract_of, load, network_class
from common.methods.contract import Contract
from common.models import allow_network


def device_half(contract: type[Contract]) -> Mapping[str, Step]:
    """The steps of a method by their names; raises ConfigurationError if they cannot be imported on this device."""
    steps = load(contract.device, f"the device half of method {contract.name}")
    if not isinstance(steps, Mapping):
        raise ConfigurationError(f"{contract.device} must be a mapping from names to steps, not {type(steps).__name__}")
    return steps


def received_task(message: Message, context: Context, config: Config) -> Task:
    """The task in a message; raises MessageError unless it is of the method that the run is configured with.

    What a message names, method or network, is never imported, only compared.
    """
    allow_network(own_model(context.node_config, config.model))
    contract = contract_of(config.method.method)
    task = Task.decode(message.content, network_class(contract))
    if task.method != contract.name:
        raise MessageError(f"the run is of method {contract.name}, the message of {task.method!r:.40}")
    return task
