#!/usr/bin/env python3
"""How much the order of resize and colour matters on a real clip, in pixels and in detections.

usage: orders.py TENSORS MAKE_REFS.py MODEL.onnx CLIP REFS.json [EVERY]
TENSORS is the built example `tensors`, MAKE_REFS.py the script that made REFS.json: its OpenCV preprocessing and its detector are the ones
compared with. Looks at each EVERYth frame (default 8).  (needs: pip install av onnxruntime opencv-python-headless numpy)
"""
import importlib.util
import json
import subprocess
import sys

import av
import numpy as np
import onnxruntime


def load(path):
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location("make_refs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def agreement(refs, found, expected):
    """(matched at IoU 0.8, boxes over 0.5, IoUs, surplus boxes over 0.55) of one frame."""
    overlap = lambda a, b: float(refs.iou(np.array(a[2:]), np.array([b[2:]]))[0]) if a[0] == b[0] else 0.0
    best = lambda box, others: max((overlap(box, o) for o in others), default=0.0)
    ious = [best(e, found) for e in expected if e[1] > 0.5]
    surplus = sum(best(f, expected) < 0.8 for f in found if f[1] > 0.55)
    return sum(i >= 0.8 for i in ious), len(ious), [i for i in ious if i >= 0.8], surplus


def main(tensors, make_refs, model, clip, refs_json, every=8):
    refs = load(make_refs)
    expected = json.load(open(refs_json))["detections"][:: int(every)]
    i420, opencv = [], []
    for number, frame in enumerate(av.open(clip).decode(video=0)):
        if number % int(every) == 0:
            i420.append(np.ascontiguousarray(frame.to_ndarray(format="yuv420p")).tobytes())
            opencv.append(refs.preprocess(frame.to_ndarray(format="bgr24"))[0])
            width, height = frame.width, frame.height
    scale = min(refs.SIZE / height, refs.SIZE / width)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    ways = {"opencv": opencv}
    for way in ("fused", "separate", "resize-first", "convert-first"):
        command = [tensors, str(width), str(height), str(refs.SIZE), way]
        made = subprocess.run(command, input=b"".join(i420), stdout=subprocess.PIPE, check=True).stdout
        ways[way] = list(np.frombuffer(made, np.float32).reshape(-1, 1, 3, refs.SIZE, refs.SIZE))
    rows = int(height * scale)
    for way, made in ways.items():
        matched = boxes = surplus = 0
        ious = []
        for tensor, truth in zip(made, expected, strict=True):
            found = refs.detect(refs.decode(session.run(None, {name: np.ascontiguousarray(tensor)})[0]), scale)
            m, b, i, s = agreement(refs, found, truth)
            matched, boxes, ious, surplus = matched + m, boxes + b, ious + i, surplus + s
        print(f"{way}: {len(made)} frames, {matched} of {boxes} boxes matched, mean IoU {np.mean(ious):.4f}, surplus {surplus}")
    for a, b in (("fused", "resize-first"), ("resize-first", "convert-first"), ("opencv", "convert-first"), ("opencv", "fused")):
        apart = np.abs(np.array(ways[a]) - np.array(ways[b]))[..., :rows, :]
        print(f"{a} / {b}: mean {apart.mean():.3f}, 99.9 % {np.percentile(apart, 99.9):.2f}, largest {apart.max():.2f} of 255")


if __name__ == "__main__":
    main(*sys.argv[1:])
