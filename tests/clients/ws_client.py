#!/usr/bin/env python3
"""Reads detections from ws-publisher's WebSocket and holds each message against docs/wire-schema.md.

An example of a client, and the independent reader of the tests: nothing in here comes from Millrace itself.

    python ws_client.py ws://127.0.0.1:8080/ws --frames 50
"""

import argparse
import json
import math
import struct
import sys
import time
from collections import Counter

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SCHEMA = 1
HEADER = struct.Struct("<BBBB4xq")  # version, kind, flags, camera index, four zero bytes, pts_ns
KINDS = {1: "h264", 2: "jpeg"}

INT, REAL, TEXT, LIST = int, (int, float), str, list
BOX = {"x1": REAL, "y1": REAL, "x2": REAL, "y2": REAL, "score": REAL, "class_id": INT, "label": TEXT}
BOX_OPTIONAL = {"track_id": INT, "oriented": dict, "keypoints": LIST, "mask": LIST}
ORIENTED = {"x": REAL, "y": REAL, "width": REAL, "height": REAL, "angle_rad": REAL}
CLASS = {"class_id": INT, "label": TEXT, "score": REAL}
CAMERA = {"source": TEXT, "index": INT, "width_px": INT, "height_px": INT}
STATES = ("connecting", "live", "stalled", "refused", "ended")
STATUS = {"source": TEXT, "state": TEXT, "since_ns": INT, "tries": INT}
STATUS_OPTIONAL = {"last_error": TEXT, "last_frame_ns": INT}
CAMERA_STATS = {**STATUS, "frames": INT, "fps": REAL, "missing": INT, "restarts": INT, "packets": INT}
AGES = {name: REAL for name in ("age_p50_ms", "age_p95_ms", "age_p99_ms", "latency_p50_ms", "latency_p99_ms")}
MODEL = {"model": TEXT, "about": TEXT}
MESSAGES = {
    "hello": {"schema": INT, "server": TEXT, "title": TEXT, "cameras": LIST},
    "detections": {
        "schema": INT, "source": TEXT, "seq": INT, "pts_ns": INT, "capture_ns": INT, "width_px": INT,
        "height_px": INT, "model": TEXT, "boxes": LIST,
    },
    "video": {
        "schema": INT, "source": TEXT, "index": INT, "codec": TEXT, "width_px": INT, "height_px": INT,
        "orientation": TEXT, "replay_packets": INT,
    },
    "gap": {"schema": INT, "source": TEXT, "detections": INT, "packets": INT},
    "stats": {"schema": INT, "uptime_s": INT, "clients": INT, "cameras": LIST, "client": dict},
    "state": {"schema": INT, **STATUS},  # of zenoh alone
    "end": {"schema": INT, "reason": TEXT},
}  # fmt: skip


class SchemaError(ValueError):
    """A message is not what the schema says."""


def need(condition, text):
    if not condition:
        raise SchemaError(text)


def check_fields(what, value, fields, optional=()):
    """Checks that `value` is an object of exactly these fields, of these types, with finite numbers. The optional ones
    may be left out; where they are a dictionary their types are checked, too."""
    need(isinstance(value, dict), f"{what} is not an object: {value!r}")
    need(not (missing := fields.keys() - value.keys()), f"{what} lacks {sorted(missing)}")
    unknown = value.keys() - fields.keys() - set(optional)
    need(not unknown, f"{what} has the undocumented fields {sorted(unknown)}")
    typed = {name: kind for name, kind in optional.items() if name in value} if isinstance(optional, dict) else {}
    for name, kind in {**fields, **typed}.items():
        field = value[name]
        need(isinstance(field, kind) and not isinstance(field, bool), f"{what}.{name} is {field!r}")
        need(not isinstance(field, float) or math.isfinite(field), f"{what}.{name} is {field!r}")


def check_status(what, status):
    """Checks what a camera's state says beyond the types of its fields."""
    need(status["state"] in STATES, f"{what}: the state {status['state']!r}")
    need(status["tries"] >= 0 and status["since_ns"] > 0, f"{what}: {status}")
    need(status.get("last_error", "?") and status.get("last_frame_ns", 1) > 0, f"{what} has an empty field: {status}")


def check_stats(camera):
    """Checks a camera of `stats`."""
    check_fields("camera", camera, CAMERA_STATS, optional={**STATUS_OPTIONAL, **AGES, **MODEL})
    check_status(f"camera {camera['source']}", camera)
    ages = [camera.get(name) for name in ("age_p50_ms", "age_p95_ms", "age_p99_ms")]
    if None in ages:
        need(ages == [None] * 3 and camera["fps"] == 0, f"only a part of the ages is there: {camera}")
    else:
        need(0 <= ages[0] <= ages[1] <= ages[2], f"the ages do not rise: {ages}")
        # ages are of one machine's monotonic clock; a minute is a clock that is not that
        need(ages[2] < 60_000, f"an age of {ages[2]} ms")
        need("last_frame_ns" in camera, "frames came, and last_frame_ns is missing")
    old = [camera.get(name) for name in ("latency_p50_ms", "latency_p99_ms")]
    need(old == [ages[0], ages[2]], f"latency {old}, ages {ages}")


