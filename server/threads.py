"""Sums are split among threads, and rounding depends on how: a run keeps the number of threads that it began with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.errors import CheckpointError
from server.json_files import read_json, write_json
from server.run_folder import RunFolder

MOST = 4096


@contextmanager
def threads_of(folder: RunFolder) -> Iterator[int]:
    """Inside the block torch computes with as many threads as when the run in `folder` began; gives their number.

    When it begins that is torch's own choice, which OMP_NUM_THREADS decides. Raises CheckpointError for a damaged
    record.
    """
    path = folder.checkpoint_folder / "threads.json"
    before = torch.get_num_threads()
    recorded = read_json(path) if path.exists() else {"threads": before}
    number = recorded.get("threads") if isinstance(recorded, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST:
        raise CheckpointError(f"{path} is damaged: it does not say with how many threads the run began")
    write_json(path, {"threads": number})
    torch.set_num_threads(number)
    try:
        yield number
    finally:
        torch.set_num_threads(before)
