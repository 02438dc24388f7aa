import pytest
import torch

from common.data.images import DataSet, Images, mean_std
from common.errors import DataError


def images_of(*labels: int, side: int = 2) -> Images:
    return Images(torch.zeros(len(labels), 1, side, side, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))


def test_a_subset_holds_the_chosen_images_in_the_chosen_order() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2)
    subset = Images(pixels, torch.tensor([7, 8, 9])).subset(torch.tensor([2, 0]))
    assert len(subset) == 2
    assert subset.labels.tolist() == [9, 7]
    assert subset.images[:, 0, 0, 0].tolist() == [8, 0]


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])),
        (torch.zeros(2, 2, 2, dtype=torch.uint8), torch.tensor([0, 1])),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0.0, 1.0])),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0])),
    ],
)
def test_images_of_another_type_or_length_are_refused(pixels: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(DataError):
        Images(pixels, labels)


def test_a_data_set_knows_its_input_shape_and_classes() -> None:
    data = DataSet("two", images_of(0, 1), images_of(1), ("no", "yes"))
    assert data.input_shape == (1, 2, 2)
    assert data.classes == 2


def test_a_label_without_a_class_is_named() -> None:
    with pytest.raises(DataError, match="label 2 among its test images"):
        DataSet("two", images_of(0, 1), images_of(2), ("no", "yes"))


def test_empty_parts_and_unequal_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="no test images"):
        DataSet("two", images_of(0, 1), images_of(), ("no", "yes"))
    with pytest.raises(DataError, match="must be equal"):
        DataSet("two", images_of(0, 1), images_of(0, side=3), ("no", "yes"))


def test_mean_and_deviation_of_each_channel_by_hand() -> None:
    # Channel 0 holds 0 and 255: mean 1/2, deviation 1/2. Channel 1 holds 51 twice: mean 1/5, deviation 0.
    pixels = torch.tensor([[[[0]], [[51]]], [[[255]], [[51]]]], dtype=torch.uint8)
    mean, std = mean_std(pixels)
    assert mean.tolist() == pytest.approx([0.5, 0.2])
    assert std.tolist() == pytest.approx([0.5, 0.0])
    assert mean.dtype == std.dtype == torch.float32


def test_mean_and_deviation_agree_with_torch_and_do_not_depend_on_order() -> None:
    pixels = torch.randint(0, 256, (50, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean, std = mean_std(pixels)
    scaled = pixels.double() / 255
    assert torch.allclose(mean.double(), scaled.mean((0, 2, 3)), atol=1e-7)
    assert torch.allclose(std.double(), scaled.std((0, 2, 3), correction=0), atol=1e-7)
    again_mean, again_std = mean_std(pixels.flip(0))
    assert torch.equal(mean, again_mean)
    assert torch.equal(std, again_std)
