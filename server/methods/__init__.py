"""The server half of each method, and how it is found."""

from common.config import Config
from common.errors import ConfigurationError
from common.methods import contract_of, load
from server.methods.method import Method


def server_half(config: Config) -> type[Method]:
    """The class of the run's method; raises ConfigurationError if it cannot be imported here."""
    contract = contract_of(config.method.method)
    found = load(contract.server, f"the server half of method {contract.name}")
    if not isinstance(found, type):
        raise ConfigurationError(f"{contract.server} must be a class, not {type(found).__name__}")
    return found
