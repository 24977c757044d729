#!/usr/bin/env python3
"""Eight small RTSP cameras on a CPU: one graph of five processes against eight chains of nodes.

    tests/live/bench.py                      10 minutes of the one graph without B-frames, 10 with, 1 of the chains
    tests/live/bench.py --seconds 60         shorter

Prints frames lost, ages, memory (PSS of all nodes) and processor time as a table in Markdown; all of it comes from run.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--chains-seconds", type=float, default=60)
    parser.add_argument("--detector", default="cpu-infer")
    parser.add_argument("--only", help="one of the rows, by its name")
    parser.add_argument("--json", help="file for all figures")
    return parser.parse_args()


def run(args, name, seconds, *more):
    command = [
        sys.executable, os.path.join(HERE, "run.py"), f"--cameras={args.cameras}", f"--size={args.size}", f"--fps={args.fps}",
        f"--seconds={seconds}", f"--detector={args.detector}", "--zenoh", *more,
    ]  # fmt: skip
    print(f"{name}: {' '.join(command[1:])}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        done = subprocess.run([*command, f"--json={path}"], stdout=sys.stderr)
        if not os.path.exists(path):
            raise SystemExit(done.returncode or 1)
        with open(path) as file:
            return json.load(file)


def row(name, result):
    cameras = result["cameras"].values()
    worst = lambda which, q: max((c["quiet"][which].get(q, float("nan")) for c in cameras), default=float("nan"))  # noqa: E731
    sent, delivered = sum(c["sent"] for c in cameras), sum(c["delivered"] for c in cameras)
    lost = sum(c["missing"]["all"] - c["missing"]["at_cut"] for c in cameras)
    cores = sum(result["cpu_share"].values())
    return [
        name, result["processes"], sent, delivered, lost, worst("age_from_sent_ms", "p50"), worst("age_from_sent_ms", "p99"), worst("age_from_sent_ms", "max"),
        f"{result['memory_pss_kib'] / 1024:.0f}", f"{cores:.2f}", "yes" if result["ok"] else f"no: {len(result['problems'])} problems",
    ]  # fmt: skip


def main():
    args = arguments()
    plan = {
        "one graph": (args.seconds, "--shape=one"),
        "one graph, B-frames": (args.seconds, "--shape=one", "--b-frames=2"),
        "chains": (args.chains_seconds, "--shape=chains", "--max-lost=-1"),
    }
    results = {name: run(args, name, *how) for name, how in plan.items() if args.only in (None, name)}
    print(f"{args.cameras} cameras of {args.size} at {args.fps} fps, {args.detector}, {next(iter(results.values()))['machine']}\n")
    head = ["graph", "processes", "sent", "delivered", "lost", "age p50 ms", "age p99 ms", "age max ms", "memory MiB (PSS)", "cores", "all as it has to be"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, result in results.items():
        print("| " + " | ".join(map(str, row(name, result))) + " |")
    print("\nAges run from the last packet of a frame to its detections at a WebSocket client, of the worst camera.")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)
    return 0 if all(r["ok"] for name, r in results.items() if name != "chains") else 1


if __name__ == "__main__":
    sys.exit(main())
