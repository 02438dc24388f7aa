"""Every error FedDAC shows to a user: one sentence that says what was wrong, where, and what would work.

FedDACError
├── ConfigurationError   a setting, flag or TOML key
├── BudgetError          a budget that is malformed or that no architecture can meet
├── ArchitectureError    an architecture file or wire form that cannot be built
├── DataError            a data set that is missing, unreadable or too small
├── CheckpointError      a run folder that cannot be resumed
├── MessageError         a query, request or reply that breaks the wire schema
└── FederationError      a run that cannot go on: too few devices, every reply rejected
"""

from collections.abc import Mapping


class FedDACError(Exception):
    """A mistake or condition the user can act on; the command line prints it without a traceback."""


class ConfigurationError(FedDACError):
    """A setting has an unknown name, the wrong type or an impossible value."""


class BudgetError(FedDACError):
    """A budget is malformed, or lies below the smallest architecture of the search space.

    `remedy` are settings, by their kebab-case keys, with which it would not; empty where none is known.
    """

    def __init__(self, message: str, remedy: Mapping[str, bool | int | float | str] | None = None) -> None:
        super().__init__(message)
        self.remedy = dict(remedy or {})


class ArchitectureError(FedDACError):
    """An architecture description is damaged or describes a network that cannot be built."""


class DataError(FedDACError):
    """A data set is unknown, unreadable, unreachable or too small for what was asked."""


class CheckpointError(FedDACError):
    """A checkpoint is missing, damaged or belongs to another configuration."""


class MessageError(FedDACError):
    """A message between server and device breaks the wire schema (`common.messages`, `common.handshake`)."""


class FederationError(FedDACError):
    """A run cannot go on, for example because no device answered."""
