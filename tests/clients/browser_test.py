#!/usr/bin/env python3
"""Looks at ws-publisher's page in a real browser: the picture moves, the boxes are on the objects, the counts rise.

    python browser_test.py http://127.0.0.1:8080/ --truth ../data/demo/truth.jsonl --screenshot page.png

The truth is a line of JSON a frame ({"pts_ns", "boxes": [{"x1", "y1", "x2", "y2", "label", "ignore"?}]}). What the page
drew is asked of the page (`window.millrace`), by the presentation time of the picture that the boxes were drawn on.
"""

import argparse
import json
import os
import signal
import sys
import time

from browser import Browser

# What the canvas shows, as 96x54 grey samples: small enough to hand over, and boxes are thin against it.
GREY = """(() => {
  const from = document.querySelector("canvas"), to = new OffscreenCanvas(96, 54), c = to.getContext("2d");
  c.drawImage(from, 0, 0, 96, 54);
  const d = c.getImageData(0, 0, 96, 54).data, out = [];
  for (let i = 0; i < d.length; i += 4) out.push((d[i] * 77 + d[i + 1] * 150 + d[i + 2] * 29) >> 8);
  return out;
})()"""
COUNTS = """Object.fromEntries(Object.entries(millrace.cameras).map(([name, c]) =>
  [name, {exact: c.exact, late: c.late, skipped: c.skipped, decoded: c.decoded, detections: c.detections,
          packets: c.packets, boxes_only: c.boxes_only, errors: c.errors, lag_ms: c.lag_ms, codec: c.codec}]))"""
DRAWN = "Object.values(millrace.cameras)[0].drawn"


# Of one camera: what its card says and shows. `boxes` is the number of points of the overlay that are painted.
LOOKS = """(() => {
  const card = document.querySelector(".camera"), overlay = card.querySelector("canvas.boxes");
  const d = overlay.getContext("2d").getImageData(0, 0, overlay.width, overlay.height).data;
  let boxes = 0;
  for (let i = 3; i < d.length; i += 4) boxes += d[i] > 0;
  const why = card.querySelector(".why");
  return {state: card.dataset.state, badge: card.querySelector(".badge").textContent, why: why.hidden ? "" : why.textContent.trim(),
          filter: getComputedStyle(card.querySelector("canvas.picture")).filter, boxes, pill: document.getElementById("state").textContent,
          health: millrace.health, p99: card.querySelector("[data-of=p99]").textContent, fps: card.querySelector("[data-of=fps]").textContent};
})()"""


# What the page draws of boxes with shapes and of classes, 400 by 300: whether each of POINTS is painted.
SHAPES = """(async () => {
  const { drawFound } = await import("./found.js");
  const canvas = Object.assign(document.createElement("canvas"), {width: 400, height: 300}), context = canvas.getContext("2d");
  const box = (x1, y1, x2, y2, more) => ({x1, y1, x2, y2, score: 0.9, class_id: 1, label: "x", ...more});
  drawFound(context, canvas, {width_px: 200, height_px: 150, boxes: [
    box(10, 40, 70, 100, {mask: [[20, 50, 60, 50, 60, 90, 20, 90], [30, 60, 50, 60, 50, 80, 30, 80]]}),
    box(90, 40, 130, 80, {oriented: {x: 110, y: 60, width: 28.284, height: 28.284, angle_rad: Math.PI / 4}}),
    box(140, 40, 190, 140, {keypoints: [{x: 150, y: 60, score: 0.9}, {x: 170, y: 60, score: 0.1}, {x: 160, y: 100}]}),
  ], classes: [{class_id: 2, label: "street", score: 0.75}]}, true);
  return POINTS.map(([x, y]) => context.getImageData(2 * x, 2 * y, 1, 1).data[3] > 0);
})()"""
PAINTED = {
    "the mask": (25, 70, True), "its hole": (40, 70, False), "the box around it": (10, 70, True), "beside the mask": (15, 95, False),
    "an edge of the turned box": (100, 50, True), "a corner of its bounds": (91, 78, False), "within it": (110, 60, False),
    "a key point": (150, 60, True), "one that is not sure": (170, 60, False), "one without a score": (160, 100, True),
    "the class of the picture": (14, 46, True),
}  # fmt: skip


