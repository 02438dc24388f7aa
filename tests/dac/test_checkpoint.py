"""What a search writes of its unfinished work can be read again, however many budgets it has."""

import json
import struct
from pathlib import Path

import pytest
import torch

from common.errors import CheckpointError
from common.reading import MAX_HEADER_BYTES
from dac.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def test_a_hundred_members_are_read_again(tmp_path: Path) -> None:
    names = [f"blocks.{number}.convolution.weight" for number in range(700)]  # as many as ResNet-110 has tensors
    tensors = {f"member-{member}": {name: torch.full((1,), float(member)) for name in names} for member in range(100)}
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, Checkpoint({"epoch": 3}, tensors), "signature")
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert length > MAX_HEADER_BYTES
    found = load_checkpoint(path, "signature")
    assert found is not None
    assert found.progress == {"epoch": 3}
    assert found.tensors == tensors


@pytest.mark.parametrize("length", [2**40, 200, 4])
def test_a_header_longer_than_the_file_or_no_header_at_all_is_damage(tmp_path: Path, length: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"[" * 100)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path, "signature")


def test_what_is_missing_in_a_header_is_damage(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"progress": "{}"}}).encode()
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path, "signature")
