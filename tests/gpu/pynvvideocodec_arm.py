#!/usr/bin/env python3
"""PyNvVideoCodec's decoding rate: so many sessions, each through the whole clip on a thread of its own. The other arm of the suite's step decode-rate.

usage: pynvvideocodec_arm.py CLIP --sessions N

Threads, which its own documentation recommends: its calls leave Python's lock alone while they work, and one CUDA context serves all. Frames stay in the GPU's memory, and nothing is done with them. The clock starts
when every session has given its first frames, so that making the sessions is not measured, and stops with the last session. Prints one JSON line.
"""
import argparse
import json
import sys
import threading
import time

import PyNvVideoCodec as nvc


class Clock:
    """Starts when all sessions are under way."""

    def __init__(self, sessions):
        self.began = None
        self.barrier = threading.Barrier(sessions, action=self.start)

    def start(self):
        self.began = time.perf_counter()


def session(clip, gpu, clock, counts, faults):
    try:
        demuxer = nvc.CreateDemuxer(filename=clip)
        decoder = nvc.CreateDecoder(gpuid=gpu, codec=demuxer.GetNvCodecId(), usedevicememory=True)
        frames, under_way = 0, False
        for packet in demuxer:
            got = len(decoder.Decode(packet))
            if under_way:
                frames += got
            elif got:
                under_way = True
                clock.barrier.wait()
        counts.append(frames)
    except Exception as e:
        faults.append(f"{type(e).__name__}: {e}")
        clock.barrier.abort()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--gpu", type=int, default=0)
    args = parser.parse_args()
    clock, counts, faults = Clock(args.sessions), [], []
    threads = [threading.Thread(target=session, args=(args.clip, args.gpu, clock, counts, faults)) for _ in range(args.sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        sys.exit(f"{len(faults)} of {args.sessions} sessions failed: {faults[0]}")
    seconds = time.perf_counter() - clock.began
    if min(counts) == 0:
        sys.exit("a session gave all its frames at once: the clip is too short")
    version = getattr(nvc, "__version__", "unknown")
    print(json.dumps({"sessions": args.sessions, "frames": sum(counts), "seconds": seconds, "fps": sum(counts) / seconds, "version": version}))


if __name__ == "__main__":
    main()
