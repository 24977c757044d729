#!/usr/bin/env python3
"""Memory of each node of the demo, and whether it grows.

usage: tests/bench/memory.py [--minutes N]      (the nodes have to be built: tests/run does it)

Plays the demo's clip round and round in live flow and reads /proc/<pid>/status of each node every five seconds. Printed
for each: the peak of its resident memory (VmHWM), and of its own memory without files and pools (RssAnon) the mean of each
quarter of the time after a minute of warm-up. A leak grows from every quarter to the next; a heap that finds its size
does not.
"""
import argparse
import pathlib
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WARM_UP_S, EVERY_S = 60, 5


def children(pid):
    """All processes below `pid`."""
    below = [int(p) for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children") for p in task.read_text().split()]
    return below + [p for child in below for p in children(child)]


def status(pid):
    """The lines of /proc/<pid>/status that are sizes, in KiB."""
    lines = (line.split() for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0][:-1]: int(words[1]) for words in lines if words[-1] == "kB"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=21)
    minutes = parser.parse_args().minutes
    command = [ROOT / "target/release/millrace", "run", "graphs/demo.yml", "--no-build", "--quiet"]
    run = subprocess.Popen([*command, "--set", "decode.LOOP=true"], cwd=ROOT, stdout=subprocess.DEVNULL)
    samples, peak, begun = {}, {}, time.monotonic()
    while time.monotonic() - begun < minutes * 60:
        time.sleep(EVERY_S)
        if run.poll() is not None:
            sys.exit(f"the graph has ended with {run.returncode}")
        for pid in children(run.pid):
            try:
                exe = pathlib.Path(f"/proc/{pid}/exe").readlink()
                sizes = status(pid)
            except FileNotFoundError:
                continue  # it has ended meanwhile
            if exe.parent.name == "release":
                name = exe.name.removesuffix(" (deleted)")
                peak[name] = max(peak.get(name, 0), sizes["VmHWM"])
                if time.monotonic() - begun > WARM_UP_S:
                    samples.setdefault(name, []).append(sizes["RssAnon"])
    run.send_signal(signal.SIGINT)
    run.wait()
    print(f"{minutes:g} minutes, {len(next(iter(samples.values())))} samples of each; KiB")
    print(f"{'node':<18}{'peak resident':>14}   own memory, by quarter of the time")
    for name, series in samples.items():
        quarters = (series[len(series) * q // 4 : len(series) * (q + 1) // 4] for q in range(4))
        print(f"{name:<18}{peak[name]:>14}   {' '.join(f'{statistics.mean(quarter):>8.0f}' for quarter in quarters)}")


if __name__ == "__main__":
    main()