def outage(browser, pid, need, screenshot):
    """Stops the process that reads the camera, and lets it go on: the camera has to look dead meanwhile."""
    looks = {"live": browser.run(LOOKS)}
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        browser.wait("document.querySelector('.camera').dataset.state === 'stalled'", 15, "the camera's death")
        looks["seen_after_s"] = round(time.monotonic() - began, 2)
        looks["dead"] = browser.run(LOOKS)
        if screenshot:
            browser.screenshot(screenshot)
        # boxes that come late must not appear on a dead picture, and its ages fade
        browser.wait("document.querySelector('[data-of=p99]').textContent === '–'", 20, "the end of the ages")
        looks["later"] = browser.run(LOOKS)
    finally:
        os.kill(pid, signal.SIGCONT)
    browser.wait("document.querySelector('.camera').dataset.state === 'live'", 15, "the camera's return")
    browser.wait(f"({LOOKS}).boxes > 0", 15, "boxes again")
    looks["back"] = browser.run(LOOKS)
    for when in ("live", "back"):
        seen = looks[when]
        need(seen["state"] == "live" and seen["health"] == "live" and seen["pill"] == "live", f"{when}: {seen}")
        need(seen["why"] == "" and seen["filter"] == "none", f"{when}: {seen}")
    for when in ("dead", "later"):
        seen = looks[when]
        need(seen["boxes"] == 0, f"{when}: boxes are still drawn: {seen}")
        need(seen["badge"] == "stalled" and "since" in seen["why"] and "nothing of it has arrived" in seen["why"], f"{when}: {seen}")
        need("brightness" in seen["filter"], f"{when}: the picture is not dimmed: {seen}")
        need(seen["health"] != "live" and seen["pill"] != "live", f"{when}: {seen}")
    need(looks["later"]["fps"] == "0.0", f"later: {looks['later']}")
    need(looks["seen_after_s"] < 6, f"the death was seen after {looks['seen_after_s']} s")
    return looks


def overlap(a, b):
    """Intersection over union of two boxes."""
    width = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    height = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((r["x2"] - r["x1"]) * (r["y2"] - r["y1"]) for r in (a, b))
    return width * height / (areas - width * height)


