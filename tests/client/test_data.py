"""Which images a device has: its partition of the run's data set, or its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image

from client.data import _hold_out, _own, device_data
from common.config import Config
from common.data.images import Images, mean_std
from common.data.partition import partition
from common.data.sources import load
from common.data.split import split_reference
from common.errors import ConfigurationError, DataError

DEVICES = 4


def config(**changes: Any) -> Config:
    settings = {name.replace("_", "-"): value for name, value in changes.items()}
    whole = {"devices": DEVICES, "partition": "dirichlet:0.5", "device-evaluation": False}
    return Config.from_mapping({**whole, **settings})


def test_the_devices_share_what_the_server_leaves_and_nothing_twice() -> None:
    settings = config().data
    data = load(settings)
    split = split_reference(data, settings, 0)
    parts = partition(data.train.labels[split.devices], settings.partition, DEVICES, 0)
    for number in range(DEVICES):
        expected = data.train.subset(split.devices[parts[number]])
        images = device_data({"partition-id": number}, config()).train
        assert torch.equal(images.images, expected.images)
        assert torch.equal(images.labels, expected.labels)


def test_images_are_normalised_by_the_statistics_of_the_reference_set() -> None:
    data = load(config().data)
    reference = data.train.images[split_reference(data, config().data, 0).reference_train]
    mean, std = mean_std(reference)
    one = device_data({"partition-id": 1}, config())
    expected = (one.train.images[:3].float() / 255 - mean) / std
    torch.testing.assert_close(one.preprocessor.eval_batch(one.train.images[:3]), expected)


def test_a_tenth_is_held_out_only_when_the_run_evaluates_on_the_devices() -> None:
    whole = device_data({"partition-id": 0}, config())
    assert whole.held_out is None
    cut = device_data({"partition-id": 0}, config(device_evaluation=True))
    assert cut.held_out is not None
    assert len(cut.train) + len(cut.held_out) == len(whole.train)
    assert 0.05 * len(whole.train) <= len(cut.held_out) <= 0.15 * len(whole.train)


@pytest.mark.parametrize(("images", "held_out"), [(25, 5), (24, 0)])  # of each of two classes
def test_nothing_is_held_out_where_a_tenth_is_too_few_to_tell_an_accuracy(
    images: int, held_out: int, tmp_path: Path
) -> None:
    node = {"partition-id": 1, "data": str(own_images(tmp_path / "own", images))}
    one = device_data(node, config(device_evaluation=True, data_folder=str(tmp_path / "cache")))
    assert len(one.held_out or ()) == held_out
    assert len(one.train) == 2 * images - held_out


def test_every_class_gives_its_share_of_what_is_held_out_however_many_classes_there_are(tmp_path: Path) -> None:
    """Of 30 classes with 3 images each 9 images are held out, not one of each; over the seeds all classes are."""
    pixels = torch.arange(90, dtype=torch.uint8).view(90, 1, 1, 1).expand(90, 1, 8, 8).contiguous()
    whole = Images(pixels, torch.arange(90) % 30)
    seen: set[int] = set()
    for seed in range(20):
        kept, held_out = _hold_out(whole, seed, 3)
        assert held_out is not None
        assert len(held_out) == 9
        classes = held_out.labels.tolist()
        assert len(set(classes)) == 9
        assert sorted([*kept.images[:, 0, 0, 0].tolist(), *held_out.images[:, 0, 0, 0].tolist()]) == list(range(90))
        seen |= set(held_out.images[:, 0, 0, 0].tolist())
    assert len(seen) > 70  # each is left out of 20 draws with a chance of 0.9^20 = 0.12


def test_the_seed_decides_who_has_what() -> None:
    first, second = (device_data({"partition-id": 0}, config(seed=seed)).train for seed in (0, 1))
    assert len(first) != len(second) or not torch.equal(first.images, second.images)


def test_a_partition_beyond_the_devices_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="between 0 and 3"):
        device_data({"partition-id": 4}, config())


def own_images(folder: Path, count: int, parts: Sequence[str] = ("train", "test")) -> Path:
    for part in parts:
        for label in ("cat", "dog"):
            place = folder / part / label
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), color=9 * number + 9).save(place / f"{number}.png")
    return folder


def test_a_device_with_data_of_its_own_uses_all_of_it(tmp_path: Path) -> None:
    node = {"partition-id": 1, "data": str(own_images(tmp_path / "own", 6))}
    one = device_data(node, config(data_folder=str(tmp_path / "cache")))
    assert len(one.train) == 12
    assert one.preprocessor.eval_batch(one.train.images).mean().abs() < 1e-5


@pytest.mark.parametrize("part", ["", "train"])
@pytest.mark.parametrize("side", [0, 6])
def test_none_is_kept_for_a_test_that_nobody_makes(part: str, side: int, tmp_path: Path) -> None:
    """Each of twelve greys is trained on once, also where the decoded images are kept from before."""
    node = {"partition-id": 1, "data": str(own_images(tmp_path / "own", 6, [part]))}
    for _ in range(2):
        one = device_data(node, config(data_folder=str(tmp_path / "cache"), image_size=side))
        greys = zip(one.train.images[:, 0, 0, 0].tolist(), one.train.labels.tolist(), strict=True)
        assert sorted(greys) == [(9 * number + 9, label) for number in range(6) for label in (0, 1)]
        _own.cache_clear()


@pytest.mark.parametrize("parts", [("train", "test"), ("",)])
def test_how_many_images_of_its_own_data_a_run_uses_says_nothing_about_a_devices(
    parts: tuple[str, ...], tmp_path: Path
) -> None:
    node = {"partition-id": 1, "data": str(own_images(tmp_path / "own", 6, parts))}
    one = device_data(node, config(data_folder=str(tmp_path / "cache"), train_images=4, test_images=2))
    assert len(one.train) == 12


def test_data_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match="no-such-folder"):
        device_data({"data": "no-such-folder"}, config())


@pytest.mark.parametrize("key", ["data", "data-path"])
def test_a_partition_that_flower_saved_is_the_devices_own_data(key: str, tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    pictures = [Image.new("L", (8, 8), 10 * index) for index in range(20)]
    saved = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1] * 10}, features=features)
    saved.save_to_disk(str(tmp_path / "partition_3"))
    node = {key: str(tmp_path / "partition_3"), "data-folder": str(tmp_path / "cache"), "device-name": "camera"}
    own = device_data(node, config())
    assert own.train.images.shape[1:] == (1, 8, 8)
    assert sorted(own.train.images[:, 0, 0, 0].tolist()) == list(range(0, 200, 10))
