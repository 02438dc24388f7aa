"""`--data package.module:function`: what users return, and that no stranger can have a function called."""

from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from common.data.function import ALLOWED, allow, is_function
from common.data.sources import load
from common.errors import DataError
from common.groups import DataSettings

MODULE = """
import numpy as np
from PIL import Image

def pixels(value, size=(6, 6), colour=False):
    return np.full((*size, 3) if colour else size, value, np.uint8)

class Torchvision:
    classes = ["cat", "dog"]
    def __init__(self, count):
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        return Image.fromarray(pixels(10 * index)), index % 2

def pair():
    return Torchvision(8), Torchvision(2)

def mapping():
    return {"train": [(pixels(index), index % 3) for index in range(30)]}

def channels_first():
    return [(pixels(9, colour=True).transpose(2, 0, 1), i % 2) for i in range(8)], [(pixels(9, colour=True), 1)]

def hugging_face():
    import datasets
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"img": [Image.fromarray(pixels(index)) for index in range(10)], "label": [0, 1] * 5}
    return datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)})

def sizes():
    return [(pixels(1, (6 + index, 8)), index % 2) for index in range(8)], [(pixels(1), 0)]

def floats():
    return [(np.zeros((6, 6)), 0)], None

def broken():
    raise ValueError("no such disk")

def nonsense():
    return 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ALLOWED, "")
    return name


@pytest.mark.parametrize(
    ("function", "shape", "counts", "class_names"),
    [
        ("pair", (1, 6, 6), (8, 2), ("cat", "dog")),
        ("mapping", (1, 6, 6), (24, 6), ("0", "1", "2")),
        ("channels_first", (3, 6, 6), (8, 1), ("0", "1")),
        ("hugging_face", (1, 6, 6), (8, 2), ("a", "b")),
    ],
)
def test_what_users_return(
    function: str, shape: tuple[int, ...], counts: tuple[int, int], class_names: tuple[str, ...], module: str
) -> None:
    allow(f"{module}:{function}")
    data = load(DataSettings(data=f"{module}:{function}"))
    assert (data.input_shape, (len(data.train), len(data.test)), data.class_names) == (shape, counts, class_names)


def test_pixels_and_labels_are_those_returned(module: str) -> None:
    allow(f"{module}:pair")
    data = load(DataSettings(data=f"{module}:pair"))
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert data.train.labels.tolist() == [0, 1] * 4


def test_images_of_different_sizes_are_brought_to_one(module: str) -> None:
    allow(f"{module}:sizes")
    with pytest.raises(DataError, match="training item 1 differs in size"):
        load(DataSettings(data=f"{module}:sizes"))
    assert load(DataSettings(data=f"{module}:sizes", image_size=4)).input_shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("floats", "item 0 is float64"),
        ("broken", "failed: ValueError: no such disk"),
        ("nonsense", "returned int: it must be"),
        ("missing", "failed: AttributeError"),
    ],
)
def test_mistakes_are_one_sentence(function: str, message: str, module: str) -> None:
    allow(f"{module}:{function}")
    with pytest.raises(DataError, match=message):
        load(DataSettings(data=f"{module}:{function}"))


def test_a_function_that_nobody_here_allowed_is_not_even_imported(module: str, tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("open('sprung', 'w').close()\ndef get():\n    pass\n")
    allow(f"{module}:pair")
    with pytest.raises(DataError, match=f"set {ALLOWED}=trap:get here"):
        load(DataSettings(data="trap:get"))
    assert not (tmp_path / "sprung").exists()


def test_names_of_functions_are_told_from_paths_and_the_hub() -> None:
    assert is_function("package.module:function")
    assert not any(map(is_function, ("digits", "./folder", "C:\\images", "hub", "a:b:c", "package.:f", "x:")))


@pytest.mark.parametrize("several", [False, True])
def test_a_folder_that_hugging_face_saved(several: bool, tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    pictures = [Image.fromarray(np.full((6, 6), 20 * index, np.uint8)) for index in range(10)]
    whole = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1] * 5}, features=features)
    part = whole.select(range(2, 10))
    saved = datasets.DatasetDict({"train": part, "test": whole.select(range(2))}) if several else part
    saved.save_to_disk(str(tmp_path / "partition_0"))
    data = load(DataSettings(data=str(tmp_path / "partition_0"), data_folder=str(tmp_path / "cache")))
    assert data.class_names == ("a", "b")
    assert (len(data.train), len(data.test)) == ((8, 2) if several else (6, 2))
    if several:
        assert data.train.images[:, 0, 0, 0].tolist() == list(range(40, 200, 20))


def test_a_damaged_saved_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="could not be loaded as a saved data set"):
        load(DataSettings(data=str(tmp_path)))
