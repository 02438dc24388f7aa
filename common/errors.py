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


class FedDACError(Exception):
    """A mistake or condition the user can act on; the command line prints it without a traceback."""


class ConfigurationError(FedDACError):
    """A setting has an unknown name, the wrong type or an impossible value."""


class BudgetError(FedDACError):
    """A budget is malformed, or lies below the smallest architecture of the search space."""


class ArchitectureError(FedDACError):
    """An architecture description is damaged or describes a network that cannot be built."""


class DataError(FedDACError):
    """A data set is unknown, unreadable, unreachable or too small for what was asked."""


class CheckpointError(FedDACError):
    """A checkpoint is missing, damaged or belongs to another configuration."""


class MessageError(FedDACError):
    """A message between server and device breaks the wire schema of `common.messages`."""


class FederationError(FedDACError):
    """A run cannot go on, for example because no device answered."""
