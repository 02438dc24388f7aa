"""Colour jitter against torchvision's, image by image, with the factors that were drawn."""

import pytest
import torch
from torchvision.transforms import functional as reference

from common.data.augment import Preprocessor
from common.data.jitter import jitter, turned


def images(channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    found = torch.randint(256, (6, channels, 5, 4), generator=generator, dtype=torch.uint8)
    found[0, :, 0] = 0
    found[1, :, 1] = 255
    found[2, :, 2] = 90  # grey: it has no hue
    return found


def factors(seed: int) -> list[list[float]]:
    draws = torch.rand((4, 6, 1, 1, 1), generator=torch.Generator().manual_seed(seed)).flatten(1)
    return torch.cat([0.5 + draws[:3], draws[3:] - 0.5]).T.tolist()


def test_colours_change_as_torchvision_changes_them_one_by_one() -> None:
    found = jitter(images(3), torch.Generator().manual_seed(7))
    for image, result, (brightness, contrast, saturation, hue) in zip(images(3), found, factors(7), strict=True):
        wanted = reference.adjust_brightness(image.float() / 255, brightness)
        wanted = reference.adjust_contrast(wanted, contrast)
        wanted = reference.adjust_hue(reference.adjust_saturation(wanted, saturation), hue)
        torch.testing.assert_close(result / 255, wanted, rtol=0, atol=2e-5)


def test_grey_images_change_in_brightness_and_contrast() -> None:
    found = jitter(images(1), torch.Generator().manual_seed(7))
    for image, result, (brightness, contrast, *_) in zip(images(1), found, factors(7), strict=True):
        wanted = reference.adjust_contrast(reference.adjust_brightness(image.float() / 255, brightness), contrast)
        torch.testing.assert_close(result / 255, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("turn", "wanted"), [(0, (0.8, 0.2, 0.2)), (1 / 3, (0.2, 0.8, 0.2)), (-1 / 3, (0.2, 0.2, 0.8))]
)
def test_red_turned_by_a_third_is_green(turn: float, wanted: tuple[float, ...]) -> None:
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1)
    torch.testing.assert_close(turned(red, torch.full((1, 1, 1, 1), turn)).flatten(), torch.tensor(wanted))


def test_a_batch_is_mirrored_and_coloured_for_training_alone() -> None:
    preprocessor = Preprocessor(torch.zeros(3), torch.ones(3), "flip+jitter")
    first, again = (preprocessor.train_batch(images(3), torch.Generator().manual_seed(s)) for s in (1, 1))
    assert torch.equal(first, again)
    assert bool(((first >= 0) & (first <= 1)).all())
    assert not torch.equal(first, preprocessor.train_batch(images(3), torch.Generator().manual_seed(2)))
    torch.testing.assert_close(preprocessor.eval_batch(images(3)), images(3).float() / 255)
