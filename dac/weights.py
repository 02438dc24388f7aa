"""The weights of an architecture out of a safetensors file, checked by its header before anything is built."""

import hashlib
import math
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.layout import State
from common.models.description import BYTES_PER_VALUE, Tensor
from common.models.networks import skeleton_of
from common.reading import MAX_HEADER_BYTES, read_limited, tensor_header

COUNTER = "num_batches_tracked"
"""The one integer that a batch norm keeps; all other tensors of our own networks are float32."""

WHOLE_NUMBERS = {
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The types of what a network keeps beside its weights, by their names in a file."""


def read_weights(path: Path, sha256: object, architecture: Architecture) -> State:
    """The state dict of `architecture` in the file at `path`, whose SHA-256 must be `sha256`.

    Raises ArchitectureError for tensors of another network or type, for values that are not finite and for negative
    variances; Unreadable for a file that cannot be read; SafetensorError for one that contradicts itself.
    """
    content = read_limited(path, _largest(architecture))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArchitectureError(f"{path} is damaged: its SHA-256 is not the one that the architecture file names")
    return _state(content, architecture, path)


def read_own_weights(path: Path, architecture: Architecture) -> State:
    """The same of a file that has no sum to compare with."""
    content = read_limited(path, _largest(architecture))
    return _state(content, architecture, path)


def _largest(architecture: Architecture) -> int:
    """More bytes than any of its weight files has."""
    whole = sum(8 * math.prod(one.shape) for one in architecture.description.tensors if not one.floating)
    return MAX_HEADER_BYTES + 2 * BYTES_PER_VALUE * architecture.layout.size + whole


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
    expected |= dict(_whole_numbers(architecture))
    for name in sorted(set(expected) ^ set(header)):
        problem = "lacks" if name in expected else "holds"
        raise ArchitectureError(f"{path} does not fit its architecture: it {problem} {reprlib.repr(name)}")
    for name, wanted in expected.items():
        found = (header[name]["dtype"], header[name]["shape"])
        if found != wanted:
            raise ArchitectureError(
                f"{path} does not fit its architecture: {name} is {reprlib.repr(found)} where {wanted} is needed"
            )


def _whole_numbers(architecture: Architecture) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    """Type and shape of its tensors that are no floats."""
    found = {one.name: list(one.shape_at(architecture.sizes)) for one in _tensors(architecture) if not one.floating}
    others = [name for name, shape in found.items() if shape or not name.endswith(COUNTER)]
    types = skeleton_of(architecture.base).state_dict() if others else {}
    for name, shape in found.items():
        yield name, (WHOLE_NUMBERS.get(types[name].dtype, "") if name in others else "I64", shape)


def _names(architecture: Architecture) -> list[str]:
    return [one.name for one in _tensors(architecture)]


def _tensors(architecture: Architecture) -> list[Tensor]:
    """Those of its state dict; tensors of blocks that have vanished are not among them."""
    return [one for one in architecture.description.tensors if one.block not in architecture.removed]
