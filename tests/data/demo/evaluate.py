#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mAP@0.5 of a detections file against truth.jsonl. Needs nothing but Python 3.

    python3 evaluate.py truth.jsonl detections.jsonl --min-map 0.9
    python3 evaluate.py --self-test

Both files hold one JSON object per line, joined by `seq`. AP is the area under the precision envelope (all points).
A detection takes the unmatched counted box of its class and frame with the largest IoU, if that is at least 0.5.
A detection that finds none, but overlaps a box marked `ignore` by at least 0.5, is neither right nor wrong.
A frame without a line in the detections file counts as a frame with no detections, unless --present-only is given.
Exit status: 0 good, 1 below --min-map, 2 a file is not what it should be.
"""
import argparse
import json
import sys


class BadFile(Exception):
    pass


def iou(a, b):
    w = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    h = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    if w <= 0 or h <= 0:
        return 0.0
    both = w * h
    return both / ((a["x2"] - a["x1"]) * (a["y2"] - a["y1"]) + (b["x2"] - b["x1"]) * (b["y2"] - b["y1"]) - both)


def average_precision(flags, positives):
    """`flags`: right or wrong for each detection, best score first; `positives`: how many boxes there are to find."""
    if positives == 0:
        return None
    points, right = [], 0
    for n, ok in enumerate(flags, 1):
        right += ok
        points.append((right / positives, right / n))
    area, best = 0.0, 0.0
    for i in range(len(points) - 1, -1, -1):
        best = max(best, points[i][1])
        before = points[i - 1][0] if i else 0.0
        area += (points[i][0] - before) * best
    return area


def match_frame(truth, found, min_iou):
    """For one frame and class: (score, right) for each detection that counts, and the number of boxes to find."""
    counted = [b for b in truth if not b.get("ignore")]
    ignored = [b for b in truth if b.get("ignore")]
    taken, out = set(), []
    for d in sorted(found, key=lambda d: -d["score"]):
        overlap, which = 0.0, None
        for i, b in enumerate(counted):
            if i not in taken:
                o = iou(d, b)
                if o >= min_iou and o > overlap:
                    overlap, which = o, i
        if which is not None:
            taken.add(which)
            out.append((d["score"], True))
        elif not any(iou(d, b) >= min_iou for b in ignored):
            out.append((d["score"], False))
    return out, len(counted)


def evaluate(truth, detections, threshold=0.35, min_iou=0.5, present_only=False):
    """Both arguments: {seq: [box, ..]}. Gives {"map": .., "frames": .., "classes": {id: {..}}}."""
    labels = {b["class_id"]: b.get("label", str(b["class_id"])) for boxes in truth.values() for b in boxes}
    seqs = [s for s in sorted(truth) if not present_only or s in detections]
    result = {"frames": len(seqs), "classes": {}}
    for c in sorted(labels):
        hits, positives = [], 0
        for s in seqs:
            h, n = match_frame([b for b in truth[s] if b["class_id"] == c],
                               [d for d in detections.get(s, []) if d["class_id"] == c], min_iou)
            hits += h
            positives += n
        hits.sort(key=lambda h: -h[0])
        over = [ok for score, ok in hits if score >= threshold]
        result["classes"][c] = {
            "label": labels[c], "boxes": positives, "ap": average_precision([ok for _, ok in hits], positives),
            "precision": sum(over) / len(over) if over else None, "recall": sum(over) / positives if positives else None,
            "right": sum(over), "found": len(over)}
    aps = [c["ap"] for c in result["classes"].values() if c["ap"] is not None]
    result["map"] = sum(aps) / len(aps) if aps else 0.0
    return result


def read(path, what):
    frames, sources = {}, set()
    try:
        with open(path, encoding="utf-8") as f:
            for n, line in enumerate(f, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    seq, boxes = row["seq"], row["boxes"]
                    for b in boxes:
                        for key in ("x1", "y1", "x2", "y2"):
                            b[key] = float(b[key])
                        int(b["class_id"])
                        if what == "detections":
                            b["score"] = float(b["score"])
                except (ValueError, KeyError, TypeError) as e:
                    raise BadFile(f"{path}:{n}: not a line of {what}: {type(e).__name__}: {e}")
                if seq in frames:
                    raise BadFile(f"{path}:{n}: seq {seq} stands here twice; give one source's lines of one run")
                frames[seq] = boxes
                sources.add(row.get("source"))
    except OSError as e:
        raise BadFile(f"{path}: {e.strerror}")
    if len(sources) > 1:
        raise BadFile(f"{path}: lines of several sources: {sorted(map(str, sources))}")
    return frames


def show(result, threshold, min_iou):
    part = lambda v: "   -  " if v is None else f"{v:6.4f}"
    print(f"{'class':10} {'boxes':>6} {'AP@%g' % min_iou:>7} {'precision':>9} {'recall':>7}   (precision and recall at score >= {threshold:g})")
    for c in result["classes"].values():
        print(f"{c['label']:10} {c['boxes']:6d} {part(c['ap']):>7} {part(c['precision']):>9} {part(c['recall']):>7}")
    found, right = sum(c["found"] for c in result["classes"].values()), sum(c["right"] for c in result["classes"].values())
    boxes = sum(c["boxes"] for c in result["classes"].values())
    print(f"{'all':10} {boxes:6d} {'':7} {part(right / found if found else None):>9} {part(right / boxes if boxes else None):>7}")
    print(f"mAP@{min_iou:g} {result['map']:.4f} over {result['frames']} frames")


def self_test():
    def box(x1, y1, x2, y2, c=0, **more):
        return {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class_id": c, "label": "abc"[c], **more}

    def same(got, want):
        assert abs(got - want) < 1e-12, (got, want)

    same(iou(box(0, 0, 2, 2), box(1, 0, 3, 2)), 2 / 6)  # 2 shared of 4 + 4 - 2
    same(iou(box(0, 0, 2, 2), box(2, 0, 4, 2)), 0.0)    # edges touch
    # right, wrong, right of 2 boxes: 0.5 of recall at precision 1, 0.5 at 2/3
    same(average_precision([True, False, True], 2), 0.5 + 0.5 * 2 / 3)
    # wrong first: the envelope lifts nothing before; both halves at their best later precision 2/3
    same(average_precision([False, True, True], 2), 2 / 3)
    same(average_precision([], 3), 0.0)
    assert average_precision([], 0) is None
    truth = {0: [box(0, 0, 10, 10), box(20, 0, 30, 10)], 1: [box(0, 0, 10, 10, ignore=True), box(50, 50, 60, 60, 1)]}
    # a hit, a second detection of the same box (wrong), one on the ignored box (dropped), nothing for class 1
    found = {0: [box(0, 0, 10, 10, score=0.9), box(0, 0, 10, 9, score=0.8)], 1: [box(0, 0, 10, 10, score=0.7)]}
    r = evaluate(truth, found)
    same(r["classes"][0]["ap"], 0.5)  # recall 0.5 at precision 1
    same(r["classes"][0]["precision"], 0.5)
    same(r["classes"][0]["recall"], 0.5)
    same(r["classes"][1]["ap"], 0.0)
    same(r["map"], 0.25)
    # a class mismatch is no match; IoU of exactly 0.5 is a match (10x10 against 10x20: 100 / 200)
    same(evaluate({0: [box(0, 0, 10, 10)]}, {0: [box(0, 0, 10, 10, 1, score=0.9)]})["map"], 0.0)
    same(evaluate({0: [box(0, 0, 10, 20)]}, {0: [box(0, 0, 10, 10, score=0.9)]})["map"], 1.0)
    # a frame with no line: missed, or left out on request
    same(evaluate({0: [box(0, 0, 9, 9)], 1: [box(0, 0, 9, 9)]}, {0: [box(0, 0, 9, 9, score=1)]})["map"], 0.5)
    same(evaluate({0: [box(0, 0, 9, 9)], 1: [box(0, 0, 9, 9)]}, {0: [box(0, 0, 9, 9, score=1)]}, present_only=True)["map"], 1.0)
    # a counted box is preferred to an ignored one that overlaps more
    t = {0: [box(0, 0, 10, 10, ignore=True), box(0, 0, 10, 12)]}
    same(evaluate(t, {0: [box(0, 0, 10, 10, score=0.5)]})["map"], 1.0)
    # below the threshold a detection counts for AP, not for recall
    r = evaluate({0: [box(0, 0, 9, 9)]}, {0: [box(0, 0, 9, 9, score=0.2)]})
    same(r["map"], 1.0)
    same(r["classes"][0]["recall"], 0.0)
    print("self-test: all good")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("truth", nargs="?")
    ap.add_argument("detections", nargs="?")
    ap.add_argument("--min-map", type=float, default=0.0)
    ap.add_argument("--threshold", type=float, default=0.35, help="score for precision and recall")
    ap.add_argument("--iou", type=float, default=0.5)
    ap.add_argument("--present-only", action="store_true", help="judge only frames that have a line (live runs that drop frames)")
    ap.add_argument("--frames", metavar="A:B", help="judge only frames with A <= seq < B")
    ap.add_argument("--json", action="store_true", help="print the result as one JSON object")
    ap.add_argument("--self-test", action="store_true")
    args = ap.parse_args()
    if args.self_test:
        self_test()
        return 0
    if not args.truth or not args.detections:
        ap.error("give truth.jsonl and detections.jsonl, or --self-test")
    try:
        truth, found = read(args.truth, "truth"), read(args.detections, "detections")
        unknown = sorted(set(found) - set(truth))
        if unknown:
            raise BadFile(f"{args.detections}: seq {unknown[0]} is not in {args.truth}" + (f", nor are {len(unknown) - 1} more" if unknown[1:] else ""))
        if args.frames:
            try:
                first, end = map(int, args.frames.split(":"))
            except ValueError:
                ap.error(f"--frames takes two numbers A:B, not {args.frames!r}")
            truth = {k: v for k, v in truth.items() if first <= k < end}
    except BadFile as e:
        print(e, file=sys.stderr)
        return 2
    result = evaluate(truth, found, args.threshold, args.iou, args.present_only)
    if args.json:
        print(json.dumps(result))
    else:
        show(result, args.threshold, args.iou)
    if result["map"] < args.min_map:
        print(f"mAP {result['map']:.4f} is below --min-map {args.min_map:g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
