#!/usr/bin/env python3
"""Writes the small models that every engine is tested with, and what they give, computed with numpy in float64.

usage: make_tiny.py FOLDER   (needs: pip install onnx numpy)

All compute the same: 16 rows and 24 columns of RGB, averaged over cells of 8x8 pixels, then four distances (linear,
above 0) and two class scores (a sigmoid) per cell: the head `centre` with stride 8.
  tiny.onnx            input `images` f32 [1, 3, 16, 24]
  tiny_u8_nhwc.onnx    input `images` u8 [1, 16, 24, 3]
  tiny_open.onnx       as tiny.onnx with all but the channels left open
  tiny_two.onnx        takes a second input
  tiny_f16.onnx        as tiny.onnx in 16-bit floats, input and output too
  tiny_grid_f16.onnx   as tiny_f16.onnx, of a picture that two GridSample nodes have moved, one after the other
  tiny_int8.onnx       as onnxruntime's quantize_dynamic writes convolutions: of 8-bit integers, with a zero point and padding
  tiny_dfine.onnx      the head `dfine`: takes `images` and `orig_target_sizes`, gives three boxes whatever the picture:
                       classes 1, 0, 1; a quarter to three quarters of the size, all of it, the upper left half; scores
                       0.9, 0.8 and 0.1
  tiny_seg.onnx, tiny_pose.onnx, tiny_obb.onnx
                       the head `yolov8` with masks, key points, an angle, and what Ultralytics writes beside them: one box of
                       class 1, score 0.9, centre 12, 8, size 16x12, whatever the picture. Its mask is left of x = 12; its two
                       key points are 6, 4 (0.75) and 18, 12 (0.25); it is turned by 0.5
  tiny_classify.onnx   the head `classify`: 0.25 and 0.75
  tiny.txt             the output for the samples (10 x + 7 y + 50 c) mod 256 at column x, row y of channel c
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

H, W, CELL, CLASSES = 16, 24, 8, 2
random = np.random.default_rng(20)
WEIGHT = np.round(random.uniform(-0.015, 0.015, (4 + CLASSES, 3)), 4)
BIAS = np.round(np.concatenate([random.uniform(4, 7, 4), random.uniform(-1, 1, CLASSES)]), 3)


def expected():
    c, y, x = np.mgrid[:3, :H, :W]
    samples = ((10 * x + 7 * y + 50 * c) % 256).astype(float)
    means = samples.reshape(3, H // CELL, CELL, W // CELL, CELL).mean((2, 4))
    linear = np.einsum("oc,cyx->oyx", WEIGHT, means) + BIAS[:, None, None]
    return np.concatenate([np.maximum(linear[:4], 0), 1 / (1 + np.exp(-linear[4:]))])


def model(name, dtype, shape, first=(), second=None):
    head = "planes" if first else "images"
    nodes = list(first) + [
        helper.make_node("AveragePool", [head], ["means"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Conv", ["means", "weight", "bias"], ["linear"], kernel_shape=[1, 1]),
        helper.make_node("Split", ["linear", "parts"], ["far", "logits"], axis=1),
        helper.make_node("Relu", ["far"], ["distances"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Concat", ["distances", "scores"], ["joined"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("images", dtype, shape)]
    if second:
        inputs.append(helper.make_tensor_value_info(second, TensorProto.FLOAT, [1]))
        nodes.append(helper.make_node("Mul", ["joined", second], ["detections"]))
    else:
        nodes.append(helper.make_node("Identity", ["joined"], ["detections"]))
    open_ = any(isinstance(d, str) for d in shape)
    out = ["n", 4 + CLASSES, "rows", "columns"] if open_ else [1, 4 + CLASSES, H // CELL, W // CELL]
    graph = helper.make_graph(
        nodes, name, inputs, [helper.make_tensor_value_info("detections", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(WEIGHT.astype(np.float32)[:, :, None, None], "weight"),
         numpy_helper.from_array(BIAS.astype(np.float32), "bias"),
         numpy_helper.from_array(np.array([4, CLASSES], np.int64), "parts")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="millrace")
    onnx.checker.check_model(made)
    return made.SerializeToString()


def f16():
    """tiny.onnx with every number in 16 bits."""
    made = onnx.load_from_string(model("tiny_f16", TensorProto.FLOAT, [1, 3, H, W]))
    for value in [*made.graph.input, *made.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in made.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    onnx.checker.check_model(made)
    return made.SerializeToString()


def grid_f16():
    made = onnx.load_from_string(f16())
    rows, columns = np.mgrid[:H, :W]
    still = np.stack([(2 * columns + 1) / W - 1, (2 * rows + 1) / H - 1], -1)
    moves = [np.array([0.11, -0.07]), np.array([-0.3, 0.2])]
    last, nodes = "images", []
    for n, move in enumerate(moves):
        grid = (still + move)[None].astype(np.float16)
        made.graph.initializer.append(numpy_helper.from_array(grid, f"grid_{n}"))
        nodes.append(helper.make_node("GridSample", [last, f"grid_{n}"], [f"moved_{n}"], mode=["bilinear", "nearest"][n],
                                      padding_mode=["zeros", "border"][n], align_corners=0))
        last = f"moved_{n}"
    rest = list(made.graph.node)
    for node in rest:
        for n, name in enumerate(node.input):
            if name == "images":
                node.input[n] = last
    del made.graph.node[:]
    made.graph.node.extend([*nodes, *rest])
    made.graph.name = "tiny_grid_f16"
    onnx.checker.check_model(made)
    return made.SerializeToString()


def dfine():
    shares = np.array([[[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1], [0, 0, 0.5, 0.5]]], np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["size", "size"], ["sizes"], axis=1),
        helper.make_node("Mul", ["shares", "sizes"], ["boxes"]),
        helper.make_node("Add", ["constant", "zero"], ["scores"]),
        helper.make_node("Identity", ["classes"], ["labels"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "tiny_dfine",
        [info("images", TensorProto.FLOAT, [1, 3, H, W]), info("orig_target_sizes", TensorProto.INT64, [1, 2])],
        [info("labels", TensorProto.INT64, [1, 3]), info("boxes", TensorProto.FLOAT, [1, 3, 4]),
         info("scores", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(shares, "shares"), numpy_helper.from_array(np.array([0], np.float32), "nothing"),
         numpy_helper.from_array(np.array([[0.9, 0.8, 0.1]], np.float32), "constant"),
         numpy_helper.from_array(np.array([[1, 0, 1]], np.int64), "classes")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="millrace")
    onnx.checker.check_model(made)
    return made.SerializeToString()


def constant(name, outputs, said):
    """A model that gives these outputs whatever the picture."""
    zero = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
    ]
    adds = [helper.make_node("Add", [f"{output}_is", "zero"], [output]) for output in outputs]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        zero + adds, name, [info("images", TensorProto.FLOAT, [1, 3, H, W])],
        [info(output, TensorProto.FLOAT, list(value.shape)) for output, value in outputs.items()],
        [numpy_helper.from_array(np.array([0], np.float32), "nothing")]
        + [numpy_helper.from_array(value.astype(np.float32), f"{output}_is") for output, value in outputs.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="millrace")
    helper.set_model_props(made, said)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def int8():
    weight = np.round(np.tile(WEIGHT[:, :, None, None], (1, 1, 3, 3)) * 1000).astype(np.int8)
    nodes = [
        helper.make_node("AveragePool", ["images"], ["means"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("DynamicQuantizeLinear", ["means"], ["bytes", "step", "zero"]),
        helper.make_node("ConvInteger", ["bytes", "weight", "zero"], ["sums"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "step"], ["detections"]),
    ]
    graph = helper.make_graph(
        nodes, "tiny_int8",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, H, W])],
        [helper.make_tensor_value_info("detections", TensorProto.FLOAT, [1, 4 + CLASSES, H // CELL, W // CELL])],
        [numpy_helper.from_array(weight, "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def one_box(extra):
    """The output of a YOLOv8 with one box of its nine, and these numbers of it behind the scores."""
    out = np.zeros((1, 4 + CLASSES + len(extra), 9))
    out[0, :, 3] = [12, 8, 16, 12, 0, 0.9, *extra]
    return out


def tasks(folder):
    said = {"names": "{0: 'dark', 1: 'light'}", "imgsz": f"[{H}, {W}]"}
    coefficients, prototypes = np.eye(32)[5], np.zeros((1, 32, H // 4, W // 4))
    prototypes[0, 5] = [[1, 1, 1, -1, -1, -1]] * (H // 4)
    seg = {"output0": one_box(coefficients), "output1": prototypes}
    (folder / "tiny_seg.onnx").write_bytes(constant("tiny_seg", seg, said | {"task": "segment"}))
    pose = {"output0": one_box([6, 4, 0.75, 18, 12, 0.25])}
    (folder / "tiny_pose.onnx").write_bytes(constant("tiny_pose", pose, said | {"task": "pose", "kpt_shape": "[2, 3]"}))
    (folder / "tiny_obb.onnx").write_bytes(constant("tiny_obb", {"output0": one_box([0.5])}, said | {"task": "obb"}))
    logits = {"output0": one_box([])}
    logits["output0"][0, 4:] = -6
    logits["output0"][0, 5, 3] = 2
    (folder / "tiny_logits.onnx").write_bytes(constant("tiny_logits", logits, said | {"task": "detect"}))
    # YOLOX with decode_in_inference: rows of centre, size, objectness and classes
    rows = np.zeros((1, 9, 5 + CLASSES))
    rows[0, 3] = [12, 8, 16, 12, 0.9, 0, 1]
    (folder / "tiny_yolox.onnx").write_bytes(constant("tiny_yolox", {"output": rows}, {}))
    same = np.tile([4, 2, 20, 14, 0.9, 1], (1, 150, 1))
    (folder / "tiny_alike.onnx").write_bytes(constant("tiny_alike", {"output0": same}, said | {"task": "detect"}))
    (folder / "tiny_classify.onnx").write_bytes(constant("tiny_classify", {"output": np.array([[0.25, 0.75]])}, {}))


def main(folder):
    folder = pathlib.Path(folder)
    f32, u8 = TensorProto.FLOAT, TensorProto.UINT8
    from_u8 = [
        helper.make_node("Cast", ["images"], ["samples"], to=f32),
        helper.make_node("Transpose", ["samples"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    (folder / "tiny.onnx").write_bytes(model("tiny", f32, [1, 3, H, W]))
    (folder / "tiny_u8_nhwc.onnx").write_bytes(model("tiny_u8_nhwc", u8, [1, H, W, 3], from_u8))
    (folder / "tiny_open.onnx").write_bytes(model("tiny_open", f32, ["n", 3, "h", "w"]))
    (folder / "tiny_two.onnx").write_bytes(model("tiny_two", f32, [1, 3, H, W], second="gain"))
    (folder / "tiny_f16.onnx").write_bytes(f16())
    (folder / "tiny_grid_f16.onnx").write_bytes(grid_f16())
    (folder / "tiny_dfine.onnx").write_bytes(dfine())
    (folder / "tiny_int8.onnx").write_bytes(int8())
    tasks(folder)
    (folder / "tiny.txt").write_text("".join(f"{v:.9f}\n" for v in expected().ravel()))


if __name__ == "__main__":
    main(sys.argv[1])
