#!/usr/bin/env python3
"""Makes a detector that finds what another does and computes far more for it, for steps that need a slow detector.

usage: tests/gpu/heavy_model.py MODEL.yml --out FOLDER [--layers N] [--channels N]

The model's input goes through N convolutions, whose result is added to it times a millionth of a millionth: the detections
stay, the work does not. Needs the packages onnx and numpy.
"""
import argparse
import pathlib
import re

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--channels", type=int, default=128)
    args = parser.parse_args()
    text = args.model.read_text()
    file = re.search(r"^file: *(\S+)", text, re.M)[1]
    model = onnx.load(args.model.parent / file)
    graph = model.graph
    source = graph.input[0].name
    random = numpy.random.default_rng(1)
    nodes, last = [], source
    sizes = [3, *[args.channels] * args.layers, 3]
    for n, (before, after) in enumerate(zip(sizes, sizes[1:])):
        name = f"heavy_weights_{before}_to_{after}"
        # layers of one size share their weights: the file stays small
        if name not in (known.name for known in graph.initializer):
            # values keep their size from layer to layer
            weights = random.normal(0, (9 * before) ** -0.5, (after, before, 3, 3)).astype(numpy.float32)
            graph.initializer.append(numpy_helper.from_array(weights, name))
        nodes.append(helper.make_node("Conv", [last, name], [f"heavy_{n}"], name=f"heavy_{n}", pads=[1, 1, 1, 1]))
        last = f"heavy_{n}"
    graph.initializer.append(helper.make_tensor("heavy_share", TensorProto.FLOAT, [], [1e-12]))
    nodes.append(helper.make_node("Mul", [last, "heavy_share"], ["heavy_little"]))
    nodes.append(helper.make_node("Add", [source, "heavy_little"], ["heavy_input"]))
    for node in graph.node:
        for n, name in enumerate(node.input):
            if name == source:
                node.input[n] = "heavy_input"
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    onnx.checker.check_model(model)
    args.out.mkdir(parents=True, exist_ok=True)
    onnx.save(model, args.out / "model.onnx")
    text = re.sub(r"^name: *\S+", "name: millrace-heavy", text, flags=re.M)
    (args.out / "model.yml").write_text(re.sub(r"^file: *\S+", "file: model.onnx", text, flags=re.M))


if __name__ == "__main__":
    main()
