#!/usr/bin/env python3
"""Writes an RT-DETR with the backbone ResNet-50 and random weights, for measurements of speed: its boxes mean nothing.

usage: tests/gpu/rtdetr_model.py --out FOLDER [--f16] [--size N]

FOLDER gets model.onnx, with an open batch axis, and model.yml. Needs torch, transformers and onnx; takes under a minute on a GPU.
"""
import argparse
import pathlib
import warnings

import torch
from transformers import RTDetrConfig, RTDetrForObjectDetection

DESCRIPTION = """schema: 1
name: rtdetr-r50-random
file: model.onnx
input: {{name: images, width_px: {size}, height_px: {size}, layout: nchw, dtype: {dtype}, colour: rgb, scale: [0.00392157, 0.00392157, 0.00392157]}}
fit: stretch
head: {{kind: rtdetr, boxes: boxes, logits: logits}}
labels: [{labels}]
"""


class Outputs(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        found = self.model(pixel_values=images)
        # what heads read
        return found.logits.float(), found.pred_boxes.float()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--f16", action="store_true", help="16-bit floats, input too")
    parser.add_argument("--size", type=int, default=640)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if args.f16 else torch.float32
    model = Outputs(RTDetrForObjectDetection(RTDetrConfig(num_labels=80))).eval().to(device, dtype)
    images = torch.rand(2, 3, args.size, args.size, device=device, dtype=dtype)
    args.out.mkdir(parents=True, exist_ok=True)
    axes = {name: {0: "n"} for name in ("images", "logits", "boxes")}
    with torch.no_grad():
        torch.onnx.export(
            model, (images,), args.out / "model.onnx", input_names=["images"], output_names=["logits", "boxes"],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )
    labels = ", ".join(f"class {n}" for n in range(80))
    text = DESCRIPTION.format(size=args.size, dtype="f16" if args.f16 else "f32", labels=labels)
    (args.out / "model.yml").write_text(text)


if __name__ == "__main__":
    main()
