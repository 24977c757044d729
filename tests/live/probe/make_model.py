#!/usr/bin/env python3
"""Writes model.onnx and model-slow.onnx, the probe: it reads the cells that ../pattern.py draws and gives them back as the edges of boxes.

    pip install onnx==1.23.2 numpy && python3 make_model.py

One convolution averages the inner part of each cell over the three channels, a comparison makes it 0 or 1, and a matrix
product gathers six bits to a digit and puts it into an edge of a box. The output is YOLOv8's: [batch, 4 + 7, 7]. The score
of all boxes is 0.5 plus the distance of the cell that is nearest to the threshold from it: 1 for black and white, 0.5 for grey. model-slow.onnx gives the same and takes tens of
milliseconds: convolutions whose result is next to nothing, for tests of what happens when a detector is too slow.
"""

import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from pattern import (  # noqa: E402
    CELL_HEIGHT, CELL_WIDTH, CELLS, COLUMNS, DIGIT_BITS, DIGITS, LEFT, MODEL_HEIGHT, MODEL_WIDTH, ORIGIN, ROWS, WORD_BOXES,
)  # fmt: skip

BOXES = WORD_BOXES + 1

inner = np.zeros((1, 3, CELL_HEIGHT, CELL_WIDTH), np.float32)
inner[:, :, 5:11, 4:8] = 1 / (3 * 6 * 4)

# from cells to edges, then from edges to centre and size; all of it exact in 32 bits
edges = np.zeros((CELLS, 4, BOXES))
for digit in range(DIGITS):
    for bit in range(DIGIT_BITS):
        edges[digit * DIGIT_BITS + bit, digit % 4, digit // 4] = 1 << (DIGIT_BITS - 1 - bit)
origin = np.repeat(np.array(ORIGIN, float)[:, None], BOXES, 1)


def centre_and_size(e):
    x1, y1, x2, y2 = (e[..., n, :] for n in range(4))
    return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], -2)


constants = {
    "inner": inner,
    "half": np.array(0.5, np.float32),
    "starts": np.array([LEFT], np.int64),
    "ends": np.array([LEFT + COLUMNS * CELL_WIDTH], np.int64),
    "axis": np.array([3], np.int64),
    "cells_shape": np.array([0, CELLS], np.int64),
    "boxes_shape": np.array([0, 4, BOXES], np.int64),
    "score_shape": np.array([0, 1, 1], np.int64),
    "gather": centre_and_size(edges).reshape(CELLS, 4 * BOXES).astype(np.float32),
    "origin": centre_and_size(origin).reshape(1, 4 * BOXES).astype(np.float32),
    "classes": np.eye(BOXES, dtype=np.float32)[None],
}
nodes = [
    helper.make_node("Slice", ["images", "starts", "ends", "axis"], ["grid"]),
    helper.make_node("Conv", ["grid", "inner"], ["means"], strides=[CELL_HEIGHT, CELL_WIDTH], kernel_shape=[CELL_HEIGHT, CELL_WIDTH]),
    helper.make_node("Reshape", ["means", "cells_shape"], ["cells"]),
    helper.make_node("Greater", ["cells", "half"], ["white"]),
    helper.make_node("Cast", ["white"], ["bits"], to=TensorProto.FLOAT),
    helper.make_node("MatMul", ["bits", "gather"], ["digits"]),
    helper.make_node("Add", ["digits", "origin"], ["flat"]),
    helper.make_node("Reshape", ["flat", "boxes_shape"], ["boxes"]),
    helper.make_node("Sub", ["cells", "half"], ["distances"]),
    helper.make_node("Abs", ["distances"], ["contrasts"]),
    helper.make_node("ReduceMin", ["contrasts"], ["contrast"], axes=[1], keepdims=1),
    helper.make_node("Add", ["contrast", "half"], ["score"]),
    helper.make_node("Reshape", ["score", "score_shape"], ["scores"]),
    helper.make_node("Mul", ["classes", "scores"], ["by_class"]),
    helper.make_node("Concat", ["boxes", "by_class"], ["output0"], axis=1),
]  # fmt: skip


def burden(layers, channels, seed=1):
    """Work that costs time and changes nothing: its sum, times 1e-12, is added to the score."""
    random, made, weights, last = np.random.default_rng(seed), [], {}, "grid"
    for n in range(layers):
        inputs = 3 if n == 0 else channels
        weights[f"w{n}"] = (random.standard_normal((channels, inputs, 3, 3)) / np.sqrt(9 * inputs)).astype(np.float32)
        made.append(helper.make_node("Conv", [last, f"w{n}"], [f"c{n}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        made.append(helper.make_node("Relu", [f"c{n}"], [f"r{n}"]))
        last = f"r{n}"
    weights["next_to_nothing"] = np.array(1e-12, np.float32)
    made.append(helper.make_node("ReduceMean", [last], ["mean"], axes=[1, 2, 3], keepdims=0))
    made.append(helper.make_node("Reshape", ["mean", "mean_shape"], ["means_of_all"]))
    weights["mean_shape"] = np.array([0, 1], np.int64)
    made.append(helper.make_node("Mul", ["means_of_all", "next_to_nothing"], ["added"]))
    made.append(helper.make_node("Add", ["contrast", "added"], ["burdened"]))
    return made, weights


def write(name, nodes, constants):
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, MODEL_HEIGHT, MODEL_WIDTH])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 4 + BOXES, BOXES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, os.path.join(HERE, name))


write("model.onnx", nodes, constants)
work, weights = burden(layers=5, channels=16)
at = next(n for n, made in enumerate(nodes) if list(made.output) == ["score"])
nodes[at] = helper.make_node("Add", ["burdened", "half"], ["score"])
write("model-slow.onnx", [*nodes[:at], *work, *nodes[at:]], {**constants, **weights})
