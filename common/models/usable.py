"""What a stranger's module must be, so that all of it can be told apart, reduced, averaged and sent."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from common.errors import ArchitectureError

_KINDS = (torch.float32, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def usable(name: str, module: object) -> nn.Module:
    """The module; raises ArchitectureError, naming the network, for none or one with tensors that cannot be handled.

    These are tensors under two names (tied weights), those that are neither parameters nor buffers, and those that are
    not of float32, integers or truth values.
    """
    if not isinstance(module, nn.Module):
        raise ArchitectureError(f"{name} returned {type(module).__name__}, not a torch module")
    for attribute in _plain_tensors(module):
        path, _, own = attribute.rpartition(".")
        raise ArchitectureError(
            f"{name} keeps a tensor in the plain attribute {own!r} of {path or 'itself'}, which is not moved, reduced "
            f"or saved with it; keep it with self.register_buffer({own!r}, ...) or as an nn.Parameter"
        )
    names: dict[int, str] = {}
    for one, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):
            raise ArchitectureError(f"{name} has the extra state {one!r}, which is no tensor; leave it out")
        if tensor.dtype not in _KINDS:
            raise ArchitectureError(
                f"{one} of {name} is of {tensor.dtype}; weights and buffers must be of torch.float32, integers or "
                "truth values"
            )
        if id(tensor) in names:
            raise ArchitectureError(
                f"{name} has one tensor under two names, {names[id(tensor)]} and {one}; tied weights are not "
                "supported: give each layer its own, or call one layer twice under one name"
            )
        names[id(tensor)] = one
    return module


def first_line(error: Exception) -> str:
    """What kind of error it is and the first line of what it says."""
    return next(iter(f"{type(error).__name__}: {error}".splitlines()))


def _plain_tensors(module: nn.Module) -> Iterator[str]:
    """The attributes that hold tensors, also in lists, tuples and dictionaries, which torch does not know of.

    A further list of a module's own parameters, which recurrent layers have, is none.
    """
    for path, one in module.named_modules():
        own = {id(tensor) for tensor in (*one._parameters.values(), *one._buffers.values())}
        for name, value in vars(one).items():
            if name not in ("_parameters", "_buffers", "_modules") and any(
                id(tensor) not in own for tensor in _tensors_in(value)
            ):
                yield f"{path}.{name}" if path else name


def _tensors_in(value: Any) -> list[torch.Tensor]:
    held = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else [value]
    return [one for one in held if isinstance(one, torch.Tensor)]
