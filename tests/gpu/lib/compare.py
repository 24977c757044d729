"""Results against references: checksums of frames, boxes of detections."""
import json


def checksums(file):
    """The last column of a framemd5 file."""
    lines = [line for line in open(file) if line.strip() and not line.startswith("#")]
    return [line.rsplit(",", 1)[-1].strip() for line in lines]


def same_frames(ours, theirs):
    """(frames that are the same, frames of ours, frames of theirs, the first that differs or None)"""
    ours, theirs = checksums(ours), checksums(theirs)
    same = sum(a == b for a, b in zip(ours, theirs))
    first = next((n for n, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
    if first is None and len(ours) != len(theirs):
        first = min(len(ours), len(theirs))
    return same, len(ours), len(theirs), first


def iou(a, b):
    """Of two boxes (class, score, x1, y1, x2, y2)."""
    width = max(min(a[4], b[4]) - max(a[2], b[2]), 0.0)
    height = max(min(a[5], b[5]) - max(a[3], b[3]), 0.0)
    inter = width * height
    union = (a[4] - a[2]) * (a[5] - a[3]) + (b[4] - b[2]) * (b[5] - b[3]) - inter
    return inter / union if union > 0 else 0.0


def detections(lines, reference):
    """Our JSON lines against a reference's boxes, frame by frame: the bounds are those of tests/detect_graph.rs.

    `reference`: boxes of theirs over 0.5. `matched`: those with a box of ours of the same class at IoU 0.8 or more.
    `surplus`: boxes of ours over 0.55 that no box of theirs, of whatever score, overlaps so much.
    """
    ours = [json.loads(line) for line in open(lines)]
    theirs = json.load(open(reference))["detections"]
    found = {"frames": len(ours), "frames_expected": len(theirs), "reference": 0, "matched": 0, "surplus": 0}
    found["in_order"] = [line["seq"] for line in ours] == list(range(len(theirs)))
    total = 0.0
    for expected, line in zip(theirs, ours):
        boxes = [[b[k] for k in ("class_id", "score", "x1", "y1", "x2", "y2")] for b in line["boxes"]]

        def best(box, among):
            return max((iou(box, other) for other in among if other[0] == box[0]), default=0.0)

        for box in (box for box in expected if box[1] > 0.5):
            found["reference"] += 1
            overlap = best(box, boxes)
            if overlap >= 0.8:
                found["matched"] += 1
                total += overlap
        found["surplus"] += sum(1 for box in boxes if box[1] > 0.55 and best(box, expected) < 0.8)
    found["missing"] = found["reference"] - found["matched"]
    found["mean_iou"] = total / max(found["matched"], 1)
    return found
