from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from common.data.images import DataSet
from common.data.sources import load
from common.errors import DataError
from common.groups import DataSettings
from tests.common.data.files import picture, write_parquet


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Path], DataSet]:
    return lambda path: load(DataSettings(data=str(path), data_folder=str(tmp_path / "kept")))


def test_a_folder_of_train_and_test_files(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    folder = tmp_path / "pets"
    write_parquet(folder / "train-00000-of-00002.parquet", [picture(1), picture(2)], [0, 1])
    write_parquet(folder / "train-00001-of-00002.parquet", [picture(3)], [1])
    write_parquet(folder / "test-00000-of-00001.parquet", [picture(4)], [0])
    data = read(folder)
    assert data.name == "pets"
    assert data.class_names == ("cat", "dog")
    assert data.input_shape == (3, 4, 4)
    assert data.train.images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.test.images[:, 0, 0, 0].tolist() == [4]


def test_one_file_gets_a_fixed_test_fifth(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    path = write_parquet(tmp_path / "pets.parquet", [picture(i, "L") for i in range(20)], [i % 2 for i in range(20)])
    data = read(path)
    assert (len(data.train), len(data.test)) == (16, 4)
    assert torch.bincount(data.test.labels).tolist() == [2, 2]
    assert data.input_shape == (1, 4, 4)
    together = [*data.train.images[:, 0, 0, 0].tolist(), *data.test.images[:, 0, 0, 0].tolist()]
    assert sorted(together) == list(range(20))


@pytest.mark.parametrize(("image", "label"), [("img", "fine_label"), ("image", "labels"), ("img", "label")])
def test_other_column_names_and_no_class_names(
    tmp_path: Path, read: Callable[[Path], DataSet], image: str, label: str
) -> None:
    write_parquet(
        tmp_path / "train-0.parquet",
        [picture(1)] * 4,
        [0, 2, 0, 2],
        image_column=image,
        label_column=label,
        class_names=(),
    )
    write_parquet(
        tmp_path / "test-0.parquet", [picture(1)], [3], image_column=image, label_column=label, class_names=()
    )
    assert read(tmp_path).class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int32(), pa.uint64()])
def test_labels_of_any_integer_type(tmp_path: Path, read: Callable[[Path], DataSet], kind: pa.DataType) -> None:
    data = read(write_parquet(tmp_path / "a.parquet", [picture(1)] * 4, [0, 1, 0, 1], label_type=kind))
    assert sorted(data.train.labels.tolist() + data.test.labels.tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([0, -1, 1], None, "row 1 has the label -1: labels must lie between 0 and 1"),
        ([0, 1, 2], None, "row 2 has the label 2"),
        ([0, 2**64 - 1, 1], pa.uint64(), f"row 1 has the label {2**64 - 1}"),
        ([0, None, 1], None, "row 1 has no label"),
        ([0.0, 1.0, 0.0], pa.float64(), "labels must be integers"),
        (["cat", "dog", "cat"], pa.string(), "labels must be integers"),
    ],
)
def test_a_bad_label_is_named_with_its_file_and_row(
    tmp_path: Path, read: Callable[[Path], DataSet], labels: list[Any], kind: pa.DataType | None, message: str
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(1)] * 3, labels, label_type=kind)
    with pytest.raises(DataError) as caught:
        read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_absurd_label_without_class_names_is_refused(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(1)] * 2, [0, 10**12], class_names=())
    with pytest.raises(DataError, match="row 1 has the label 1000000000000"):
        read(path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [(None, "row 2 has no image bytes"), (b"x", "row 2 is not a readable"), (picture(1, "L"), "row 2 is 4x4 grey")],
)
def test_a_bad_image_is_named_with_its_file_and_row(
    tmp_path: Path, read: Callable[[Path], DataSet], bad: bytes | None, message: str
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(1), picture(1), bad], [0, 1, 0])
    with pytest.raises(DataError, match=f"a.parquet, {message}"):
        read(path)


def test_test_images_must_be_like_training_images(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    write_parquet(tmp_path / "train-0.parquet", [picture(1)], [0])
    write_parquet(tmp_path / "test-0.parquet", [picture(1, side=5)], [0])
    with pytest.raises(DataError, match=r"test-0.parquet, row 0 is 5x5 colour but .*train-0.parquet, row 0 is 4x4"):
        read(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(1)] * 50, [0, 1] * 25)
    whole = path.read_bytes()
    for damaged in (b"", whole[:10], whole[:-10], whole[: len(whole) // 2], b"\0" * 100):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.parquet is not a readable Parquet file \([^\n]*fetch or write it"):
            read(path)


def test_missing_columns_are_listed(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    pq.write_table(pa.table({"picture": [1], "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column with an image: its columns are picture, label.*image or img"):
        read(tmp_path / "a.parquet")
    write_parquet(tmp_path / "b.parquet", [picture(1)], [0], label_column="kind")
    with pytest.raises(DataError, match=r"no column with a label: its columns are image, kind"):
        read(tmp_path / "b.parquet")
    pq.write_table(pa.table({"image": ["a.png"], "label": [0]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="must be a struct with a field 'bytes'"):
        read(tmp_path / "c.parquet")


def test_an_empty_file_and_a_single_row_are_refused(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    with pytest.raises(DataError, match=r"a\.parquet has no rows"):
        read(write_parquet(tmp_path / "a.parquet", [], []))
    with pytest.raises(DataError, match="no test images can be held out"):
        read(write_parquet(tmp_path / "b.parquet", [picture(1)], [0]))


def test_a_missing_shard_is_named(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [picture(1)], [0])
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet is missing"):
        read(tmp_path)


def test_a_folder_without_training_files_is_refused(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    write_parquet(tmp_path / "validation-0.parquet", [picture(1)], [0])
    with pytest.raises(DataError, match=r"no train-\*\.parquet, only validation-0\.parquet"):
        read(tmp_path)


def test_files_that_disagree_on_the_classes_are_refused(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    write_parquet(tmp_path / "train-0.parquet", [picture(1)], [0])
    write_parquet(tmp_path / "test-0.parquet", [picture(1)], [0], class_names=("dog", "cat"))
    with pytest.raises(DataError, match="name their classes differently"):
        read(tmp_path)
