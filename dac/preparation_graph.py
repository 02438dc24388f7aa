"""The preparation of images as ONNX nodes before a network: resize to cover, crop at the centre, normalise.

The same steps as `dac.classifier.Classifier.prepare`, written down node by node, because the exporter of PyTorch would
fix the sizes of the images that it was shown.
"""

from typing import Any

import numpy as np

from common.errors import FedDACError
from dac.classifier import Classifier

IMAGES = "images"
_OLDEST_OPSET = 18  # the first whose Resize knows antialiasing


def prepend_preparation(network: Any, classifier: Classifier, network_input: str) -> Any:
    """A model that takes raw images called IMAGES and feeds them, prepared, into `network_input` of `network`.

    Raises FedDACError for a network in an older form of ONNX than the nodes need.
    """
    import onnx

    opset = next(one.version for one in network.opset_import if one.domain in ("", "ai.onnx"))
    if opset < _OLDEST_OPSET:
        raise FedDACError(f"the network was exported with ONNX opset {opset}; preparing images needs {_OLDEST_OPSET}")
    model = onnx.ModelProto()
    model.CopyFrom(network)
    graph = model.graph
    channels = classifier.architecture.base.input_shape[0]
    raw = onnx.helper.make_tensor_value_info(IMAGES, onnx.TensorProto.UINT8, ["batch", channels, "height", "width"])
    nodes = _nodes(classifier, network_input)
    constants = _constants(classifier)
    before = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *before])
    del graph.input[:]
    graph.input.append(raw)
    graph.initializer.extend(onnx.numpy_helper.from_array(array, _name(key)) for key, array in constants.items())
    return model


def _constants(classifier: Classifier) -> dict[str, Any]:
    height, width = classifier.image_size
    return {
        "wanted": np.array([height, width], np.float32),
        "wanted_whole": np.array([height, width], np.int64),
        "half": np.array(0.5, np.float32),
        "two": np.array([2], np.int64),
        "axes": np.array([2, 3], np.int64),
        "scale": classifier.scale.numpy(),
        "shift": classifier.shift.numpy(),
    }


def _nodes(classifier: Classifier, output: str) -> list[Any]:
    """Each node with its inputs and outputs; names without a dot of the network's, so that none can meet."""
    import onnx

    def node(kind: str, inputs: str, result: str, **attributes: Any) -> Any:
        names = [one if one in (IMAGES, "") else _name(one) for one in inputs.split(",")]
        target = output if result == output else _name(result)
        return onnx.helper.make_node(kind, names, [target], name=_name(f"make_{result}"), **attributes)

    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    return [
        node("Cast", IMAGES, "pixels", to=float32),
        node("Shape", IMAGES, "outer", start=0, end=2),
        node("Shape", IMAGES, "sides", start=2, end=4),
        node("Cast", "sides", "sides_as_float", to=float32),
        # the smallest factor that makes both sides large enough
        node("Div", "wanted,sides_as_float", "factors"),
        node("ReduceMax", "factors", "factor", keepdims=1),
        node("Mul", "sides_as_float,factor", "exact"),
        node("Add", "exact,half", "raised"),
        node("Floor", "raised", "rounded"),
        node("Cast", "rounded", "rounded_whole", to=int64),
        node("Max", "rounded_whole,wanted_whole", "covering"),
        node("Concat", "outer,covering", "resized_shape", axis=0),
        node(
            "Resize",
            "pixels,,,resized_shape",
            "resized",
            mode="linear",
            antialias=1,
            exclude_outside=1,  # at the edges PyTorch averages over the pixels that there are
            coordinate_transformation_mode="half_pixel",
        ),
        node("Sub", "covering,wanted_whole", "surplus"),
        node("Div", "surplus,two", "first"),
        node("Add", "first,wanted_whole", "end"),
        node("Slice", "resized,first,end,axes", "cropped"),
        node("Mul", "cropped,scale", "scaled"),
        node("Add", "scaled,shift", output),
    ]


def _name(key: str) -> str:
    return f"preparation/{key}"
