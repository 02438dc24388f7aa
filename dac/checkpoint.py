"""Unfinished work in one file: tensors and JSON together, replaced atomically, never pickled."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from common.atomic import replacing
from common.errors import CheckpointError
from common.layout import State
from common.learning import Feed
from common.reading import Unreadable, check_tensor_file, parse_json

SHARE = 0.02
"""Of the time at most this much goes into writing checkpoints: an epoch of a small network is shorter than one."""


@dataclass(frozen=True)
class Checkpoint:
    """JSON-ready `progress` and named groups of tensors."""

    progress: dict[str, Any]
    tensors: dict[str, State]


def digest_of(*feeds: Feed) -> str:
    """Of what work on these feeds depends on beside the size of a batch: images, labels, and how they are prepared."""
    digest = hashlib.sha256()
    for feed in feeds:
        images, preparation = feed.images, feed.preprocessor
        digest.update(json.dumps([list(images.images.shape), preparation.augment]).encode())
        for tensor in (images.images, images.labels, preparation.mean, preparation.std):
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(path: Path, state: Checkpoint, signature: str) -> None:
    """Write the state; `signature` names the work it belongs to."""
    flat = {
        f"{group}/{name}": t.contiguous() for group, tensors in state.tensors.items() for name, t in tensors.items()
    }
    progress = json.dumps(state.progress)
    metadata = {"progress": progress, "signature": signature, "sha256": _digest(flat, progress)}
    with replacing(path) as temporary:
        save_file(flat, temporary, metadata)


def load_checkpoint(path: Path, signature: str) -> Checkpoint | None:
    """The saved state, or None where there is none. Raises CheckpointError if it is damaged or of other work."""
    if not path.exists():
        return None
    try:
        check_tensor_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress = parse_json(metadata["progress"])
        intact = metadata["sha256"] == _digest(flat, metadata["progress"])
    except (SafetensorError, OSError, KeyError, TypeError, Unreadable) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged ({error}); delete it to start anew") from None
    if not intact:
        raise CheckpointError(f"the checkpoint {path} is damaged; delete it to start anew")
    if metadata["signature"] != signature:
        raise CheckpointError(
            f"the checkpoint {path} belongs to other budgets, settings or data; use another run folder"
        )
    tensors: dict[str, State] = {}
    for name, tensor in flat.items():
        group, _, rest = name.partition("/")
        tensors.setdefault(group, {})[rest] = tensor
    return Checkpoint(progress, tensors)


def _digest(flat: dict[str, torch.Tensor], progress: str) -> str:
    digest = hashlib.sha256(progress.encode())
    for name in sorted(flat):
        digest.update(name.encode())
        digest.update(flat[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
