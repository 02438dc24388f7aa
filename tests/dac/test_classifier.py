"""A classifier prepares raw images as training did, and images of any size as Pillow would."""

import pytest
import torch

from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.errors import ArchitectureError, DataError
from common.models.description import BaseNetwork
from dac.classifier import Classifier
from dac.model_file import Model, Preparation

ARCHITECTURE = Architecture.full(BaseNetwork("cnn", (3, 8, 8), 4))
PREPROCESSOR = Preprocessor(torch.tensor([0.1, 0.4, 0.7]), torch.tensor([0.2, 0.3, 0.4]), "none")
PREPARATION = Preparation.of(PREPROCESSOR, ("a", "b", "c", "d"))


def classifier(preparation: Preparation | None = PREPARATION) -> Classifier:
    return Classifier(Model("m", "trained", ARCHITECTURE, preparation, "0", ARCHITECTURE.build(0).state_dict()))


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_images_of_the_right_size_are_prepared_to_the_bit_as_in_training() -> None:
    images = noise(5, 3, 8, 8)
    model = classifier()
    assert torch.equal(model.prepare(images), PREPROCESSOR.eval_batch(images))
    assert torch.equal(model(images), model.network(PREPROCESSOR.eval_batch(images)))


def test_floats_from_0_to_255_count_as_well_and_are_not_written_to() -> None:
    images = noise(2, 3, 8, 8)
    floats = images.float()
    model = classifier()
    assert torch.equal(model(floats), model(images))
    assert torch.equal(floats, images.float())


def test_it_knows_its_classes_and_is_ready_to_use() -> None:
    model = classifier()
    assert not model.training
    assert (model.name, model.stage, model.image_size) == ("m", "trained", (8, 8))
    images = noise(6, 3, 20, 9)
    assert model.classify(images) == [model.class_names[index] for index in model(images).argmax(1)]


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8), (2, 8, 8, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"takes images of shape \(N, 3, H, W\)"):
        classifier()(noise(*shape))


def test_without_a_preparation_there_is_no_classifier() -> None:
    with pytest.raises(ArchitectureError, match="does not say how images are prepared"):
        classifier(None)
