"""Small searches that take a second: random images, the little convolutional network or a slim MobileNetV2."""

import pytest

from common.learning import Feed
from tests.dac.images import bright_corners


@pytest.fixture
def feeds() -> tuple[Feed, Feed]:
    """Forty training and twenty validation images of 8x8 whose class is where they are bright."""
    return bright_corners(40, 0), bright_corners(20, 1)
