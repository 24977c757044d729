#!/usr/bin/env python3
"""What one would write by hand: OpenCV decodes, onnxruntime detects, one process. The other arm of throughput.py.

usage: python_arm.py {demo|yolox} MODEL.onnx CLIP OUT.jsonl
"""
import json
import sys

import cv2
import numpy as np
import onnxruntime

KINDS = {
    # model width, height; RGB; scale of a sample; anchored in the centre; least score; IoU of the suppression
    "demo": dict(w=320, h=192, rgb=True, scale=1 / 255, centre=True, score=0.35, iou=0.5),
    "yolox": dict(w=416, h=416, rgb=False, scale=1.0, centre=False, score=0.3, iou=0.45),
}


def letterbox(bgr, kind):
    """The picture in the model's size: (1x3xHxW float32, scale, left, top)."""
    height, width = bgr.shape[:2]
    scale = min(kind["w"] / width, kind["h"] / height)
    w, h = int(width * scale), int(height * scale)
    left, top = ((kind["w"] - w) // 2, (kind["h"] - h) // 2) if kind["centre"] else (0, 0)
    canvas = np.full((kind["h"], kind["w"], 3), 114, np.uint8)
    canvas[top : top + h, left : left + w] = cv2.resize(bgr, (w, h), interpolation=cv2.INTER_LINEAR)
    if kind["rgb"]:
        canvas = canvas[..., ::-1]
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32) * kind["scale"], scale, left, top


def centre_head(raw):
    """[1, 4 + C, H, W] of distances and probabilities, stride 8 -> boxes, scores, classes."""
    distances, probabilities = raw[0, :4], raw[0, 4:]
    rows, columns = np.indices(probabilities.shape[1:])
    x, y = (columns + 0.5) * 8, (rows + 0.5) * 8
    boxes = np.stack([x - distances[0], y - distances[1], x + distances[2], y + distances[3]], -1).reshape(-1, 4)
    flat = probabilities.reshape(len(probabilities), -1)
    return boxes, flat.max(0), flat.argmax(0)


def yolox_head(raw):
    """[1, N, 5 + C], strides 8, 16 and 32 of a 416x416 input -> boxes, scores, classes."""
    cells = [(x, y, stride) for stride in (8, 16, 32) for y in range(416 // stride) for x in range(416 // stride)]
    cells = np.array(cells, np.float32)
    middle = (raw[0, :, :2] + cells[:, :2]) * cells[:, 2:]
    half = np.exp(raw[0, :, 2:4]) * cells[:, 2:] / 2
    scores = raw[0, :, 4:5] * raw[0, :, 5:]
    return np.concatenate([middle - half, middle + half], 1), scores.max(1), scores.argmax(1)


def suppress(boxes, scores, classes, least):
    """Greedy suppression within each class; indices of what stays, by falling score."""
    order, kept = np.argsort(-scores), []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        inter = np.clip(high - low, 0, None).prod(1)
        overlap = inter / (area[best] + area[order] - inter)
        order = order[(overlap <= least) | (classes[order] != classes[best])]
    return kept


def main(which, model, clip, out):
    kind, head = KINDS[which], {"demo": centre_head, "yolox": yolox_head}[which]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    video, frames = cv2.VideoCapture(clip), 0
    with open(out, "w") as lines:
        while True:
            ok, bgr = video.read()
            if not ok:
                break
            tensor, scale, left, top = letterbox(bgr, kind)
            boxes, scores, classes = head(session.run(None, {name: tensor})[0])
            likely = scores > kind["score"]
            boxes, scores, classes = boxes[likely], scores[likely], classes[likely]
            boxes = (boxes - [left, top, left, top]) / scale
            found = [
                dict(zip(("x1", "y1", "x2", "y2"), boxes[i].tolist()), score=float(scores[i]), class_id=int(classes[i]))
                for i in suppress(boxes, scores, classes, kind["iou"])
            ]
            lines.write(json.dumps({"schema": 1, "source": "cam", "seq": frames, "boxes": found}) + "\n")
            frames += 1
    print(frames, "frames")


if __name__ == "__main__":
    main(*sys.argv[1:5])
