import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.data.augment import Preprocessor, cut_out, padding, resolve_augment
from common.errors import DataError


def random_images(count: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def preprocessor(channels: int, augment: str) -> Preprocessor:
    return Preprocessor(torch.linspace(0.3, 0.5, channels), torch.linspace(0.2, 0.3, channels), augment)


def one_by_one(images: Tensor, augment: str, generator: torch.Generator) -> Tensor:
    """The same draws, applied to one image and one pixel row at a time; not yet normalised."""
    count, _, height, width = images.shape
    above, beside = max(1, height // 8), max(1, width // 8)
    tops = torch.randint(2 * above + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(2 * beside + 1, (count,), generator=generator).tolist()
    mirrored = torch.rand(count, generator=generator) < 0.5 if augment == "crop+flip" else [False] * count
    result = torch.zeros_like(images)
    for index in range(count):
        for row in range(height):
            for column in range(width):
                y, x = row + tops[index] - above, column + lefts[index] - beside
                if 0 <= y < height and 0 <= x < width:
                    target = width - 1 - column if mirrored[index] else column
                    result[index, :, row, target] = images[index, :, y, x]
    return result


def test_auto_is_crop_and_flip_for_colour_and_none_for_grey() -> None:
    assert resolve_augment("auto", 3) == "crop+flip"
    assert resolve_augment("auto", 1) == "none"
    assert resolve_augment("none", 3) == "none"
    with pytest.raises(DataError, match="unknown augmentation 'flip'"):
        resolve_augment("flip", 3)


def test_padding_is_an_eighth_of_the_side() -> None:
    assert [padding(side) for side in (2, 8, 28, 32)] == [1, 1, 3, 4]


def test_normalisation_by_hand() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    result = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none").eval_batch(images)
    assert result.flatten().tolist() == pytest.approx([-2.0, 2.0])


def test_a_constant_channel_becomes_zero_and_stays_finite() -> None:
    images = torch.full((2, 1, 2, 2), 51, dtype=torch.uint8)
    result = Preprocessor(torch.tensor([0.2]), torch.tensor([0.0]), "none").eval_batch(images)
    assert torch.allclose(result, torch.zeros(2, 1, 2, 2), atol=1e-6)


@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(2, 17),
    width=st.integers(2, 17),
    augment=st.sampled_from(["crop", "crop+flip"]),
    seed=st.integers(0, 2**31),
)
def test_a_batch_equals_the_loop_over_its_images(
    channels: int, height: int, width: int, augment: str, seed: int
) -> None:
    images, one = random_images(4, channels, height, width), preprocessor(channels, augment)
    got = one.train_batch(images, torch.Generator().manual_seed(seed))
    wanted = one.eval_batch(one_by_one(images, augment, torch.Generator().manual_seed(seed)))
    assert torch.equal(got, wanted)


def test_crops_reach_every_offset_and_flips_come_half_of_the_time() -> None:
    images = torch.zeros(2000, 3, 8, 8, dtype=torch.uint8)
    images[:, :, 4, 2] = 255
    result = Preprocessor(torch.zeros(3), torch.ones(3), "crop+flip").train_batch(
        images, torch.Generator().manual_seed(0)
    )
    columns = result[:, 0].amax(1).argmax(1)
    rows = result[:, 0].amax(2).argmax(1)
    assert set(rows.tolist()) == {3, 4, 5}
    assert set(columns.tolist()) == {1, 2, 3, 4, 5, 6}
    assert 0.45 < (columns > 3).float().mean() < 0.55


def test_cutout_blanks_one_square_of_half_the_width_wherever_its_centre_falls() -> None:
    images = torch.ones(400, 3, 8, 8)
    result = cut_out(images, 4, torch.Generator().manual_seed(0))
    assert torch.equal(images, torch.ones_like(images))
    holes = result[:, 0] == 0
    assert torch.equal(result == 0, holes[:, None].expand_as(result))
    rows, columns = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(holes.sum((1, 2)), rows * columns)  # rectangles
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4}  # a centre at an edge leaves half of it outside
    assert holes.any(0).all()


def test_crop_flip_and_cutout_is_the_one_after_the_others() -> None:
    images = random_images(5, 3, 8, 8)
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    flipped = preprocessor(3, "crop+flip").train_batch(images, first)
    assert torch.equal(preprocessor(3, "crop+flip+cutout").train_batch(images, second), cut_out(flipped, 4, first))


def test_grey_images_are_neither_moved_nor_mirrored_by_auto() -> None:
    one, images = preprocessor(1, "auto"), random_images(4, 1, 8, 8)
    assert torch.equal(one.train_batch(images, torch.Generator().manual_seed(0)), one.eval_batch(images))


def test_a_crop_alone_mirrors_nothing() -> None:
    images = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    images[:, :, 4, 1] = 255
    result = Preprocessor(torch.zeros(1), torch.ones(1), "crop").train_batch(images, torch.Generator().manual_seed(0))
    assert set(result[:, 0].amax(1).argmax(1).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("augment", ["none", "crop", "crop+flip", "crop+flip+cutout"])
def test_colour_batches_are_float32_in_channels_last_and_the_input_is_untouched(augment: str) -> None:
    images = random_images(4, 3, 8, 8)
    before = images.clone()
    one = preprocessor(3, augment)
    for result in (one.train_batch(images, torch.Generator().manual_seed(1)), one.eval_batch(images)):
        assert result.dtype == torch.float32
        assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_float_images_of_the_same_values_give_the_same_batch() -> None:
    images, one = random_images(4, 3, 8, 8), preprocessor(3, "crop+flip")
    floats = images.float()
    got = one.train_batch(floats, torch.Generator().manual_seed(1))
    assert torch.equal(got, one.train_batch(images, torch.Generator().manual_seed(1)))
    assert torch.equal(floats, images.float())
    assert torch.equal(one.eval_batch(floats), one.eval_batch(images))
    assert torch.equal(floats, images.float())


def test_no_augmentation_is_evaluation() -> None:
    images, one = random_images(4, 3, 8, 8), preprocessor(3, "none")
    assert torch.equal(one.train_batch(images, torch.Generator().manual_seed(1)), one.eval_batch(images))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_batch_of_the_cpu() -> None:
    images, one = random_images(16, 3, 32, 32), preprocessor(3, "crop+flip")
    on_cpu = one.train_batch(images, torch.Generator().manual_seed(1))
    on_gpu = one.train_batch(images.cuda(), torch.Generator().manual_seed(1))
    assert on_gpu.is_cuda
    assert torch.allclose(on_gpu.cpu(), on_cpu, atol=1e-6)
