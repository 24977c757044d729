#!/usr/bin/env python3
"""Opens the batch axis of YOLOX-nano, whose published file is for one frame at a time.

usage: tests/gpu/yolox_open.py --data FOLDER --out FOLDER

FOLDER of --data holds models/yolox_nano.onnx and models/coco_classes.txt. --out gets model.onnx, which computes the same for each
frame of a batch, and model.yml. Needs onnx.
"""
import argparse
import pathlib
import shutil
import sys

import onnx
from onnx import numpy_helper

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lib.suite import YOLOX  # noqa: E402


def opened(model):
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    del model.graph.value_info[:]
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            # a zero keeps the axis as it is
            shape = numpy_helper.to_array(tensor).copy()
            shape[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    onnx.checker.check_model(model)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    models = args.data / "models"
    args.out.mkdir(parents=True, exist_ok=True)
    onnx.save(opened(onnx.load(models / "yolox_nano.onnx")), args.out / "model.onnx")
    shutil.copy(models / "coco_classes.txt", args.out)
    text = YOLOX.format(".").replace("./yolox_nano.onnx", "model.onnx").replace("./coco_classes", "coco_classes")
    (args.out / "model.yml").write_text(text)


if __name__ == "__main__":
    main()
