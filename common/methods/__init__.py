"""The contracts of the methods: ours, and those that a user brings. Adding a method is a file here and a line below."""

import difflib
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from common.errors import ConfigurationError
from common.methods.autoflip import AutoFLIP
from common.methods.contract import Contract
from common.methods.dac import DAC
from common.methods.fedavg import FedAvg
from common.methods.fedgkt import FedGKT
from common.methods.fednas import FedNAS
from common.methods.fedprox import FedProx
from common.methods.heterofl import HeteroFL

if TYPE_CHECKING:
    from common.network import Network

CONTRACTS: Mapping[str, type[Contract]] = {
    one.name: one for one in (DAC, FedAvg, FedProx, HeteroFL, FedNAS, AutoFLIP, FedGKT)
}


def contract_of(method: str) -> type[Contract]:
    """The contract of one of our methods by its name, or of another by `package.module:Class`.

    The name must come from this machine's own configuration: what it names is imported. Raises ConfigurationError for
    an unknown method, or one that cannot be imported or is no contract.
    """
    if method in CONTRACTS:
        return CONTRACTS[method]
    if ":" not in method:
        near = difflib.get_close_matches(method, CONTRACTS, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(
            f"method must be one of {', '.join(CONTRACTS)} or package.module:Class, not {method!r}{hint}"
        )
    found = load(method, "method")
    if not (isinstance(found, type) and issubclass(found, Contract)):
        raise ConfigurationError(f"method {method} is not a class that derives from common.methods.contract.Contract")
    return found


def network_class(contract: type[Contract]) -> "type[Network]":
    """The class of the networks that a method sends; raises ConfigurationError if it cannot be imported."""
    found: type[Network] = load(contract.network, f"the network of method {contract.name}")  # type: ignore[assignment]
    return found


def load(place: str, what: str) -> object:
    """What `module:name` names; raises ConfigurationError, calling it `what`, if it cannot be imported."""
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{what} {place} cannot be imported here: {error}") from None
