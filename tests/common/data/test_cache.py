import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.data.cache import announcing, cached
from common.data.images import DataSet, Images
from common.data.sources import load
from common.groups import DataSettings
from tests.common.data.files import picture, write_parquet


def data_of(shade: int) -> DataSet:
    images = Images(torch.full((3, 1, 2, 2), shade, dtype=torch.uint8), torch.tensor([0, 1, 1]))
    return DataSet("made", images, images.subset([1]), ("no", "yes"))


def unexpected() -> DataSet:
    raise AssertionError("the stored copy was not used")


def only_entry(folder: Path) -> Path:
    (entry,) = (folder / "decoded").iterdir()
    return entry


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_what_takes_long_is_announced(tmp_path: Path) -> None:
    """Once, before the set is made; what is stored already is read without a word."""
    told: list[str] = []

    def made() -> DataSet:
        told.append("made")
        return data_of(7)

    with announcing(lambda: told.append("announced")):
        cached(tmp_path, "key", made)
        cached(tmp_path, "key", unexpected)
    cached(tmp_path, "other", made)
    assert told == ["announced", "made", "made"]


def test_a_stored_set_comes_back_as_it_was(tmp_path: Path) -> None:
    cached(tmp_path, "key", lambda: data_of(7))
    again = cached(tmp_path, "key", unexpected)
    assert again.name == "made"
    assert again.class_names == ("no", "yes")
    assert torch.equal(again.train.images, data_of(7).train.images)
    assert again.train.labels.tolist() == [0, 1, 1]
    assert again.test.labels.tolist() == [1]


def test_other_keys_are_other_sets(tmp_path: Path) -> None:
    cached(tmp_path, "one", lambda: data_of(1))
    assert int(cached(tmp_path, "two", lambda: data_of(2)).train.images[0, 0, 0, 0]) == 2
    assert int(cached(tmp_path, "one", unexpected).train.images[0, 0, 0, 0]) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "set.json").unlink(),
        lambda entry: (entry / "set.json").write_text("{"),
        lambda entry: (entry / "set.json").write_text('{"name": "made", "class_names": [], "crc32": {}}'),
        lambda entry: (entry / "test-labels.npy").unlink(),
        lambda entry: (entry / "train-images.npy").write_bytes(b""),
        lambda entry: (entry / "train-images.npy").write_bytes((entry / "train-images.npy").read_bytes()[:-1]),
        lambda entry: flip_last_byte(entry / "train-images.npy"),
        lambda entry: flip_last_byte(entry / "train-labels.npy"),
    ],
)
def test_a_damaged_copy_is_built_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    cached(tmp_path, "key", lambda: data_of(7))
    damage(only_entry(tmp_path))
    assert int(cached(tmp_path, "key", lambda: data_of(8)).train.images[0, 0, 0, 0]) == 8
    assert int(cached(tmp_path, "key", unexpected).train.images[0, 0, 0, 0]) == 8
    assert len(list((tmp_path / "decoded").iterdir())) == 1


def test_a_folder_that_cannot_be_written_only_means_no_copy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    assert int(cached(tmp_path / "file", "key", lambda: data_of(7)).train.images[0, 0, 0, 0]) == 7
    assert int(cached(tmp_path / "file", "key", lambda: data_of(8)).train.images[0, 0, 0, 0]) == 8


def test_writing_to_a_loaded_set_does_not_change_the_copy(tmp_path: Path) -> None:
    cached(tmp_path, "key", lambda: data_of(7)).train.images.fill_(0)
    assert int(cached(tmp_path, "key", unexpected).train.images[0, 0, 0, 0]) == 7


def test_a_replaced_source_file_is_decoded_anew(tmp_path: Path) -> None:
    settings = DataSettings(data=str(tmp_path / "a.parquet"), data_folder=str(tmp_path / "kept"))
    path = write_parquet(tmp_path / "a.parquet", [picture(1)] * 4, [0, 1, 0, 1])
    first = load(settings)
    write_parquet(path, [picture(2)] * 4, [0, 1, 0, 1])
    os.utime(path, (1, 1))
    assert int(first.train.images[0, 0, 0, 0]) == 1
    assert int(load(settings).train.images[0, 0, 0, 0]) == 2
