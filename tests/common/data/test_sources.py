import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.sources import HUB_NAMES, load
from common.errors import DataError
from common.groups import DataSettings
from tests.common.data.files import picture, write_parquet


def write_idx(path: Path, shape: tuple[int, ...], content: bytes) -> None:
    """The file format of MNIST: a magic number, the dimensions in big-endian order, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content)


def test_digits_are_those_that_scikit_learn_reads() -> None:
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), load(DataSettings(data="digits"))
    images = torch.cat([ours.train.images, ours.test.images])
    labels = torch.cat([ours.train.labels, ours.test.labels])
    stretched = torch.from_numpy(theirs.images * (255 / 16)).round().to(torch.uint8)
    mine = sorted(zip(images.flatten(1).tolist(), labels.tolist(), strict=True))
    assert mine == sorted(zip(stretched.flatten(1).tolist(), theirs.target.tolist(), strict=True))
    assert ours.class_names == tuple(map(str, theirs.target_names))


def test_digits_need_no_network_and_never_change() -> None:
    data, again = load(DataSettings()), load(DataSettings())
    assert data.input_shape == (1, 8, 8)
    assert data.class_names == tuple("0123456789")
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert (int(data.train.images.min()), int(data.train.images.max())) == (0, 255)
    assert torch.equal(data.test.images, again.test.images)
    assert torch.bincount(data.test.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "did you mean digits"),
        ("cifar-10", "did you mean cifar10"),
        ("nothing/here.parquet", "no data set, folder or file called 'nothing/here.parquet'"),
        ("", "names no data set: it takes digits"),
        ("hub:", "names no data set"),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_all_that_work(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        load(DataSettings(data=name))


def test_a_file_of_another_type_is_refused_with_all_that_work(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"neither a folder nor a \.parquet file.*digits, fashion-mnist.*hub:NAME"):
        load(DataSettings(data=str(tmp_path / "images.zip")))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
@pytest.mark.usefixtures("no_network")
def test_without_a_network_one_line_says_what_to_do(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match=rf"^{name} could not be downloaded [^\n]*--data digits$"):
        load(DataSettings(data=name, data_folder=str(tmp_path)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_network")
def test_downloaded_files_are_used_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    write_idx(raw / "train-images-idx3-ubyte", (2, 28, 28), b"\1" * 784 + b"\2" * 784)
    write_idx(raw / "train-labels-idx1-ubyte", (2,), b"\7\x09")
    write_idx(raw / "t10k-images-idx3-ubyte", (1, 28, 28), b"\3" * 784)
    write_idx(raw / "t10k-labels-idx1-ubyte", (1,), b"\4")
    data = load(DataSettings(data="mnist", data_folder=str(tmp_path)))
    assert data.input_shape == (1, 28, 28)
    assert data.classes == 10
    assert data.train.images[:, 0, 5, 5].tolist() == [1, 2]
    assert data.train.labels.tolist() == [7, 9]
    assert data.test.labels.tolist() == [4]


def test_a_torchvision_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DataError, match=r"^cifar10 needs torchvision, which cannot be imported here [^\n]*$"):
        load(DataSettings(data="cifar10", data_folder=str(tmp_path)))


@pytest.mark.usefixtures("no_network")
def test_an_unreachable_hub_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"^hub:someone/something could not be loaded [^\n]*cannot be reached[^\n]*$"):
        load(DataSettings(data="hub:someone/something", data_folder=str(tmp_path)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_network")
def test_cinic10_is_the_hubs_and_its_validation_images_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    with pytest.raises(DataError, match=r"^hub:flwrlabs/cinic10 could not be loaded [^\n]*cannot be reached[^\n]*$"):
        load(DataSettings(data="cinic10", data_folder=str(tmp_path)))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "library"))
    monkeypatch.setitem(HUB_NAMES, "cinic10", str(tmp_path / "cinic10"))
    for part, values in (("train", (1, 2)), ("validation", (3, 4)), ("test", (5, 6))):
        write_parquet(tmp_path / f"cinic10/data/{part}-00000-of-00001.parquet", list(map(picture, values)), [0, 1])
    data = load(DataSettings(data="cinic10", data_folder=str(tmp_path / "kept")))
    assert (data.train.images[:, 0, 0, 0].tolist(), data.test.images[:, 0, 0, 0].tolist()) == ([1, 2], [5, 6])
    # the same files without the hub
    data = load(DataSettings(data=str(tmp_path / "cinic10" / "data"), data_folder=str(tmp_path / "kept")))
    assert (data.train.images[:, 0, 0, 0].tolist(), data.test.images[:, 0, 0, 0].tolist()) == ([1, 2], [5, 6])


def test_cifar100_in_parquet_files_has_its_fine_labels(tmp_path: Path) -> None:
    for part, labels in (("train", range(100)), ("test", range(99, -1, -1))):
        path = tmp_path / "cifar100" / f"{part}-00000-of-00001.parquet"
        write_parquet(
            path,
            [picture(label) for label in labels],
            list(labels),
            image_column="img",
            label_column="fine_label",
            class_names=[f"class {number}" for number in range(100)],
        )
    data = load(DataSettings(data=str(tmp_path / "cifar100"), data_folder=str(tmp_path / "kept")))
    assert (data.classes, data.class_names[99]) == (100, "class 99")
    assert data.test.labels.tolist() == list(range(99, -1, -1))


@pytest.mark.usefixtures("no_network")
def test_hub_data_is_read_through_the_datasets_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    # The library takes a folder where it takes a name.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "library"))
    write_parquet(tmp_path / "pets/train-0.parquet", [picture(1), picture(2)], [0, 1])
    write_parquet(tmp_path / "pets/test-0.parquet", [picture(3)], [1])
    data = load(DataSettings(data=f"hub:{tmp_path / 'pets'}", data_folder=str(tmp_path / "kept")))
    assert data.class_names == ("cat", "dog")
    assert data.train.images[:, 0, 0, 0].tolist() == [1, 2]
    assert data.test.labels.tolist() == [1]
    assert capfd.readouterr() == ("", "")


def test_a_data_set_can_be_cut_down_to_a_stratified_choice() -> None:
    whole = load(DataSettings(data="digits"))
    small = load(DataSettings(data="digits", train_images=200, test_images=100))
    assert (len(small.train), len(small.test)) == (200, 100)
    assert set(small.train.labels.tolist()) == set(range(10))
    again = load(DataSettings(data="digits", train_images=200, test_images=100))
    assert torch.equal(small.train.images, again.train.images)
    assert len(load(DataSettings(data="digits", train_images=10**6)).train) == len(whole.train)


def test_images_of_any_size_are_brought_to_one(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        for position in range(5):
            folder = tmp_path / "pets" / name
            folder.mkdir(parents=True, exist_ok=True)
            size = (20 + 7 * position + number, 31 - 3 * position)
            Image.fromarray(np.full((*size, 3), 50 * position, np.uint8)).save(folder / f"{position}.png")
    settings = DataSettings(data=str(tmp_path / "pets"), data_folder=str(tmp_path / "cache"))
    with pytest.raises(DataError, match="to which --image-size N brings them"):
        load(settings)
    data = load(replace(settings, image_size=12))
    assert data.input_shape == (3, 12, 12)
    assert sorted({int(image.float().mean()) for image in data.train.images}) == [0, 50, 100, 150, 200]
    again = load(replace(settings, image_size=12))
    assert torch.equal(again.train.images, data.train.images)
    assert load(replace(settings, image_size=16)).input_shape == (3, 16, 16)


def test_known_data_sets_are_resized_as_well() -> None:
    data = load(DataSettings(image_size=12))
    assert data.input_shape == (1, 12, 12)
    assert len(data.train) == 1438
