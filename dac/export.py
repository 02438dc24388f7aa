"""An architecture and its weights as one ONNX file: batch norms folded in, costs in the metadata, checked, measured.

The file takes normalised images, float32 of shape (N, C, H, W) with any N, and gives logits of shape (N, classes).
`quantise` makes an int8 version by static post-training quantisation: weights per channel, activations per tensor,
their ranges taken from calibration images.
"""

import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from common.architecture import Architecture
from common.errors import ConfigurationError, FedDACError
from common.layout import State
from common.learning import Feed

TOLERANCE = 1e-4  # of a logit between ONNX Runtime and PyTorch, against the largest logit where that is above 1
INPUT, OUTPUT = "images", "logits"


def export_onnx(
    architecture: Architecture, state: State, path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the network to `path`; the metadata are its costs, its architecture as JSON, and `metadata`.

    Raises ConfigurationError if the packages of the extra `export` are missing.
    """
    onnx = _require("onnx")
    _require("onnxscript")
    module = fold_batch_norms(architecture, state)
    example = torch.zeros(2, *architecture.base.input_shape)
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise FedDACError("PyTorch returned no ONNX program for this network")
    model = program.model_proto
    costs = architecture.costs
    facts = {
        "macs": str(costs.macs),
        "params": str(costs.params),
        "peak_memory_bytes": str(costs.peak_memory_bytes),
        "architecture": architecture.to_json(),
        **(metadata or {}),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    _write(path, model.SerializeToString())


def fold_batch_norms(architecture: Architecture, state: State) -> nn.Module:
    """The network in evaluation mode with every batch norm merged into the layer whose output it alone reads."""
    module = architecture.build_from(state).eval()
    for norm in architecture.description.layers:
        if norm.norm_of:
            before, batch_norm = module.get_submodule(norm.norm_of), module.get_submodule(norm.name)
            fuse: Any = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
            module.set_submodule(norm.norm_of, fuse(before, batch_norm))
            module.set_submodule(norm.name, nn.Identity())
    return module


def difference(path: Path, architecture: Architecture, state: State, images: torch.Tensor) -> float:
    """The largest difference of a logit between the file and PyTorch, batch norms unfolded, on normalised images.

    Where the largest logit is above 1 the difference is a share of it: float32 keeps digits, not decimal places.
    """
    module = architecture.build_from(state).eval()
    with torch.no_grad():
        expected = module(images)
    found = torch.from_numpy(_session(path).run([OUTPUT], {INPUT: images.numpy()})[0])
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


def check(path: Path, architecture: Architecture, state: State, images: torch.Tensor) -> float:
    """`difference`; raises FedDACError where it is above TOLERANCE."""
    found = difference(path, architecture, state, images)
    if not found <= TOLERANCE:
        raise FedDACError(f"{path} differs from PyTorch by {found:.2g} in a logit, more than {TOLERANCE:g}")
    return found


def quantise(path: Path, result: Path, calibration: torch.Tensor) -> None:
    """Write the int8 version of the file `path` to `result`; `calibration` are normalised images (N, C, H, W)."""
    quantization = _require("onnxruntime.quantization")

    class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self._batches: Iterator[torch.Tensor] = iter(torch.split(calibration, 50))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    onnx = _require("onnx")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "quantised.onnx")
        _require("onnxruntime.quantization.shape_inference").quant_pre_process(
            str(path), str(prepared), skip_symbolic_shape=True
        )
        quantization.quantize_static(
            str(prepared),
            str(quantised),
            Calibration(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
        )
        model = onnx.load(str(quantised))
    onnx.helper.set_model_props(model, {**read_metadata(path), "quantisation": "int8"})
    _write(result, model.SerializeToString())


def accuracy(path: Path, feed: Feed) -> float:
    """The share of the feed's images that the file classifies correctly."""
    session = _session(path)
    correct = 0
    for images, labels in feed.evaluation(torch.device("cpu")):
        logits = session.run([OUTPUT], {INPUT: np.ascontiguousarray(images.numpy())})[0]
        correct += int((logits.argmax(1) == labels.numpy()).sum())
    return correct / len(feed.images)


def latency_ms(path: Path, runs: int = 50) -> float:
    """Median milliseconds of one image on one thread of this machine."""
    session = _session(path)
    shape = [1, *session.get_inputs()[0].shape[1:]]
    images = {INPUT: np.zeros(shape, np.float32)}
    times = []
    for run in range(runs + 5):
        start = time.perf_counter()
        session.run([OUTPUT], images)
        if run >= 5:  # the first ones still allocate
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    return {entry.key: entry.value for entry in _require("onnx").load(str(path)).metadata_props}


def normalisation(mean: torch.Tensor, std: torch.Tensor) -> dict[str, str]:
    """Metadata that say how images scaled to 0..1 are normalised: subtract `mean`, divide by `std` (both (C,))."""
    return {"mean": json.dumps(mean.tolist()), "std": json.dumps(std.tolist())}


def _session(path: Path) -> Any:
    runtime = _require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _require(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"export needs the package {name}; install it with: pip install 'feddac[export]'"
        ) from None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice, which nobody who exports a finished network can follow."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