def check_shape(box, width, height):
    """Checks what a box has beside its edges."""
    if "oriented" in box:
        check_fields("oriented", box["oriented"], ORIENTED)
    for point in box.get("keypoints", []):
        check_fields("keypoint", point, {"x": REAL, "y": REAL}, optional={"score": REAL})
        need(0 <= point["x"] <= width and 0 <= point["y"] <= height, f"a key point is outside the picture: {point}")
    for ring in box.get("mask", []):
        need(len(ring) >= 6 and len(ring) % 2 == 0, f"a ring of {len(ring)} numbers")
        need(all(box["x1"] - 0.1 <= x <= box["x2"] + 0.1 for x in ring[::2]), f"a mask is wider than its box: {box}")
        need(all(box["y1"] - 0.1 <= y <= box["y2"] + 0.1 for y in ring[1::2]), f"a mask is higher than its box: {box}")


def check_text(text):
    """Parses and checks a text message."""
    message = json.loads(text)
    kind = message.get("type")
    need(kind in MESSAGES, f"unknown type {kind!r}")
    need(next(iter(message)) == "type", f"{kind}: 'type' does not come first")
    optional = {"state": STATUS_OPTIONAL, "detections": {"sender_ns": INT, "classes": LIST}}.get(kind, ())
    check_fields(kind, message, {"type": TEXT, **MESSAGES[kind]}, optional)
    need(message["schema"] == SCHEMA, f"{kind}: schema {message['schema']}, this client reads {SCHEMA}")
    if kind == "detections":
        need(message["width_px"] > 0 and message["height_px"] > 0, "the size of the picture is zero")
        scores = [box["score"] for box in message["boxes"]]
        need(scores == sorted(scores, reverse=True), f"boxes are not by falling score: {scores}")
        for box in message["boxes"]:
            check_fields("box", box, BOX, optional=BOX_OPTIONAL)
            check_shape(box, message["width_px"], message["height_px"])
            need(box["x1"] <= box["x2"] and box["y1"] <= box["y2"], f"a box is inside out: {box}")
            need(0 <= box["score"] <= 1, f"a score is out of range: {box}")
        scores = [one["score"] for one in message.get("classes", [])]
        need(scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores), f"classes score {scores}")
        for one in message.get("classes", []):
            check_fields("class", one, CLASS)
    for camera in message.get("cameras", ()):
        if kind == "hello":
            check_fields("camera", camera, CAMERA)
        else:
            check_stats(camera)
    if kind == "state":
        check_status(f"camera {message['source']}", message)
    return message


def check_binary(data):
    """Parses and checks a binary message: (kind, key, camera index, pts_ns, payload)."""
    need(len(data) > HEADER.size, f"a binary message of {len(data)} bytes")
    version, kind, flags, camera, pts_ns = HEADER.unpack_from(data)
    need(version == SCHEMA, f"binary version {version}")
    need(kind in KINDS, f"binary kind {kind}")
    need(flags & ~1 == 0, f"binary flags {flags:#x}")
    need(data[4:8] == bytes(4), "the reserved bytes are not zero")
    payload = data[HEADER.size :]
    start = (b"\0\0\1", b"\0\0\0\1") if KINDS[kind] == "h264" else (b"\xff\xd8\xff",)
    need(payload.startswith(start), f"{KINDS[kind]} data begins with {payload[:4].hex()}")
    return KINDS[kind], bool(flags & 1), camera, pts_ns, payload


def read(url, frames, seconds):
    """Yields checked messages until so many detections came, the server ended, or the time is up."""
    deadline = time.monotonic() + seconds
    with connect(url, max_size=64 << 20, proxy=None) as socket:
        seen = 0
        while seen < frames:
            try:
                message = socket.recv(timeout=max(0.0, deadline - time.monotonic()))
            except ConnectionClosed as closed:
                if closed.rcvd is None:
                    raise
                yield "close", {"code": closed.rcvd.code, "reason": closed.rcvd.reason}
                return
            if isinstance(message, bytes):
                yield "binary", check_binary(message)
                continue
            message = check_text(message)
            seen += message["type"] == "detections"
            yield message["type"], message


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8080/ws")
    parser.add_argument("--frames", type=int, default=50, help="end after so many detections messages")
    parser.add_argument("--seconds", type=float, default=60, help="fail when they have not come by then")
    parser.add_argument("--ordered", action="store_true", help="fail where a camera's numbers do not rise one by one")
    parser.add_argument("--print", action="store_true", help="print each detections message as a line")
    args = parser.parse_args()

    counts, boxes, first, last, states, problems = Counter(), 0, None, {}, {}, []
    try:
        for kind, message in read(args.url, args.frames, args.seconds):
            counts[kind] += 1
            first = first or kind
            if kind == "stats":
                states = {camera["source"]: camera["state"] for camera in message["cameras"]}
            if kind == "detections":
                boxes += len(message["boxes"])
                before = last.get(message["source"])
                if args.ordered and before is not None and message["seq"] != before + 1:
                    problems.append(f"{message['source']}: {message['seq']} came after {before}")
                last[message["source"]] = message["seq"]
                if args.print:
                    print(json.dumps(message), flush=True)
    except (SchemaError, TimeoutError, OSError, ConnectionClosed) as error:
        problems.append(f"{type(error).__name__}: {error}")
    if first != "hello" and first is not None:
        problems.append(f"the first message is '{first}', not 'hello'")
    if counts["detections"] < args.frames:
        problems.append(f"{counts['detections']} of {args.frames} detections messages came")
    print(json.dumps({"messages": counts, "boxes": boxes, "last_seq": last, "states": states, "problems": problems}), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
