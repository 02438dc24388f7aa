"""The weights of an architecture out of a safetensors file, checked by its header before anything is built."""

import hashlib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.layout import State
from common.models.description import BYTES_PER_VALUE
from common.reading import MAX_HEADER_BYTES, read_limited, tensor_header

COUNTER = "num_batches_tracked"
"""The one integer that a batch norm keeps; all other tensors are float32."""


def read_weights(path: Path, sha256: object, architecture: Architecture) -> State:
    """The state dict of `architecture` in the file at `path`, whose SHA-256 must be `sha256`.

    Raises ArchitectureError for tensors of another network or type, for values that are not finite and for negative
    variances; Unreadable for a file that cannot be read; SafetensorError for one that contradicts itself.
    """
    content = read_limited(path, MAX_HEADER_BYTES + 2 * BYTES_PER_VALUE * architecture.layout.size)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArchitectureError(f"{path} is damaged: its SHA-256 is not the one that the architecture file names")
    return _state(content, architecture, path)


def read_own_weights(path: Path, architecture: Architecture) -> State:
    """The same of a file that has no sum to compare with."""
    content = read_limited(path, MAX_HEADER_BYTES + 2 * BYTES_PER_VALUE * architecture.layout.size)
    return _state(content, architecture, path)


def _state(content: bytes, architecture: Architecture, path: Path) -> State:
    _check_header(tensor_header(content), architecture, path)
    loaded = load(content)
    state = {name: loaded[name] for name in _names(architecture)}  # in the order of a state dict
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArchitectureError(f"{path}: {name} is not finite")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ArchitectureError(f"{path}: {name} is negative, which no variance is")
    return state


def _check_header(header: Mapping[str, Any], architecture: Architecture, path: Path) -> None:
    expected = {
        name: ("F32", list(shape))
        for name, shape in zip(architecture.layout.names, architecture.layout.shapes, strict=True)
    }
    for name in _names(architecture):
        expected.setdefault(name, ("I64", []))
    for name in sorted(set(expected) ^ set(header)):
        problem = "lacks" if name in expected else "holds"
        raise ArchitectureError(f"{path} does not fit its architecture: it {problem} {reprlib.repr(name)}")
    for name, wanted in expected.items():
        found = (header[name]["dtype"], header[name]["shape"])
        if found != wanted:
            raise ArchitectureError(
                f"{path} does not fit its architecture: {name} is {reprlib.repr(found)} where {wanted} is needed"
            )


def _names(architecture: Architecture) -> list[str]:
    """The tensors of its state dict; those of blocks that have vanished are not among them."""
    return [one.name for one in architecture.description.tensors if one.block not in architecture.removed]
