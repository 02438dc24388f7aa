"""A trained network as one ONNX file: raw images in, logits out, batch norms folded in, checked and measured.

The file takes uint8 images of shape (N, C, H, W) with any N, H and W, resizes, crops and normalises them as
`dac.classifier` does, and gives logits of shape (N, classes). Its metadata say what the classes are called, what the
network costs, and which weights these are. The int8 version comes from static post-training quantisation: weights per
channel, activations per tensor, their ranges taken from calibration images; the preparation stays in float.
"""

import json
import logging
import platform
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from common.architecture import Architecture
from common.atomic import write_atomically
from common.data.images import Images
from common.errors import ConfigurationError, FedDACError
from common.layout import State
from common.models.usable import first_line
from common.version import version
from dac.classifier import Classifier
from dac.preparation_graph import IMAGES, prepend_preparation

TOLERANCE = 1e-4  # of a logit between ONNX Runtime and PyTorch, against the largest logit where that is above 1
LOGITS, PREPARED = "logits", "prepared"
BATCH = 256
_FOLDED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def network_program(classifier: Classifier) -> Any:
    """The network alone, without the preparation of its images, as an ONNX model that the functions below complete.

    Raises ConfigurationError if the packages of the extra `export` are missing, and FedDACError, naming the network, if
    torch cannot follow its forward.
    """
    require("onnx")
    require("onnxscript")
    module = fold_batch_norms(classifier.architecture, classifier.network.state_dict())
    example = torch.zeros(2, *classifier.architecture.base.input_shape)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[PREPARED],
                output_names=[LOGITS],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        model, cause = classifier.architecture.base.model, error.__cause__
        reason = first_line(cause if isinstance(cause, Exception) else error)
        raise FedDACError(f"{model} cannot become an ONNX file: torch.onnx does not follow it: {reason}") from None
    if program is None:
        raise FedDACError("PyTorch returned no ONNX program for this network")
    return program.model_proto


def export_onnx(classifier: Classifier, path: Path, network: Any | None = None) -> None:
    """Write the whole classifier to `path`; `network` is its `network_program`, if that is there already."""
    _complete(classifier, network_program(classifier) if network is None else network, path, "float32")


def export_int8(classifier: Classifier, path: Path, calibration: torch.Tensor, network: Any | None = None) -> None:
    """Write the classifier with int8 weights and activations; `calibration` are raw images (N, C, H, W).

    `network` is the classifier's `network_program`, if that is there already.
    """
    quantization = require("onnxruntime.quantization")
    onnx = require("onnx")
    with torch.no_grad():
        batches = [classifier.prepare(part).numpy() for part in torch.split(calibration, 50)]

    class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {PREPARED: batch}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, prepared, quantised = (str(Path(folder, f"{name}.onnx")) for name in ("plain", "prepared", "quantised"))
        onnx.save(network_program(classifier) if network is None else network, plain)
        shape_inference = require("onnxruntime.quantization.shape_inference")
        shape_inference.quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantised,
            Calibration(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
            # 7 bits of weight: with 8, sums of pairs overflow on x86 processors without VNNI, and answers are wrong.
            reduce_range=True,
        )
        model = onnx.load(quantised)
    _complete(classifier, model, path, "int8")


def fold_batch_norms(architecture: Architecture, state: State) -> nn.Module:
    """The network in evaluation mode with every batch norm merged into the layer whose output it alone reads.

    Norms that keep no running statistics, and those behind layers that are not torch's own, stay: what these compute
    is not known.
    """
    module = architecture.build_from(state).eval()
    for norm in architecture.description.layers:
        if norm.norm_of and norm.block not in architecture.removed:
            before, batch_norm = module.get_submodule(norm.norm_of), module.get_submodule(norm.name)
            if type(before) not in _FOLDED or batch_norm.running_mean is None:
                continue
            fuse: Any = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
            module.set_submodule(norm.norm_of, fuse(before, batch_norm))
            module.set_submodule(norm.name, nn.Identity())
    return module


def difference(path: Path, classifier: Classifier, images: torch.Tensor) -> float:
    """The largest difference of a logit between the file and PyTorch, batch norms unfolded, on raw uint8 images.

    Where the largest logit is above 1 the difference is a share of it: float32 keeps digits, not decimal places.
    """
    with torch.no_grad():
        expected = classifier(images)
    found = torch.from_numpy(_session(path).run([LOGITS], {IMAGES: images.numpy()})[0])
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


def check(path: Path, classifier: Classifier, images: torch.Tensor) -> float:
    """`difference`; raises FedDACError where it is above TOLERANCE."""
    found = difference(path, classifier, images)
    if not found <= TOLERANCE:
        raise FedDACError(f"{path.name} differs from PyTorch by {found:.2g} in a logit, more than {TOLERANCE:g}")
    return found


def correct(path: Path, images: Images) -> int:
    """How many of the raw images the file classifies correctly."""
    session, right = _session(path), 0
    for index in torch.split(torch.arange(len(images)), BATCH):
        logits = session.run([LOGITS], {IMAGES: images.images[index].numpy()})[0]
        right += int((logits.argmax(1) == images.labels[index].numpy()).sum())
    return right


def latency_ms(path: Path, size: tuple[int, int, int], runs: int = 50) -> float:
    """Median milliseconds of one raw image of `size` (C, H, W) on one thread of this machine."""
    session = _session(path)
    images = {IMAGES: np.zeros((1, *size), np.uint8)}
    times = []
    for run in range(runs + 5):
        start = time.perf_counter()
        session.run([LOGITS], images)
        if run >= 5:  # the first ones still allocate
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    return {entry.key: entry.value for entry in require("onnx").load(str(path)).metadata_props}


def processor() -> str:
    """What latencies were measured on, as far as this machine says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def require(name: str) -> Any:
    """The module `name`; raises ConfigurationError that names the extra to install where it is missing."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"export needs the package {name}; install it with: pip install 'feddac[export]'"
        ) from None


def _complete(classifier: Classifier, network: Any, path: Path, precision: str) -> None:
    """Put the preparation before the network, add the metadata, check, and write."""
    onnx = require("onnx")
    model = prepend_preparation(network, classifier, PREPARED)
    architecture = classifier.architecture
    costs = architecture.costs
    facts = {
        "name": classifier.name,
        "stage": classifier.stage,
        "input": "raw images, uint8, (N, C, H, W); resizing, cropping and normalisation are inside",
        "precision": precision,
        "class_names": json.dumps(classifier.class_names),
        "image_size": json.dumps(classifier.image_size),
        "macs": str(costs.macs),
        "params": str(costs.params),
        "peak_memory_bytes": str(costs.peak_memory_bytes),
        "architecture": architecture.to_json(),
        "feddac_version": version(),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString())


def _session(path: Path) -> Any:
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice and prints, which nobody who exports a finished network can follow."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(_ForOthers(sys.stderr)):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _ForOthers:
    """A stream on which this thread says nothing; others, such as one that shows progress, go on."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._silent = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """As of every text stream."""
        return len(text) if threading.get_ident() == self._silent else int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
