#!/usr/bin/env python3
"""Writes heads.json: for each head a model.yml, raw outputs and the boxes that belong to them, computed with numpy in
float64 from the published formulas. The oracle of tests/heads.rs; needs only numpy.

usage: make_heads.py heads.json
"""
import json
import sys

import numpy as np

W, H, SCORE, IOU = 64, 48, 0.4, 0.5
LABELS = ["ash", "birch", "cedar"]
C = len(LABELS)
# the source is 130x90, fitted to 64 wide from the top left corner plus an offset, so that some boxes get clipped
SCALE, OFFSET, SOURCE = (2.03125, 1.875), (-1.5, 2.25), (130, 90)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def grid(strides, offset):
    """Left top of each cell plus `offset` cells, in model pixels, and the cell's stride; level by level, by rows."""
    points, sizes = [], []
    for s in strides:
        rows, columns = -(-H // s), -(-W // s)
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        points.append((np.stack([x.ravel(), y.ravel()], 1) + offset) * s)
        sizes.append(np.full(rows * columns, s))
    return np.concatenate(points).astype(float), np.concatenate(sizes).astype(float)


def corners(centre_size):
    half = centre_size[:, 2:] / 2
    return np.concatenate([centre_size[:, :2] - half, centre_size[:, :2] + half], 1)


def overlap(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def to_source(x, y):
    """Points of the model's input in the source, clipped to it."""
    return np.clip(np.asarray(x) * SCALE[0] + OFFSET[0], 0, SOURCE[0]), np.clip(np.asarray(y) * SCALE[1] + OFFSET[1], 0, SOURCE[1])


def answer(boxes, scores, suppress=True, top=None, overlap=overlap, clip=True):
    """boxes (n, 4) in model pixels, scores (n, C), one class per box; or (n * C) pairs with `top`. `index` is a box's number;
    without `clip` the numbers are the answer."""
    if top is None:
        classes, best = scores.argmax(1), scores.max(1)
    else:
        boxes = boxes.repeat(C, 0)
        classes, best = np.tile(np.arange(C), len(scores)), scores.ravel()
    assert abs(best - SCORE).min() > 1e-3, "a score too near the threshold to judge by"
    left = [i for i in np.argsort(-best, kind="stable") if best[i] >= SCORE][:top]
    kept = []
    for i in left:
        near = [overlap(boxes[i], boxes[k]) for k in kept if classes[k] == classes[i]] if suppress else []
        assert all(abs(o - IOU) > 1e-3 for o in near), "an overlap too near the limit to judge by"
        if all(o <= IOU for o in near):
            kept.append(i)
    assert len(left) > len(kept) or not suppress, "nothing to suppress, so the test would say nothing of it"
    if not clip:
        return kept
    out = []
    for i in kept:
        (x1, x2), (y1, y2) = to_source(boxes[i][[0, 2]], boxes[i][[1, 3]])
        if x2 > x1 and y2 > y1:
            out.append({"x1": x1, "y1": y1, "x2": x2, "y2": y2, "score": best[i], "class_id": int(classes[i]), "index": i})
    assert len(out) >= 4, f"only {len(out)} boxes"
    return out


def logit(p):
    return np.log(p / (1 - p))


class Made:
    def __init__(self, seed):
        self.random = np.random.default_rng(seed)

    def scores(self, n):
        """Mostly low, some high; distinct."""
        p = self.random.uniform(0.01, 0.3, (n, C))
        hot = self.random.choice(n, min(n, 12), replace=False)
        p[hot, self.random.integers(0, C, len(hot))] = self.random.uniform(0.45, 0.98, len(hot))
        return p

    def boxes(self, n):
        """Centre and size; pairs nearly on top of each other, so that some get suppressed."""
        b = self.random.uniform([4, 4, 6, 6], [W - 4, H - 4, 30, 30], (n, 4))
        b[1::2] = b[: len(b[1::2]) * 2 : 2] + self.random.uniform(-1, 1, b[1::2].shape)
        return b


def rounded(x):
    """What the file holds is what is computed with."""
    return np.round(x, 3)


def centre(m):
    points, _ = grid([8], 0.5)
    scores, sides = rounded(m.scores(len(points))), rounded(m.random.uniform(2, 14, (len(points), 4)))
    scores[10:16, 1] = [0.91, 0.82, 0.73, 0.64, 0.55, 0.46]
    sides[10:16] = rounded(m.random.uniform(18, 22, (6, 4)))
    boxes = np.concatenate([points - sides[:, :2], points + sides[:, 2:]], 1)
    raw = np.concatenate([sides, scores], 1).T.reshape(1, 4 + C, H // 8, W // 8)
    return "{kind: centre, output: out, stride_px: 8}", {"out": raw}, answer(boxes, scores)


def yolox(m, logits):
    points, sizes = grid([8, 16, 32], 0)
    n = len(points)
    scores, obj = m.scores(n), m.random.uniform(0.9, 0.99, (n, 1))
    raw = rounded(np.concatenate([m.random.uniform(-1, 2, (n, 2)), m.random.uniform(0.2, 1.2, (n, 2)),
                                  logit(obj) if logits else obj, logit(scores) if logits else scores], 1))
    probability = sigmoid(raw[:, 4:]) if logits else raw[:, 4:]
    middle = raw[:, :2] * sizes[:, None] + points
    boxes = corners(np.concatenate([middle, np.exp(raw[:, 2:4]) * sizes[:, None]], 1))
    kind = "{kind: yolox, output: out, scores: %s}" % ("logits" if logits else "probabilities")
    return kind, {"out": raw[None]}, answer(boxes, probability[:, :1] * probability[:, 1:])


# cells of 8, 16 and 32 px, one box each
CELLS = len(grid([8, 16, 32], 0)[0])


def yolov5(m, logits=False):
    boxes, obj, scores = rounded(m.boxes(CELLS)), m.random.uniform(0.9, 0.99, (CELLS, 1)), m.scores(CELLS)
    raw = rounded(np.concatenate([logit(obj), logit(scores)], 1) if logits else np.concatenate([obj, scores], 1))
    probability = sigmoid(raw) if logits else raw
    kind = "{kind: yolov5, output: out%s}" % (", scores: logits" if logits else "")
    return kind, {"out": np.concatenate([boxes, raw], 1)[None]}, answer(corners(boxes), probability[:, :1] * probability[:, 1:])


def yolov8(m, logits=False, extra=0):
    boxes, scores = rounded(m.boxes(CELLS)), m.scores(CELLS)
    raw = rounded(logit(scores) if logits else scores)
    unread = rounded(m.random.uniform(-9, 9, (CELLS, extra)))
    keys = (", scores: logits" if logits else "") + (", extra: %d" % extra if extra else "")
    found = answer(corners(boxes), sigmoid(raw) if logits else raw)
    return "{kind: yolov8, output: out%s}" % keys, {"out": np.concatenate([boxes, raw, unread], 1).T[None]}, found


# prototypes of masks: M of them, one value for each 4 model pixels
M, PROTO = 4, (H // 4, W // 4)
# where the source is looked at: the middle of so many pixels
LOOK = 4


def prototypes(m):
    """Smooth: a few waves each."""
    y, x = np.meshgrid(np.linspace(0, 1, PROTO[0]), np.linspace(0, 1, PROTO[1]), indexing="ij")
    waves = [np.sin(m.random.uniform(3, 8) * x + m.random.uniform(3, 8) * y + m.random.uniform(0, 6)) for _ in range(M)]
    return rounded(np.stack(waves))


def mask(protos, coefficients, box):
    """What is seen of a mask: rows of 0 and 1, and ? near its outline, where how values are interpolated decides."""
    whole = np.tensordot(coefficients, protos, 1)
    xs, ys = np.arange(LOOK / 2, SOURCE[0], LOOK), np.arange(LOOK / 2, SOURCE[1], LOOK)
    mx, my = (xs - OFFSET[0]) / SCALE[0], (ys - OFFSET[1]) / SCALE[1]
    rows = []
    for y in my:
        row = ""
        for x in mx:
            gx, gy = np.clip(x / 4 - 0.5, 0, PROTO[1] - 1), np.clip(y / 4 - 0.5, 0, PROTO[0] - 1)
            left, top = min(int(gx), PROTO[1] - 2), min(int(gy), PROTO[0] - 2)
            near = whole[top:top + 2, left:left + 2]
            fx, fy = gx - left, gy - top
            value = np.array([1 - fy, fy]) @ near @ np.array([1 - fx, fx])
            # how far inside the box and the picture
            depth = min(x - max(box[0], 0), min(box[2], W) - x, y - max(box[1], 0), min(box[3], H) - y)
            near_outline = near.min() < 0 < near.max() and abs(value) < 0.3 * abs(near).max()
            row += "0" if depth < -0.6 else "?" if depth < 0.6 or near_outline else "1" if value > 0 else "0"
        rows.append(row)
    return rows


def masked(m, kind):
    """Boxes and their coefficients in the layout of `kind`, and what their masks look like."""
    protos = prototypes(m)
    if kind == "end2end":
        boxes, best, classes, found = chosen(m)
        coefficients = rounded(m.random.uniform(-1, 1, (len(boxes), M)))
        raw = np.concatenate([boxes, best[:, None], classes[:, None], coefficients], 1)
        edges = boxes
    else:
        boxes, scores, coefficients = rounded(m.boxes(CELLS)), rounded(m.scores(CELLS)), rounded(m.random.uniform(-1, 1, (CELLS, M)))
        edges, found = corners(boxes), answer(corners(boxes), scores)
        raw = np.concatenate([boxes, scores, coefficients], 1).T
        if kind == "yolov5":
            raw = np.concatenate([boxes, np.ones((CELLS, 1)), scores, coefficients], 1)
    for b in found:
        b["mask"] = mask(protos, coefficients[b["index"]], edges[b["index"]])
    seen = "".join("".join(row) for b in found for row in b["mask"])
    assert seen.count("1") > 50 and seen.count("?") < 0.1 * len(seen), "too little to see"
    head = "{kind: %s, output: out, masks: protos, coefficients: %d}" % (kind, M)
    return head, {"out": raw[None], "protos": protos[None]}, found


def posed(m, kind):
    points, numbers = (5, 3) if kind == "yolov8" else (4, 2)
    if kind == "end2end":
        boxes, best, classes, found = chosen(m)
        front = np.concatenate([boxes, best[:, None], classes[:, None]], 1)
    else:
        boxes, scores = rounded(m.boxes(CELLS)), rounded(m.scores(CELLS))
        found, front = answer(corners(boxes), scores), np.concatenate([boxes, scores], 1)
    joints = rounded(np.concatenate([m.random.uniform(-4, [W + 4, H + 4], (len(boxes), points, 2)),
                                     m.random.uniform(0, 1, (len(boxes), points, numbers - 2))], 2))
    for b in found:
        of = joints[b["index"]]
        b["keypoints"] = [[x, y, *rest] for x, y, rest in zip(*to_source(of[:, 0], of[:, 1]), of[:, 2:].tolist())]
    raw = np.concatenate([front, joints.reshape(len(boxes), -1)], 1)
    keys = "keypoints: %d" % points + ("" if numbers == 3 else ", keypoint_numbers: 2")
    return "{kind: %s, output: out, %s}" % (kind, keys), {"out": (raw.T if kind == "yolov8" else raw)[None]}, found


def turn(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def prob_iou(a, b):
    """Of turned boxes [x, y, w, h, angle]: 1 - Hellinger distance of their normal distributions, by matrices."""
    def covariance(box):
        return turn(box[4]) @ np.diag(box[2:4] ** 2 / 12) @ turn(box[4]).T
    s, t, d = covariance(a), covariance(b), a[:2] - b[:2]
    mean = (s + t) / 2
    far = d @ np.linalg.inv(mean) @ d / 8 + np.log(np.linalg.det(mean) / np.sqrt(np.linalg.det(s) * np.linalg.det(t))) / 2
    return 1 - np.sqrt(1 - np.exp(-far))


def oriented(m, kind):
    n = CELLS if kind == "yolov8" else 30
    angle = m.random.uniform(-0.8, 2.3, n)
    angle[1::2] = angle[: len(angle[1::2]) * 2 : 2] + m.random.uniform(-0.1, 0.1, len(angle[1::2]))
    turned, scores = rounded(np.concatenate([m.boxes(n), angle[:, None]], 1)), rounded(m.scores(n))
    found = []
    for i in answer(turned, scores, suppress=kind == "yolov8", overlap=prob_iou, clip=False):
        b = {"score": scores[i].max(), "class_id": int(scores[i].argmax())}
        x, y, w, h, a = turned[i]
        scale = np.diag(SCALE)
        along, across = scale @ turn(a) @ [1, 0], scale @ turn(a) @ [0, 1]
        middle = np.array([x, y]) * SCALE + OFFSET
        width, height, angle = w * np.linalg.norm(along), h * np.linalg.norm(across), np.arctan2(along[1], along[0])
        edge = [middle + turn(angle) @ [i * width / 2, j * height / 2] for i in (-1, 1) for j in (-1, 1)]
        edge = np.clip(edge, 0, SOURCE)
        b.update(zip(("x1", "y1", "x2", "y2"), [*edge.min(0), *edge.max(0)]))
        b["oriented"] = [*middle, width, height, angle]
        found.append(b)
    if kind == "yolov8":
        raw = np.concatenate([turned[:, :4], scores, turned[:, 4:]], 1).T
    else:
        raw = np.concatenate([turned[:, :4], scores.max(1)[:, None], scores.argmax(1)[:, None], turned[:, 4:]], 1)
    return "{kind: %s, output: out, oriented: true}" % kind, {"out": raw[None]}, found


def classify(m, logits):
    raw = rounded(m.random.uniform(-1, 3, C)) if logits else rounded(m.random.dirichlet([1, 1, 1]))
    scores = np.exp(raw) / np.exp(raw).sum() if logits else raw
    assert abs(scores - SCORE).min() > 1e-3 and (scores >= SCORE).sum() == 2, "two are to be found"
    found = [{"class_id": int(i), "score": scores[i]} for i in np.argsort(-scores) if scores[i] >= SCORE]
    return "{kind: classify, output: out%s}" % (", scores: logits" if logits else ""), {"out": raw[None]}, found


def chosen(m, n=30):
    """Corners, best scores and classes as a network with suppression inside gives them; unused rows at the end."""
    boxes, scores = rounded(corners(m.boxes(n))), rounded(m.scores(n))
    order = np.argsort(-scores.max(1), kind="stable")
    boxes, scores = boxes[order], scores[order]
    found = answer(boxes, scores, suppress=False)
    return np.concatenate([boxes, np.zeros((6, 4))]), np.append(scores.max(1), [0.0] * 6), np.append(scores.argmax(1), [0] * 6), found


def end2end(m, extra=0):
    boxes, best, classes, found = chosen(m)
    unread = rounded(m.random.uniform(-9, 9, (len(boxes), extra)))
    raw = np.concatenate([boxes, best[:, None], classes[:, None], unread], 1)
    return "{kind: end2end, output: out%s}" % (", extra: %d" % extra if extra else ""), {"out": raw[None]}, found


def dfine(m):
    boxes, best, classes, found = chosen(m)
    best[-3:] = -1  # as some graphs mark rows that hold nothing
    return "{kind: dfine, labels: what}", {"what": classes[None], "boxes": boxes[None], "scores": best[None]}, found


def yolonas(m):
    boxes, scores = rounded(corners(m.boxes(CELLS))), rounded(m.scores(CELLS))
    return "{kind: yolonas, boxes: where, scores: what}", {"what": scores[None], "where": boxes[None]}, answer(boxes, scores)


def nanodet(m, strides, offset, bins, extra, apart=False):
    points, sizes = grid(strides, offset)
    n = len(points)
    scores, sides = rounded(m.scores(n)), rounded(m.random.uniform(-3, 3, (n, 4, bins)))
    weights = np.exp(sides) / np.exp(sides).sum(2, keepdims=True)
    far = (weights * np.arange(bins)).sum(2) * sizes[:, None]
    boxes = np.concatenate([points - far[:, :2], points + far[:, 2:]], 1)
    sides = sides.reshape(n, -1)
    if not apart:
        kind = "{kind: nanodet, output: out, reg_max: %d%s}" % (bins - 1, extra)
        return kind, {"out": np.concatenate([scores, sides], 1)[None]}, answer(boxes, scores)
    levels = {"%s%d" % (name, s): part[None, sizes == s] for s in strides for name, part in (("c", scores), ("d", sides))}
    kind = "{kind: nanodet, classes: [%s], distances: [%s], reg_max: %d}" % (
        ", ".join("c%d" % s for s in strides), ", ".join("d%d" % s for s in strides), bins - 1)
    return kind, levels, answer(boxes, scores)


def rtdetr(m):
    boxes = rounded(m.boxes(20) / [W, H, W, H])
    logits = rounded(logit(np.clip(m.scores(20) + 0.2, 0, 0.99)))
    kind = "{kind: rtdetr, boxes: where, logits: what, top_k: 9}"
    found = answer(corners(boxes * [W, H, W, H]), sigmoid(logits), suppress=False, top=9)
    return kind, {"what": logits[None], "where": boxes[None]}, found


def rtdetr_joined(m):
    boxes, scores = rounded(m.boxes(20) / [W, H, W, H]), rounded(m.scores(20))
    found = answer(corners(boxes * [W, H, W, H]), scores, suppress=False, top=300)
    return "{kind: rtdetr, output: out}", {"out": np.concatenate([boxes, scores], 1)[None]}, found


def short(v):
    return [short(part) for part in v] if isinstance(v, list) else v if isinstance(v, str) else round(float(v), 6) if not isinstance(v, int) else v


def main(path):
    cases = []
    for seed, (name, make) in enumerate([
        ("centre", centre),
        ("yolox", lambda m: yolox(m, False)),
        ("yolox without a sigmoid", lambda m: yolox(m, True)),
        ("yolov5", yolov5),
        ("yolov8", yolov8),
        ("nanodet-plus", lambda m: nanodet(m, [8, 16, 32, 64], 0, 5, "")),
        ("nanodet", lambda m: nanodet(m, [8, 16, 32], 0.5, 4, ", strides_px: [8, 16, 32]")),
        ("rtdetr", rtdetr),
        ("yolov5 without a sigmoid", lambda m: yolov5(m, True)),
        ("yolov8 without a sigmoid", lambda m: yolov8(m, True)),
        ("yolov8 with mask coefficients", lambda m: yolov8(m, extra=5)),
        ("end2end", end2end),
        ("end2end with mask coefficients", lambda m: end2end(m, 5)),
        ("dfine", dfine),
        ("yolonas", yolonas),
        ("nanodet with six outputs", lambda m: nanodet(m, [8, 16, 32], 0.5, 8, "", True)),
        ("rtdetr in one output", rtdetr_joined),
        ("yolov8 with masks", lambda m: masked(m, "yolov8")),
        ("yolov5 with masks", lambda m: masked(m, "yolov5")),
        ("end2end with masks", lambda m: masked(m, "end2end")),
        ("yolov8 with key points", lambda m: posed(m, "yolov8")),
        ("end2end with key points", lambda m: posed(m, "end2end")),
        ("yolov8 oriented", lambda m: oriented(m, "yolov8")),
        ("end2end oriented", lambda m: oriented(m, "end2end")),
        ("classify", lambda m: classify(m, False)),
        ("classify without a softmax", lambda m: classify(m, True)),
    ]):
        for attempt in range(1000):
            try:
                head, outputs, boxes = make(Made(1000 * seed + attempt))
                break
            except AssertionError as why:
                reason = why
        else:
            raise SystemExit(f"{name}: {reason}")
        cases.append({
            "name": name, "head": head,
            "outputs": [{"name": k, "shape": v.shape, "data": v.ravel().tolist()} for k, v in outputs.items()],
            "boxes": [{k: short(v) for k, v in box.items() if k != "index"} for box in boxes],
        })
    input_ = {"width_px": W, "height_px": H}
    mapping = {"scale": SCALE, "offset": OFFSET, "source": SOURCE}
    whole = {"input": input_, "labels": LABELS, "score": SCORE, "iou": IOU, "mapping": mapping, "look": LOOK, "cases": cases}
    with open(path, "w") as out:
        json.dump(whole, out, separators=(",", ":"))
        out.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
