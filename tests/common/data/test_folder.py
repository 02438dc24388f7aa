from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.images import DataSet
from common.data.sources import load
from common.errors import DataError
from common.groups import DataSettings
from tests.common.data.files import picture


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Path], DataSet]:
    return lambda path: load(DataSettings(data=str(path), data_folder=str(tmp_path / "kept")))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_train_and_test_folders(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    root = tmp_path / "pets"
    write(root / "train/dog/b.PNG", picture(2))
    write(root / "train/dog/a.jpg", picture(1, kind="JPEG"))
    write(root / "train/cat/a.jpeg", picture(3, kind="JPEG"))
    write(root / "train/cat/notes.txt", b"not an image")
    write(root / "train/.hidden/a.png", b"not an image")
    write(root / "test/dog/a.png", picture(4))
    data = read(root)
    assert data.name == "pets"
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.train.images[:, 0, 0, 0].tolist() == [3, 1, 2]
    assert data.test.labels.tolist() == [1]


@pytest.mark.parametrize("part", ["", "train/"])
def test_class_folders_alone_get_a_fixed_test_fifth(tmp_path: Path, read: Callable[[Path], DataSet], part: str) -> None:
    for index in range(10):
        write(tmp_path / f"pets/{part}cat/{index}.png", picture(index, "L"))
        write(tmp_path / f"pets/{part}dog/{index}.png", picture(100 + index, "L"))
    data = read(tmp_path / "pets")
    assert (len(data.train), len(data.test)) == (16, 4)
    assert sorted(data.test.labels.tolist()) == [0, 0, 1, 1]
    assert all(
        (shade >= 100) == bool(label)
        for shade, label in zip(data.test.images[:, 0, 0, 0].tolist(), data.test.labels.tolist(), strict=True)
    )


def test_the_first_image_of_another_size_is_named(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    write(tmp_path / "pets/cat/a.png", picture(1))
    write(tmp_path / "pets/dog/b.png", picture(1, side=5))
    with pytest.raises(DataError, match=r"dog/b\.png is 5x5 colour but .*cat/a\.png is 4x4 colour"):
        read(tmp_path / "pets")


def test_a_damaged_image_is_named(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    write(tmp_path / "pets/cat/a.png", picture(1))
    write(tmp_path / "pets/cat/b.png", picture(1)[:30])
    with pytest.raises(DataError, match=r"cat/b\.png is not a readable PNG or JPEG"):
        read(tmp_path / "pets")


def test_folders_without_images_are_refused(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no data set: it needs"):
        read(tmp_path / "empty")
    write(tmp_path / "pets/cat/a.png", picture(1))
    (tmp_path / "pets/dog").mkdir()
    with pytest.raises(DataError, match=r"dog holds no \.png"):
        read(tmp_path / "pets")


def test_a_test_class_that_cannot_be_learned_is_named(tmp_path: Path, read: Callable[[Path], DataSet]) -> None:
    write(tmp_path / "pets/train/cat/a.png", picture(1))
    write(tmp_path / "pets/test/dog/a.png", picture(1))
    with pytest.raises(DataError, match=r"test/dog has no counterpart"):
        read(tmp_path / "pets")
