#!/usr/bin/env python3
"""Reads detections from zenoh-publisher: each frame as JSON and as Arrow, the two compared, and the cameras' tokens.

An example of a subscriber, and the independent reader of the tests: nothing in here comes from Millrace itself.

    python zenoh_client.py --frames 50
    python zenoh_client.py --connect tcp/127.0.0.1:7447 --no-scouting
"""

import argparse
import json
import queue
import struct
import sys
import time
import urllib.parse
from collections import Counter, defaultdict

import pyarrow as pa
import pyarrow.ipc
import zenoh

from ws_client import SchemaError, check_text, need

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream;schema=millrace.detections.v1"
BOX = pa.struct(
    [
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("x2", pa.float32(), nullable=False),
        pa.field("y2", pa.float32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("class_id", pa.uint32(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("track_id", pa.uint64()),
    ]
)
COLUMNS = {
    "schema": pa.uint32(),
    "source": pa.string(),
    "seq": pa.uint64(),
    "pts_ns": pa.int64(),
    "capture_ns": pa.int64(),
    "model": pa.string(),
    "width_px": pa.uint32(),
    "height_px": pa.uint32(),
    "boxes": pa.list_(pa.field("item", BOX, nullable=False)),
}


SHAPES = ("oriented", "keypoints", "mask")


def plain(boxes):
    """The type of the boxes without the columns that are there where a box has such a shape."""
    if not pa.types.is_list(boxes):
        return boxes
    fields = [field for field in boxes.value_type if field.name not in SHAPES]
    return pa.list_(pa.field("item", pa.struct(fields), nullable=boxes.value_field.nullable))


def check_arrow(data):
    """The one row of an Arrow IPC stream, after its columns have been held against the schema."""
    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all()
    need(table.num_rows == 1, f"{table.num_rows} rows in an Arrow message")
    found = {field.name: field.type for field in table.schema}
    found.pop("classes", None)
    need({**found, "boxes": plain(found.get("boxes"))} == COLUMNS, f"the Arrow columns are {found}")
    row = table.to_pylist()[0]
    need(row["schema"] == 1, f"Arrow schema {row['schema']}")
    return row


def single(value):
    """A number rounded to 32-bit float, as both encodings carry it."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def compare(message, row):
    """Checks that the JSON and the Arrow of a frame say the same."""
    for name in COLUMNS:
        if name != "boxes":
            need(message[name] == row[name], f"{name}: JSON says {message[name]!r}, Arrow {row[name]!r}")
    need(len(message["boxes"]) == len(row["boxes"]), "JSON and Arrow differ in the number of boxes")
    for ours, theirs in zip(message["boxes"], row["boxes"]):
        for name in ("x1", "y1", "x2", "y2", "score"):
            need(single(ours[name]) == theirs[name], f"{name}: {ours[name]} and {theirs[name]}")
        for name in ("class_id", "label"):
            need(ours[name] == theirs[name], f"{name}: {ours[name]!r} and {theirs[name]!r}")
        need(ours.get("track_id") == theirs["track_id"], "the tracks differ")
        for name in SHAPES:
            need((name in ours) == bool(theirs.get(name)), f"{name} is in one of {ours} and {theirs}")


def configuration(args):
    config = zenoh.Config()
    config.insert_json5("mode", json.dumps(args.mode))
    config.insert_json5("scouting/multicast/enabled", json.dumps(not args.no_scouting))
    config.insert_json5("listen/endpoints", json.dumps(args.listen))
    if args.connect:
        config.insert_json5("connect/endpoints", json.dumps(args.connect))
    return config


def check_state(sample, camera, problems):
    """The state that a sample on a camera's `state` key carries, checked."""
    try:
        need(str(sample.encoding) == JSON, f"a state with the encoding {sample.encoding}")
        message = check_text(sample.payload.to_bytes().decode())
        need(message["type"] == "state" and message["source"] == camera, f"{message} on the key of {camera!r}")
        return message["state"]
    except (SchemaError, ValueError) as error:
        problems.append(f"{type(error).__name__}: {error}")
        return None


def ask_states(session, graph, problems):
    """Each camera's state, as the publisher answers who asks."""
    states = {}
    for reply in session.get(f"millrace/{graph}/*/state", timeout=5.0):
        if reply.ok is None:
            problems.append(f"the answer for the states is an error: {reply.err.payload.to_string()}")
            continue
        camera = urllib.parse.unquote(str(reply.ok.key_expr).split("/")[2])
        states[camera] = check_state(reply.ok, camera, problems)
    return states


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", default="*", help="name of the graph in the keys")
    parser.add_argument("--frames", type=int, default=50, help="end after so many frames in each encoding")
    parser.add_argument("--seconds", type=float, default=60, help="fail when they have not come by then")
    parser.add_argument("--encodings", choices=("json", "arrow", "both"), default="both")
    parser.add_argument("--mode", choices=("peer", "client"), default="peer")
    parser.add_argument("--connect", action="append", help="endpoint to connect to; may be repeated")
    parser.add_argument("--listen", action="append", default=[], help="endpoint to listen on; may be repeated")
    parser.add_argument("--no-scouting", action="store_true", help="find nobody by multicast")
    parser.add_argument("--until-gone", action="store_true", help="then wait until each camera's token is withdrawn")
    args = parser.parse_args()

    wanted = {"json": [JSON], "arrow": [ARROW], "both": [JSON, ARROW]}[args.encodings]
    counts, boxes, alive, gone, problems = Counter(), 0, set(), set(), []
    waiting = defaultdict(dict)  # (camera, seq) -> {encoding: message}
    events = queue.SimpleQueue()
    deadline = time.monotonic() + args.seconds
    with zenoh.open(configuration(args)) as session:
        session.declare_subscriber(f"millrace/{args.graph}/*/detections", lambda s: events.put(("sample", s)))
        session.declare_subscriber(f"millrace/{args.graph}/*/state", lambda s: events.put(("state", s)))
        session.liveliness().declare_subscriber(
            f"millrace/{args.graph}/*/alive", lambda s: events.put(("token", s)), history=True
        )

        def enough():
            frames = min(counts[encoding] for encoding in wanted) >= args.frames
            return frames and (not args.until_gone or (alive and alive <= gone))

        while not enough():
            try:
                kind, sample = events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                problems.append(f"not all of it came within {args.seconds} s")
                break
            _, _, chunk, _ = str(sample.key_expr).split("/")
            camera = urllib.parse.unquote(chunk)
            if kind == "token":
                if sample.kind == zenoh.SampleKind.PUT:
                    alive.add(camera)
                    gone.discard(camera)
                else:
                    gone.add(camera)
                continue
            if kind == "state":
                check_state(sample, camera, problems)
                continue
            encoding, data = str(sample.encoding), sample.payload.to_bytes()
            counts[encoding] += 1
            try:
                need(encoding in wanted, f"a message with the encoding {encoding!r}")
                message = check_text(data.decode()) if encoding == JSON else check_arrow(data)
                need(message["source"] == camera, f"{message['source']!r} came on the key of {camera!r}")
                boxes += len(message["boxes"])
                if args.encodings == "both":
                    pair = waiting[camera, message["seq"]]
                    pair[encoding] = message
                    if len(pair) == 2:
                        compare(pair[JSON], pair[ARROW])
                        counts["compared"] += 1
                        del waiting[camera, message["seq"]]
            except (SchemaError, ValueError, pa.ArrowException) as error:
                problems.append(f"{type(error).__name__}: {error}")
                break
        # a camera that is live has a token, and one that has none is not
        states = {} if args.until_gone else ask_states(session, args.graph, problems)
    if not alive:
        problems.append("no camera's liveliness token was seen")
    for camera, state in states.items():
        if (state == "live") != (camera in alive - gone):
            problems.append(f"{camera} is {state}, and its token is {'there' if camera in alive - gone else 'not there'}")
    if not args.until_gone and not states:
        problems.append("nobody answered for the cameras' states")
    report = {"messages": counts, "boxes": boxes, "alive": sorted(alive), "gone": sorted(gone), "states": states, "problems": problems}
    print(json.dumps(report), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
