"""Folders of images of one's own, at the sizes people have, train with no word about strides and leave models."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import feddac
from feddac.cli.main import run

CLASSES = ("cats", "dogs", "owls")
SMALL = ["--warmup-epochs", "1", "--epochs-per-step", "0", "--fine-tune-epochs", "1", "--rounds", "1"]
PHOTOGRAPHS = ((48, 36), (50, 50), (64, 48), (60, 80), (72, 54), (90, 60), (100, 75), (96, 128), (160, 120), (320, 240))


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """A folder as `--data` takes it: classes that differ in brightness, images of these (width, height) in turn."""

    def make(sizes: tuple[tuple[int, int], ...], suffix: str, mode: str = "RGB") -> Path:
        random = np.random.default_rng(0)
        for part, count in (("train", 24), ("test", 5)):
            for number, label in enumerate(CLASSES):
                place = tmp_path / "images" / part / label
                place.mkdir(parents=True)
                for one in range(count):
                    width, height = sizes[one % len(sizes)]
                    pixels = random.integers(80 * number, 80 * number + 90, (height, width, 3), dtype=np.uint8)
                    Image.fromarray(pixels).convert(mode).save(place / f"{one}{suffix}")
        return tmp_path / "images"

    return make


def simulate(images: Path, out: Path, *flags: str) -> feddac.Run:
    """A short run on the default fleet, a device of each kind; no strides are given."""
    code = run(
        ["simulate", "--data", str(images), "--engine", "inline", "--devices", "5", *SMALL, *flags, "--out", str(out)]
    )
    assert code == 0
    return feddac.read_run(out)


def assert_models_take(found: feddac.Run, images: list[torch.Tensor]) -> None:
    """Every cohort's model, loaded and as ONNX, has the same answer for raw images of shape (C, H, W)."""
    onnxruntime = pytest.importorskip("onnxruntime")
    exported = {one.model.name: one.float32.path for one in feddac.export(found.folder)}
    assert set(exported) == {cohort.name for cohort in found.cohorts}
    for name, path in exported.items():
        model, session = found.load(name), onnxruntime.InferenceSession(path)
        assert model.class_names == CLASSES
        for image in images:
            answers = model(image[None])
            assert answers.shape == (1, len(CLASSES))
            [alone] = session.run(None, {session.get_inputs()[0].name: image[None].numpy()})
            np.testing.assert_allclose(alone, answers.detach().numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.slow  # six to thirty seconds each
@pytest.mark.parametrize(("side", "mode"), [(28, "L"), (32, "RGB"), (64, "RGB"), (224, "RGB")])
def test_images_of_one_size(
    side: int, mode: str, folder_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = simulate(folder_of(((side, side),), ".png", mode), tmp_path / "run")
    assert found.settings["strides"] != "auto"
    assert_models_take(found, [torch.full((len(mode), side, side), 100, dtype=torch.uint8)])


@pytest.mark.slow  # half a minute
def test_photographs_of_ten_sizes(
    folder_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = simulate(folder_of(PHOTOGRAPHS, ".jpg"), tmp_path / "run", "--image-size", "48")
    assert_models_take(found, [torch.full((3, h, w), 100, dtype=torch.uint8) for w, h in PHOTOGRAPHS[::4]])
