#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo detector in plain Python: PyAV decodes, NumPy prepares, ONNX Runtime infers, NumPy decodes the head.

It shares no code with the Rust nodes, so its output serves as their oracle.

    python3 infer_reference.py clip.mp4 --model model --out detections.jsonl
    python3 evaluate.py truth.jsonl detections.jsonl --min-map 0.9
"""
import argparse
import json
import os

import numpy as np

import scenes

INPUT_W, INPUT_H, STRIDE, PAD = 320, 192, 8, 114.0


def letterbox(width, height):
    """Scale and offsets from source to model pixels: the picture keeps its shape and stands in the middle."""
    scale = min(INPUT_W / width, INPUT_H / height)
    w, h = round(width * scale), round(height * scale)
    return scale, w, h, (INPUT_W - w) // 2, (INPUT_H - h) // 2


def resize(image, w, h):
    """Bilinear with two taps a direction, centres aligned (x + 0.5 maps to x + 0.5), edges repeated."""
    def taps(n_out, n_in):
        at = (np.arange(n_out, dtype=np.float64) + 0.5) * n_in / n_out - 0.5
        lo = np.floor(at)
        return np.clip(lo, 0, n_in - 1).astype(int), np.clip(lo + 1, 0, n_in - 1).astype(int), (at - lo).astype(np.float32)
    x0, x1, fx = taps(w, image.shape[1])
    y0, y1, fy = taps(h, image.shape[0])
    fx, fy = fx[None, :, None], fy[:, None, None]
    top = image[y0][:, x0] * (1 - fx) + image[y0][:, x1] * fx
    low = image[y1][:, x0] * (1 - fx) + image[y1][:, x1] * fx
    return top * (1 - fy) + low * fy


def prepare(rgb):
    """float32 RGB (h, w, 3) of 0..255 to the model's (3, 192, 320)."""
    scale, w, h, left, top = letterbox(rgb.shape[1], rgb.shape[0])
    canvas = np.full((INPUT_H, INPUT_W, 3), PAD, np.float32)
    canvas[top:top + h, left:left + w] = resize(rgb, w, h)
    return np.ascontiguousarray((canvas / 255.0).transpose(2, 0, 1))


def nms(boxes, scores, limit):
    order, keep = np.argsort(-scores, kind="stable"), []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while order.size:
        i, rest = order[0], order[1:]
        keep.append(i)
        w = np.minimum(boxes[i, 2], boxes[rest, 2]) - np.maximum(boxes[i, 0], boxes[rest, 0])
        h = np.minimum(boxes[i, 3], boxes[rest, 3]) - np.maximum(boxes[i, 1], boxes[rest, 1])
        both = np.maximum(w, 0) * np.maximum(h, 0)
        order = rest[both <= limit * (area[i] + area[rest] - both)]
    return keep


def decode(head, threshold, limit):
    """One head (4 + C, 24, 40) to (boxes in model pixels, scores, classes): every cell above the threshold, then NMS in each class."""
    best, cls = head[4:].max(0), head[4:].argmax(0)
    ys, xs = np.nonzero(best > threshold)
    cx, cy = (xs + 0.5) * STRIDE, (ys + 0.5) * STRIDE
    l, t, r, b = head[:4, ys, xs]
    boxes, scores, classes = np.stack([cx - l, cy - t, cx + r, cy + b], 1), best[ys, xs], cls[ys, xs]
    keep = []
    for c in np.unique(classes):
        of = np.nonzero(classes == c)[0]
        keep += [of[i] for i in nms(boxes[of], scores[of], limit)]
    keep = sorted(keep, key=lambda i: -scores[i])
    return boxes[keep], scores[keep], classes[keep]


def to_source(boxes, width, height):
    scale, _, _, left, top = letterbox(width, height)
    out = (boxes - [left, top, left, top]) / scale
    return np.clip(out, 0, [width, height, width, height])


def main():
    import av
    import onnxruntime as ort
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("clip")
    ap.add_argument("--model", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "model"))
    ap.add_argument("--out", default="detections.jsonl")
    ap.add_argument("--threshold", type=float, default=0.35)
    ap.add_argument("--iou", type=float, default=0.5)
    ap.add_argument("--threads", type=int, default=1)
    args = ap.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = ort.InferenceSession(os.path.join(args.model, "model.onnx"), options, providers=["CPUExecutionProvider"])
    with av.open(args.clip) as clip, open(args.out, "w") as out:
        for seq, frame in enumerate(clip.decode(video=0)):
            x = prepare(scenes.to_rgb(*scenes.planes_of(frame)))
            head = session.run(["detections"], {"images": x[None]})[0][0]
            boxes, scores, classes = decode(head, args.threshold, args.iou)
            boxes = to_source(boxes, frame.width, frame.height)
            pts = int(frame.pts * frame.time_base * 1_000_000_000)
            rows = [{**{k: round(float(v), 3) for k, v in zip(("x1", "y1", "x2", "y2"), b)}, "score": round(float(s), 5), "class_id": int(c),
                     "label": scenes.LABELS[c]} for b, s, c in zip(boxes, scores, classes)]
            out.write(json.dumps({"schema": 1, "source": "demo", "seq": seq, "pts_ns": pts, "boxes": rows}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
