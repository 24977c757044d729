#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the demo detector with weights, input and arithmetic of 16 bits; its output stays f32.

    pip install onnx==1.23.1 onnxconverter-common==1.16.0 && python3 to_f16.py model/model.onnx model/model-f16.onnx
"""
import sys

import onnx
from onnx import TensorProto, helper
from onnxconverter_common import float16

half = float16.convert_float_to_float16(onnx.load(sys.argv[1]))
# the head reads f32
output = half.graph.output[0]
for node in half.graph.node:
    node.output[:] = [f"{name}_f16" if name == output.name else name for name in node.output]
half.graph.node.append(helper.make_node("Cast", [f"{output.name}_f16"], [output.name], to=TensorProto.FLOAT))
output.type.tensor_type.elem_type = TensorProto.FLOAT
onnx.checker.check_model(half, full_check=True)
onnx.save(half, sys.argv[2])
