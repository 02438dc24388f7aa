"""Every network that the tests of descriptions go through, reduced and with blocks removed, as an ONNX file."""

from pathlib import Path

import pytest
import torch

from dac import export
from dac.classifier import Classifier
from dac.model_file import Model, Preparation
from tests.common.models.networks import SHAPES, random_part
from tests.common.models.test_traced import disturbed

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

QUICK = ("cnn", "mlp", "resnet8", "torchvision:squeezenet1_1", "tests.common.models.users:thirty_lines")


@pytest.mark.timeout(1200)  # densenet121 takes torch's exporter minutes
@pytest.mark.parametrize("model", [pytest.param(one, marks=[pytest.mark.slow] * (one not in QUICK)) for one in SHAPES])
def test_an_exported_part_computes_what_pytorch_computes(model: str, tmp_path: Path) -> None:
    architecture = random_part(model, 2, share=0.5)
    state = disturbed(architecture.build(0), 3).state_dict()
    channels, height, width = architecture.input_shape
    preparation = Preparation((0.4,) * channels, (0.3,) * channels, tuple("abcdefghij"))
    classifier = Classifier(Model("part", "search", architecture, preparation, "0", state))
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (3, channels, height, width), dtype=torch.uint8, generator=generator)
    export.export_onnx(classifier, tmp_path / "part.onnx")
    assert export.check(tmp_path / "part.onnx", classifier, images) <= export.TOLERANCE
