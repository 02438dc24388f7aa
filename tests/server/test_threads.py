"""A run keeps the number of threads that it began with: another one would round differently."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import Config
from common.errors import CheckpointError
from server.run_folder import RunFolder
from server.threads import threads_of
from tests.server.helpers import Crash, models


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_number_is_recorded_once_and_restored_afterwards(
    run_folder: RunFolder, threads: Callable[[int], None]
) -> None:
    threads(3)
    with threads_of(run_folder) as number:
        assert (number, torch.get_num_threads()) == (3, 3)
    threads(2)
    with threads_of(run_folder) as number:
        assert (number, torch.get_num_threads()) == (3, 3)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"threads": 0}', '{"threads": true}', '{"threads": 1e9}', "7"])
def test_a_damaged_record_is_refused(text: str, run_folder: RunFolder) -> None:
    (run_folder.checkpoint_folder / "threads.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"threads\.json"), threads_of(run_folder):
        pass


def test_a_run_resumed_with_other_threads_ends_with_the_same_weights(
    small_config: Callable[..., Config],
    run_federation: Callable[..., Any],
    tmp_path: Path,
    threads: Callable[[int], None],
) -> None:
    mobile = {"model": "mobilenet_v2", "width": 0.25, "stem_stride": 2, "max_params": "", "train_images": 200}
    config = small_config(**mobile, rounds=1, devices=2, search_learning_rate=0.01)
    threads(3)  # two for the search, one for what it finds
    run_federation(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_federation(config, tmp_path / "cut", progress=Crash(4))
    threads(1)
    run_federation(config, tmp_path / "cut", resume=True)
    assert models(tmp_path / "cut") == models(tmp_path / "whole")
    run_federation(config, tmp_path / "other")
    assert models(tmp_path / "other") != models(tmp_path / "whole"), "one thread rounds as three do: this tests nothing"