def match(drawn, truth, least):
    """Greedy matching by falling score: (boxes drawn, of them on an object, objects, of them found)."""
    free = list(truth)
    hits = ignored = 0
    for box in sorted(drawn, key=lambda b: -b["score"]):
        best = max((t for t in free if t["label"] == box["label"]), key=lambda t: overlap(box, t), default=None)
        if best is None or overlap(box, best) < least:
            continue
        free.remove(best)
        if best.get("ignore"):
            ignored += 1
        else:
            hits += 1
    return len(drawn) - ignored, hits, sum(not t.get("ignore") for t in truth), hits


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080/")
    parser.add_argument("--truth", help="JSON lines to hold the drawn boxes against")
    parser.add_argument("--clip-ns", type=int, help="length of the clip, where it is played again and again")
    parser.add_argument("--seconds", type=float, default=8, help="how long to watch")
    parser.add_argument("--frames", type=int, default=50, help="least number of pictures drawn with their own boxes")
    parser.add_argument("--iou", type=float, default=0.5, help="least overlap of a box with its object")
    parser.add_argument("--precision", type=float, default=0.8, help="least share of drawn boxes that are on an object")
    parser.add_argument("--recall", type=float, default=0.5, help="least share of objects that have a box")
    parser.add_argument("--moved", type=float, default=0.03, help="least share of the picture that changes in a second")
    parser.add_argument("--codec", choices=("h264", "jpeg", "none"), default="h264", help="the kind of picture expected")
    parser.add_argument("--no-webcodecs", action="store_true", help="as in a browser that cannot decode video in a page")
    parser.add_argument("--outage", type=int, metavar="PID", help="then stop this process, which reads the camera, and let it go on")
    parser.add_argument("--screenshot", help="PNG to write; of an outage NAME-dead.png")
    parser.add_argument("--size", default="1280x900")
    args = parser.parse_args()

    problems, drawn = [], {}

    def need(condition, text):
        if not condition:
            problems.append(text)

    width, height = (int(n) for n in args.size.split("x"))
    with Browser(width, height) as browser:
        if args.no_webcodecs:
            browser.before("delete window.VideoDecoder;")
        browser.open(args.url)
        browser.wait("window.millrace?.connection === 'live'", 30, "the connection")
        browser.wait("Object.values(millrace.cameras).some(c => c.drawn.length > 5)", 60, "the first pictures")
        browser.wait("millrace.stats?.cameras.length > 0", 10, "the first figures")
        painted = browser.run(SHAPES.replace("POINTS", json.dumps([[x, y] for x, y, _ in PAINTED.values()])))
        wrong = [what for (what, (*_, want)), found in zip(PAINTED.items(), painted) if found != want]
        need(not wrong, f"drawn wrongly: {wrong}")
        before, first = browser.run(COUNTS), browser.run("millrace.stats?.cameras[0]?.frames ?? 0")
        greys = [browser.run(GREY)]
        began = time.monotonic()
        while time.monotonic() - began < args.seconds:
            time.sleep(1)
            greys.append(browser.run(GREY))
            drawn.update({d["pts_us"]: d for d in browser.run(DRAWN)})
        after, last = browser.run(COUNTS), browser.run("millrace.stats?.cameras[0]?.frames ?? 0")
        shown = browser.run("document.querySelector('[data-of=frames]').textContent")
        if args.screenshot:
            browser.screenshot(args.screenshot)
        if args.outage:
            dead = args.screenshot and args.screenshot.removesuffix(".png") + "-dead.png"
            looks = outage(browser, args.outage, need, dead)
        need(not any(line.startswith("exception") for line in browser.console), f"console: {browser.console}")
        need(not any("Content Security Policy" in line for line in browser.console), f"console: {browser.console}")

    camera = next(iter(after))
    now, then = after[camera], before[camera]
    changes = [sum(abs(p - q) > 8 for p, q in zip(a, b)) / len(a) for a, b in zip(greys, greys[1:])]
    changes.sort()
    moved = changes[len(changes) // 2]
    if args.codec != "none":
        need(moved >= args.moved, f"the picture stands still: in a second {moved:.1%} of it changed (median)")
        need(now["decoded"] > then["decoded"] + args.seconds, f"few pictures were decoded: {then} -> {now}")
        kind = "jpeg" if now["codec"] == "jpeg" else "h264" if (now["codec"] or "").startswith("avc1") else now["codec"]
        need(kind == args.codec, f"the pictures are {now['codec']}, not {args.codec}")
        need(now["errors"] == 0, f"{now['errors']} decoding errors")
        own = now["exact"] - then["exact"]
        need(own >= args.frames, f"{own} pictures were drawn with their own boxes, fewer than {args.frames}")
    need(last > first and shown.replace(",", "").isdigit() and int(shown.replace(",", "")) >= first, f"the counts stand still: {first} -> {last}, shown {shown}")
    need(now["detections"] > then["detections"], f"no detections came: {then} -> {now}")

    report = {"camera": camera, "counts": now, "moved_median": round(moved, 4), "frames": [first, last]}
    if args.truth:
        with open(args.truth, encoding="utf-8") as lines:
            truth = {round(t["pts_ns"] / 1000): t["boxes"] for t in map(json.loads, lines)}
        clip_us = args.clip_ns and args.clip_ns // 1000
        totals = [0, 0, 0, 0]
        compared = 0
        for pts_us, picture in drawn.items():
            objects = truth.get(pts_us % clip_us if clip_us else pts_us)
            if picture["boxes"] is None or objects is None:
                continue
            compared += 1
            totals = [a + b for a, b in zip(totals, match(picture["boxes"], objects, args.iou))]
        boxes, on_objects, objects, found = totals
        precision, recall = on_objects / max(boxes, 1), found / max(objects, 1)
        report["truth"] = {"pictures": compared, "boxes": boxes, "precision": round(precision, 4), "recall": round(recall, 4)}
        need(compared >= args.frames // 2, f"only {compared} drawn pictures have a line of truth")
        need(precision >= args.precision, f"{precision:.3f} of the drawn boxes are on an object, fewer than {args.precision}")
        need(recall >= args.recall, f"{recall:.3f} of the objects have a box, fewer than {args.recall}")
    if args.outage:
        report["outage"] = looks
    report["problems"] = problems
    print(json.dumps(report), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
