"""Writes the trained network as ONNX, and reads it back with ONNX's own reference evaluator."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from cnn import CLASSES, SIDE

# The oldest that has these operators in their present form: the more engines read it.
OPSET, IR_VERSION = 13, 7


def to_onnx(weights, channels):
    """The model's bytes: `image` FP32 [N, 1, 8, 8] in, `probabilities` FP32 [N, 10] out."""
    first, second = channels
    half = SIDE // 2
    tensors = {
        "conv1.weight": weights["conv1.weight"].reshape(3, 3, 1, first).transpose(3, 2, 0, 1),
        "conv1.bias": weights["conv1.bias"],
        "conv2.weight": weights["conv2.weight"].reshape(3, 3, first, second).transpose(3, 2, 0, 1),
        "conv2.bias": weights["conv2.bias"],
        # Flatten sees channels first, training had them last.
        "fc.weight": weights["fc.weight"]
        .reshape(half, half, second, CLASSES)
        .transpose(2, 0, 1, 3)
        .reshape(-1, CLASSES),
        "fc.bias": weights["fc.bias"],
    }
    initializers = []
    for name, value in tensors.items():
        single = np.ascontiguousarray(value, dtype=np.float32)
        if not np.array_equal(single, value):
            raise ValueError(f"{name} is not exact in float32")
        initializers.append(numpy_helper.from_array(single, name))
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["conv1"], **conv),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("Conv", ["relu1", "conv2.weight", "conv2.bias"], ["conv2"], **conv),
        helper.make_node("Relu", ["conv2"], ["relu2"]),
        helper.make_node("MaxPool", ["relu2"], ["pool"], **pool),
        helper.make_node("Flatten", ["pool"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
        initializers,
    )
    model = helper.make_model(
        graph,
        producer_name="rimward",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def evaluate(model_bytes, images):
    """Probabilities as ONNX's reference evaluator computes them from the written bytes."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(model_bytes))
    batch = images.transpose(0, 3, 1, 2).astype(np.float32)
    return evaluator.run(["probabilities"], {"image": batch})[0]
