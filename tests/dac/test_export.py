"""An exported file takes raw images, computes what PyTorch computes, says what it is, and is one file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.architecture import Architecture
from common.errors import ConfigurationError, FedDACError
from common.groups import TrainSettings
from common.layout import State
from common.learning import Feed, evaluate
from common.models import allow_network
from common.models.description import BaseNetwork
from common.progress import Silent
from common.version import version
from dac import export
from dac.classifier import Classifier
from dac.model_file import Model, Preparation
from dac.train import train_architecture
from tests.dac.images import bright_corners

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
SLIM = BaseNetwork("mobilenet_v2", (1, 8, 8), 4, width=0.25)
ARCHITECTURES = {
    "mobilenet_v2": Architecture.with_kept(
        SLIM, {"block1.inner": (0, 3, 4, 9, 11, 20, 30, 40), "block9.inner": range(8)}
    ),
    "cnn": Architecture.full(BaseNetwork("cnn", (3, 8, 6), 4)),
    "mlp": Architecture.full(BaseNetwork("mlp", (1, 8, 8), 4)),
}


def weights(architecture: Architecture) -> State:
    """Weights whose batch norms do something: statistics and scales away from their initial values."""
    state = architecture.build(0).state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if name.endswith(("norm.bias", "running_mean")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
        elif name.endswith(("running_var", "norm.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return state


def classifier(architecture: Architecture, state: State | None = None) -> Classifier:
    channels = architecture.base.input_shape[0]
    preparation = Preparation((0.4,) * channels, (0.2,) * channels, ("a", "b", "c", "d"))
    given = weights(architecture) if state is None else state
    return Classifier(Model("phone", "federated", architecture, preparation, "0", given))


def images(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("model", sorted(ARCHITECTURES))
def test_the_file_computes_what_pytorch_computes_for_any_number_and_size_of_images(model: str, tmp_path: Path) -> None:
    architecture = ARCHITECTURES[model]
    wanted, path = classifier(architecture), tmp_path / "model.onnx"
    export.export_onnx(wanted, path)
    channels, height, width = architecture.base.input_shape
    for count in (1, 2, 17):
        assert export.check(path, wanted, images(count, channels, height, width)) <= export.TOLERANCE
    for size in [(16, 16), (11, 17), (5, 5), (40, 8), (33, 64)]:
        assert export.check(path, wanted, images(3, channels, *size)) <= export.TOLERANCE


def test_large_logits_are_compared_by_their_digits(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["cnn"]
    state = weights(architecture)
    large = classifier(architecture, {**state, "classifier.weight": state["classifier.weight"] * 1e5})
    path = tmp_path / "large.onnx"
    export.export_onnx(large, path)
    assert export.check(path, large, images(8, 3, 8, 6)) <= export.TOLERANCE


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reduced MobileNetV2 in a folder of its own."""
    path = tmp_path_factory.mktemp("mobile") / "model.onnx"
    export.export_onnx(classifier(ARCHITECTURES["mobilenet_v2"]), path)
    return path


def test_it_is_one_file_that_says_what_it_is(mobile: Path) -> None:
    architecture, path = ARCHITECTURES["mobilenet_v2"], mobile
    assert list(path.parent.iterdir()) == [path]
    found, costs = export.read_metadata(path), architecture.costs
    assert (found["macs"], found["params"]) == (str(costs.macs), str(costs.params))
    assert found["peak_memory_bytes"] == str(costs.peak_memory_bytes)
    assert (found["name"], found["stage"], found["precision"]) == ("phone", "federated", "float32")
    assert json.loads(found["class_names"]) == ["a", "b", "c", "d"]
    assert found["feddac_version"] == version()
    assert Architecture.from_json(found["architecture"]) == architecture


def test_no_batch_norm_is_left_and_no_weight_is_lost(mobile: Path) -> None:
    import onnx

    architecture = ARCHITECTURES["mobilenet_v2"]
    model = onnx.load(str(mobile))
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds
    convolutions = [layer for layer in architecture.description.layers if layer.kind in ("conv", "depthwise")]
    assert kinds.count("Conv") == len(convolutions)


def test_folding_leaves_the_weights_given_alone() -> None:
    architecture = ARCHITECTURES["mobilenet_v2"]
    state = weights(architecture)
    before = {name: tensor.clone() for name, tensor in state.items()}
    folded = export.fold_batch_norms(architecture, state)
    assert not [one for one in folded.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert all(torch.equal(before[name], tensor) for name, tensor in state.items())


def users(name: str) -> Architecture:
    model = f"tests.common.models.users:{name}"
    allow_network(model)
    return Architecture.full(BaseNetwork(model, (1, 8, 8), 4))


def test_norms_of_the_batch_and_behind_layers_of_a_users_own_are_exported_as_they_are(tmp_path: Path) -> None:
    wanted = classifier(users("unfolded"))
    export.export_onnx(wanted, tmp_path / "model.onnx")
    assert export.check(tmp_path / "model.onnx", wanted, images(5, 1, 8, 8)) <= export.TOLERANCE


def test_a_forward_that_torch_cannot_follow_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FedDACError, match=r"users:deciding cannot become an ONNX file.*: Guard[A-Za-z]*: ") as refused:
        export.network_program(classifier(users("deciding")))
    assert "\n" not in str(refused.value)
    assert capsys.readouterr() == ("", "")


def test_other_weights_are_noticed(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["cnn"]
    path = tmp_path / "model.onnx"
    export.export_onnx(classifier(architecture, architecture.build(0).state_dict()), path)
    with pytest.raises(FedDACError, match="differs from PyTorch by"):
        export.check(path, classifier(architecture, architecture.build(1).state_dict()), images(3, 3, 8, 6))


def test_a_trained_network_keeps_its_accuracy_as_onnx_and_as_int8(tmp_path: Path) -> None:
    architecture, train, test = Architecture.full(SLIM), bright_corners(200, 0), bright_corners(100, 1)
    settings = TrainSettings(epochs=10, learning_rate=0.05)
    state = train_architecture(
        architecture, None, train, test, settings, seed=0, accelerator=CPU, progress=Silent()
    ).state
    module = architecture.build_from(state)
    expected = evaluate(module, test, CPU).accuracy
    assert expected >= 0.9
    preparation = Preparation.of(train.preprocessor, "abcd")
    trained = Classifier(Model("m", "trained", architecture, preparation, "0", state))
    path, small = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    network = export.network_program(trained)
    export.export_onnx(trained, path, network)
    assert export.correct(path, test.images) == round(expected * len(test.images))
    export.export_int8(trained, small, train.images.images, network)
    assert export.correct(small, test.images) >= (expected - 0.1) * len(test.images)
    assert small.stat().st_size < 0.6 * path.stat().st_size
    assert export.read_metadata(small) == {**export.read_metadata(path), "precision": "int8"}


def test_onnxruntime_alone_classifies_raw_images(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    import onnxruntime

    architecture = ARCHITECTURES["mlp"]
    wanted, path, raw = classifier(architecture), tmp_path / "model.onnx", feeds[1].images.images
    export.export_onnx(wanted, path)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": raw.numpy()})
    assert logits.shape == (len(raw), 4)
    assert np.array_equal(logits.argmax(1), wanted(raw).argmax(1).numpy())


def test_latency_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export.export_onnx(classifier(ARCHITECTURES["cnn"]), path)
    assert export.latency_ms(path, (3, 8, 6), runs=3) > 0


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'feddac\[export\]'"):
        export.export_onnx(classifier(ARCHITECTURES["cnn"]), tmp_path / "model.onnx")
