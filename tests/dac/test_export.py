"""An exported file computes what PyTorch computes, says what it costs, and is one file."""

from pathlib import Path

import pytest
import torch

from common.architecture import Architecture
from common.errors import ConfigurationError, FedDACError
from common.groups import TrainSettings
from common.layout import State
from common.learning import Feed, evaluate
from common.models.description import BaseNetwork
from common.progress import Silent
from dac import export
from dac.train import train_architecture

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
SLIM = BaseNetwork("mobilenet_v2", (1, 8, 8), 4, width=0.25)
ARCHITECTURES = {
    "mobilenet_v2": Architecture.with_kept(
        SLIM, {"block1.inner": (0, 3, 4, 9, 11, 20, 30, 40), "block9.inner": range(8)}
    ),
    "cnn": Architecture.full(BaseNetwork("cnn", (1, 8, 8), 4)),
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


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", sorted(ARCHITECTURES))
def test_the_file_computes_what_pytorch_computes_for_any_number_of_images(model: str, tmp_path: Path) -> None:
    architecture = ARCHITECTURES[model]
    state, path = weights(architecture), tmp_path / "model.onnx"
    export.export_onnx(architecture, state, path)
    for count in (1, 2, 17):
        assert export.check(path, architecture, state, images(count)) <= export.TOLERANCE


def test_large_logits_are_compared_by_their_digits(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["cnn"]
    state = weights(architecture)
    large = {**state, "classifier.weight": state["classifier.weight"] * 1e5}
    path = tmp_path / "large.onnx"
    export.export_onnx(architecture, large, path)
    assert export.check(path, architecture, large, images(8)) <= export.TOLERANCE


def test_it_is_one_file_with_costs_and_architecture_in_its_metadata(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["mobilenet_v2"]
    path = tmp_path / "model.onnx"
    facts = export.normalisation(torch.tensor([0.5]), torch.tensor([0.25]))
    export.export_onnx(architecture, weights(architecture), path, facts)
    assert list(tmp_path.iterdir()) == [path]
    found, costs = export.read_metadata(path), architecture.costs
    assert (found["macs"], found["params"]) == (str(costs.macs), str(costs.params))
    assert found["peak_memory_bytes"] == str(costs.peak_memory_bytes)
    assert (found["mean"], found["std"]) == ("[0.5]", "[0.25]")
    assert Architecture.from_json(found["architecture"]) == architecture


def test_no_batch_norm_is_left_and_no_weight_is_lost(tmp_path: Path) -> None:
    import onnx

    architecture = ARCHITECTURES["mobilenet_v2"]
    path = tmp_path / "model.onnx"
    export.export_onnx(architecture, weights(architecture), path)
    model = onnx.load(str(path))
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


def test_other_weights_are_noticed(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["cnn"]
    path = tmp_path / "model.onnx"
    export.export_onnx(architecture, architecture.build(0).state_dict(), path)
    with pytest.raises(FedDACError, match="differs from PyTorch by"):
        export.check(path, architecture, architecture.build(1).state_dict(), images(3))


def test_a_trained_network_keeps_its_accuracy_as_onnx_and_as_int8(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    architecture = Architecture.full(SLIM)
    settings = TrainSettings(epochs=20, learning_rate=0.05)
    state = train_architecture(architecture, None, *feeds, settings, seed=0, accelerator=CPU, progress=Silent()).state
    module = architecture.build(0)
    module.load_state_dict(state)
    expected = evaluate(module, feeds[1], CPU).accuracy
    assert expected >= 0.9
    path, small = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    export.export_onnx(architecture, state, path)
    assert export.accuracy(path, feeds[1]) == expected
    calibration = torch.cat([batch.images for batch in feeds[0].evaluation(CPU)])
    export.quantise(path, small, calibration)
    assert export.accuracy(small, feeds[1]) >= expected - 0.1
    assert small.stat().st_size < 0.6 * path.stat().st_size
    assert export.read_metadata(small) == {**export.read_metadata(path), "quantisation": "int8"}


def test_latency_is_measured(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["cnn"]
    path = tmp_path / "model.onnx"
    export.export_onnx(architecture, architecture.build(0).state_dict(), path)
    assert export.latency_ms(path, runs=3) > 0


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    architecture = ARCHITECTURES["cnn"]
    with pytest.raises(ConfigurationError, match=r"pip install 'feddac\[export\]'"):
        export.export_onnx(architecture, architecture.build(0).state_dict(), tmp_path / "model.onnx")
