#!/usr/bin/env python3
"""Makes and reads the clips that replay.py plays: for each camera some seconds whose pictures carry its number and theirs.

    tests/live/clip.py --cameras 64 --size 1920x1080 --fps 30 --out clips

Needs FFmpeg with libx264 and libx265. A clip is one file: a line of JSON, {"codec", "width", "height", "fps", "pictures"},
where each picture is [its number in presentation order, whether it is a key picture, its bytes], and behind it the access
units (Annex B) one after the other, in decoding order. The numbers begin at 0, and a clip ends with a whole group of pictures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from pattern import Stamp, draw_i420  # noqa: E402

FFMPEG = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y"]


class Clip:
    """A clip's head. `data` is the file behind it."""

    def __init__(self, file):
        with open(file, "rb") as clip:
            head = json.loads(clip.readline())
            self.data = clip.read()
        self.codec, self.fps, self.pictures = head["codec"], head["fps"], head["pictures"]
        self.step_ns = 1_000_000_000 // self.fps
        # so many pictures before its turn in presentation order one is sent
        self.early = max(number - at for at, (number, *_) in enumerate(self.pictures))

    def made_ns(self, frame):
        """When the picture of this number was made, by CLOCK_MONOTONIC: none is sent before that."""
        return (frame - self.early) * self.step_ns

    def newest(self, number, ns):
        """The number of the newest picture that was sent by `ns` and whose number modulo the clip's length is `number`."""
        latest = ns // self.step_ns + self.early
        return latest - (latest - number) % len(self.pictures)


def encoder(codec, b_frames, keys):
    options = f"qp=30:keyint={keys}:min-keyint={keys}:scenecut=0:open-gop=0:b-adapt=0:bframes={b_frames}:repeat-headers=1"
    if codec == "h264":
        return ["-c:v", "libx264", "-preset", "veryfast", "-x264-params", options]
    return ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", f"log-level=error:{options}"]


def make(file, camera, codec="h264", b_frames=0, width=320, height=180, fps=25, seconds=5):
    """One clip of so many seconds, with a key picture each second."""
    with tempfile.TemporaryDirectory() as folder:
        encoded, stream = os.path.join(folder, "clip.mkv"), os.path.join(folder, "clip.bits")
        raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
        process = subprocess.Popen([*FFMPEG, *raw, *encoder(codec, b_frames, fps), encoded], stdin=subprocess.PIPE)
        for number in range(seconds * fps):
            process.stdin.write(draw_i420(Stamp(camera, 0, number, 0), width, height))
        process.stdin.close()
        if process.wait() != 0:
            raise SystemExit(f"FFmpeg cannot make {file}")
        # presentation times and key pictures as the container has them, sizes and bytes as they are in the byte stream
        subprocess.run([*FFMPEG, "-i", encoded, "-c", "copy", "-f", {"h264": "h264", "h265": "hevc"}[codec], stream], check=True)
        times, keys = zip(*((float(row["pts_time"]), "K" in row["flags"]) for row in packets(encoded)))
        sizes = [int(row["size"]) for row in packets(stream)]
        with open(stream, "rb") as bits:
            data = bits.read()
        if not len(sizes) == len(times) == seconds * fps or sum(sizes) != len(data):
            raise SystemExit(f"{file}: {len(sizes)} access units of {sum(sizes)} bytes, {len(times)} times, {len(data)} bytes")
        order = {time: number for number, time in enumerate(sorted(times))}
        pictures = [[order[time], key, size] for time, key, size in zip(times, keys, sizes)]
        head = {"codec": codec, "width": width, "height": height, "fps": fps, "pictures": pictures}
        with open(file, "wb") as out:
            out.write(json.dumps(head).encode() + b"\n" + data)


def packets(file):
    command = ["ffprobe", "-loglevel", "error", "-show_entries", "packet=pts_time,size,flags", "-of", "json", file]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["packets"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--codecs", default="h264,h264,h264,h265", help="a list goes round the cameras")
    parser.add_argument("--b-frames", default="0,2,0,0")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    width, height = (int(n) for n in args.size.split("x"))
    codecs, b_frames = args.codecs.split(","), [int(n) for n in args.b_frames.split(",")]
    os.makedirs(args.out, exist_ok=True)
    for n in range(args.cameras):
        file = os.path.join(args.out, f"cam{n + 1}.clip")
        make(file, n + 1, codecs[n % len(codecs)], b_frames[n % len(b_frames)], width, height, args.fps, args.seconds)


if __name__ == "__main__":
    main()
