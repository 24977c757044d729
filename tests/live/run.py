#!/usr/bin/env python3
"""Proves what becomes of each picture of live cameras: numbers in the pictures, a real RTSP server, faults on purpose.

    tests/live/run.py --cameras 4 --seconds 20 --faults short --json result.json

Starts cameras (camera.py, GStreamer's RTSP server), writes a graph, runs it with `millrace run`, reads the detections of the
page as any client would, and holds the numbers that arrived against those that were sent. Exit code 0 when everything is as
it has to be, 1 when not, 77 when the RTSP server's packages are not installed (with MILLRACE_CI=1 that is a failure).
Needs the packages of tests/clients/requirements.txt on PYTHONPATH; target/tools/python is looked at too.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter, defaultdict

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "target/tools/python")]

import faults as faults_of  # noqa: E402
import graph  # noqa: E402
import verdict  # noqa: E402
from fleet import Camera, Missing, free_port  # noqa: E402
from watch import Page, Reports, Run, Stats, memory_kib  # noqa: E402

SEEN_MS, HEALED_MS = 3000, 10_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--codecs", default="h264", help="h264, h265; a list goes round the cameras")
    parser.add_argument("--b-frames", default="0", help="a list goes round the cameras: 0,2")
    parser.add_argument("--transports", default="tcp", help="tcp, udp; a list goes round the cameras")
    parser.add_argument("--loss", default="0", help="share of RTP packets that are dropped; a list goes round the cameras")
    parser.add_argument("--seconds", type=float, default=15, help="how long all runs undisturbed, before the faults")
    parser.add_argument("--faults", default="none", help="none, short, full, or KIND:TARGET[:SECONDS[:DETAIL]], separated by spaces")
    parser.add_argument("--shape", choices=("one", "chains"), default="one", help="one graph for all, or a chain for each camera")
    parser.add_argument("--detector", choices=("cpu-infer", "ort-infer"), default="cpu-infer")
    parser.add_argument("--zenoh", action="store_true", help="with a zenoh-publisher in the graph")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="for the graph's env")
    parser.add_argument("--stale-ms", type=float, default=1000)
    parser.add_argument("--gap-ms", type=float, default=200, help="largest gap of the cameras that no fault was for")
    parser.add_argument("--max-lost", type=int, default=0, help="pictures that may be missing inside a connection without a fault")
    parser.add_argument("--json", help="file for all figures")
    parser.add_argument("--keep", help="folder for the graph, the records and the logs; kept")
    return parser.parse_args()


def fleet(args, folder):
    width, height = (int(n) for n in args.size.split("x"))
    codecs, b_frames = args.codecs.split(","), [int(n) for n in args.b_frames.split(",")]
    transports, losses = args.transports.split(","), [float(n) for n in args.loss.split(",")]
    return [
        Camera(
            n + 1, folder, width=width, height=height, fps=args.fps, codec=codecs[n % len(codecs)],
            b_frames=b_frames[n % len(b_frames)], transport=transports[n % len(transports)], loss=losses[n % len(losses)], seed=n,
        )
        for n in range(args.cameras)
    ]  # fmt: skip


def onnxruntime():
    folder = os.path.join(ROOT, "target/tools/onnxruntime/onnxruntime/capi")
    found = [name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if name.startswith("libonnxruntime.so")]
    if not found:
        raise SystemExit("no ONNX Runtime in target/tools/onnxruntime: tests/run installs it")
    return os.path.join(folder, found[0])


def parse_faults(text, cameras, nodes):
    if text in faults_of.SUITES:
        return faults_of.SUITES[text](cameras, nodes)
    made = []
    for part in text.split():
        kind, target, *rest = part.split(":", 3)
        detail = json.loads(rest[1]) if len(rest) > 1 else None
        made.append(faults_of.Fault(kind, target, float(rest[0]) if rest else 0.0, detail))
    return made


class Watched:
    """Everything that is known of the running graph."""

    def __init__(self, run, pages, stats, reports):
        self.run, self.pages, self.stats, self.reports = run, pages, stats, reports

    def seen(self, camera):
        messages = [m for page in self.pages for m in page.seen if m.source == camera]
        return sorted(messages, key=lambda m: m.ns) if len(self.pages) > 1 else messages

    def first_sight_ms(self, camera, fault_ns):
        """When /stats or a node's report first said that the camera is not live."""
        times = []
        for states in [s.states(camera) for s in self.stats] + list(self.reports.states.get(camera, {}).values()):
            times += [ns for ns, state in list(states) if ns >= fault_ns and state not in (None, "live")][:1]
        return round((min(times) - fault_ns) / 1e6, 1) if times else None

    def drops(self, camera):
        """Losses that nodes counted for a camera, of all their processes."""
        by_cause = Counter()
        for _, report in list(self.reports.last.values()):
            for drop in report["drops"]:
                if drop["source"] == camera:
                    by_cause[drop["cause"]] += drop["value"]
        return by_cause

    def counted(self, name, camera, nodes):
        values = [
            c["value"]
            for (node, _), (_, report) in list(self.reports.last.items())
            for c in report["counters"]
            if c["name"] == name and c["source"] == camera and node in nodes
        ]
        return sum(values) if values else None


def start_cameras(cameras):
    try:
        for camera in cameras:
            camera.start()
    except Missing as missing:
        needed = os.environ.get("MILLRACE_CI") == "1"
        print(f"{'FAILED' if needed else 'skipped'}: the RTSP server's packages are missing: {missing}")
        print("Debian: gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base, -good, -bad, -ugly")
        sys.exit(1 if needed else 77)


def wait_for(what, limit_s, is_so):
    until = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > until:
            return f"{what}: not after {limit_s} s"
        time.sleep(0.05)
    return None


def go_through(suite, cameras, watched, problems):
    """One fault after the other, each until all is well again."""
    histories = lambda c: c.history()  # noqa: E731
    for fault in suite:
        faults_of.apply(fault, cameras, watched.run)
        hit = cameras if fault.of_node else [c for c in cameras if c.id == fault.target]
        healed = {}
        until = time.monotonic() + 30
        while time.monotonic() < until and len(healed) < len(hit):
            time.sleep(0.2)
            for camera in hit:
                if camera.id not in healed:
                    ms = verdict.healed_ms(histories(camera), watched.seen(camera.id), fault.cure_ns)
                    if ms is not None:
                        healed[camera.id] = ms
        time.sleep(2)
        end_ns = time.monotonic_ns()
        result = fault.result
        result["healed_ms"] = {c.id: healed.get(c.id) for c in hit}
        result["seen_ms"] = {c.id: watched.first_sight_ms(c.id, fault.fault_ns) for c in hit}
        others = [c for c in cameras if c not in hit]
        result["others_gap_ms"] = {c.id: verdict.largest_gap_ms(watched.seen(c.id), fault.fault_ns, end_ns) for c in others}
        result["hit_gap_ms"] = {c.id: verdict.largest_gap_ms(watched.seen(c.id), fault.fault_ns, end_ns) for c in hit}
        result["from_before_ms"] = {
            c.id: late for c in hit if (late := verdict.shown_from_before_ms(c.history(), watched.seen(c.id), fault.fault_ns, fault.cure_ns))
        }
        fault.end_ns = end_ns
        print(f"  {fault.name}: {json.dumps(result)}", flush=True)
        if watched.run.process.poll() is not None:
            problems.append(f"{fault.name}: the whole graph ended")
            return


def judge_faults(suite, gap_limit_ms, problems):
    for fault in suite:
        result = fault.result
        for camera, ms in result.get("healed_ms", {}).items():
            if ms is None or ms > HEALED_MS:
                problems.append(f"{fault.name}: {camera} was healed after {ms} ms; {HEALED_MS} ms are allowed")
        for camera, ms in result.get("seen_ms", {}).items():
            brief = fault.kind in ("cut", "media", "kill") or fault.of_node
            if not brief and (ms is None or ms > SEEN_MS):
                problems.append(f"{fault.name}: that {camera} is not live was seen after {ms} ms; {SEEN_MS} ms are allowed")
        for camera, ms in result.get("others_gap_ms", {}).items():
            if ms > gap_limit_ms:
                problems.append(f"{fault.name}: {camera}, which it was not for, had a gap of {ms} ms; {gap_limit_ms:g} ms are allowed")
        for camera, ages in result.get("from_before_ms", {}).items():
            if fault.seconds >= 1:
                problems.append(f"{fault.name}: {camera} showed pictures from before it afterwards, {ages[:5]} ms old")


def table(cameras):
    head = ("camera", "sent", "received", "delivered", "missing", "join/cut/outage/inside", "named", "mixed", "again", "back", "stale", "age p50/p99/max ms", "from sending")
    rows = [head]
    for name, c in cameras.items():
        m = c["missing"]
        age, net = c["age_from_made_ms"], c["age_from_sent_ms"]
        rows.append((
            name, c["sent"], "-" if c["received"] is None else c["received"], c["delivered"], m["all"], f"{m['before_join']}/{m['at_cut']}/{m['outage']}/{m['inside']}",
            " ".join(f"{k}:{v}" for k, v in c["named_losses"].items()) or "-", c["mixed"], c["repeated"], c["backwards"], len(c["stale"]),
            "/".join(str(age.get(k, "-")) for k in ("p50", "p99", "max")), "/".join(str(net.get(k, "-")) for k in ("p50", "p99", "max")),
        ))  # fmt: skip
    widths = [max(len(str(row[n])) for row in rows) for n in range(len(head))]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def measure(args, folder):
    cameras = fleet(args, folder)
    problems = []
    env = dict(pair.split("=", 1) for pair in args.env)
    library = onnxruntime() if args.detector == "ort-infer" else None
    ports = [free_port() for _ in cameras] if args.shape == "chains" else [free_port()]
    run, over = None, []
    try:
        start_cameras(cameras)
        if args.shape == "chains":
            nodes = graph.chains(cameras, ports, args.detector, library, args.zenoh)
        else:
            nodes = graph.one(graph.cameras_file(folder, cameras), ports[0], args.detector, library, args.zenoh)
        run = Run(graph.write(folder, nodes, env), folder)
        ids = {node["id"] for node in nodes}
        if (late := wait_for("all nodes run", 60, lambda: set(run.nodes()[0]) >= ids or run.process.poll() is not None)) or run.process.poll() is not None:
            raise SystemExit(f"the graph did not start: {late or 'it ended'}\n" + "\n".join(line for _, line in run.lines[-30:]))
        reports = Reports(run.nodes()[1])
        pages, stats = [Page(port) for port in ports], [Stats(port) for port in ports]
        over = [reports, *pages, *stats]
        for thread in over:
            thread.start()
        watched = Watched(run, pages, stats, reports)
        if late := wait_for("every camera is seen", 60, lambda: all(watched.seen(c.id) for c in cameras) or run.process.poll() is not None):
            problems.append(late)
        print(f"{len(cameras)} cameras, {len(ids)} nodes; {args.seconds:g} s undisturbed", flush=True)
        began_ns = time.monotonic_ns()
        time.sleep(args.seconds)
        quiet_ns = time.monotonic_ns()
        pids = list(run.nodes()[0].values())
        memory = memory_kib(pids)
        quiet_gap = {c.id: verdict.largest_gap_ms(watched.seen(c.id), began_ns, quiet_ns) for c in cameras}
        suite = parse_faults(args.faults, cameras, [n["id"] for n in nodes])
        go_through(suite, cameras, watched, problems)
        # nothing more is sent, so that all that was sent can arrive before it is counted
        for camera in cameras:
            if camera.process is not None:
                camera.command(stall=True)
        time.sleep(1.5)
        code, stop_s = run.stop()
    finally:
        if run is not None:
            run.stop()
        for camera in cameras:
            camera.close()
        for thread in over:
            thread.over.set()
        for thread in over:
            thread.join(3)
    judge_faults(suite, args.gap_ms, problems)
    result = {
        "command": " ".join(sys.argv), "machine": f"{platform.machine()}, {os.cpu_count()} cores", "quiet_s": args.seconds, "memory_pss_kib": memory,
        "processes": len(pids), "stop_s": round(stop_s, 2), "exit_code": code, "quiet_gap_ms": quiet_gap, "reports": reports.count, "cameras": {},
        "faults": [{"name": f.name, **f.result} for f in suite],
    }  # fmt: skip
    outages = [(f.fault_ns - 200_000_000, f.end_ns) for f in suite if f.of_node]
    first_nodes = {n["id"] for n in nodes if n["id"].startswith("decode")}
    for camera in cameras:
        seen, history = watched.seen(camera.id), camera.history()
        received = watched.counted("received", camera.id, first_nodes)
        result["cameras"][camera.id] = judged = verdict.judge(camera.number, history, seen, watched.drops(camera.id), received, outages, args.stale_ms)
        quiet = [m for m in seen if began_ns <= m.ns <= quiet_ns]
        judged["quiet"] = verdict.judge(camera.number, history, quiet, {})
        judged["quiet"] = {key: judged["quiet"][key] for key in ("age_from_made_ms", "age_from_sent_ms", "largest_gap_ms", "delivered")}
        problems += [f"{camera.id}: {text}" for text in judged["problems"]]
        if not suite and judged["missing"]["inside"] > args.max_lost:
            problems.append(f"{camera.id}: {judged['missing']['inside']} pictures were lost though nothing was done: {judged['named_losses']}")
    problems += [f"page: {text}" for page in pages for text in page.problems[:3]]
    if lost := sum(page.gaps for page in pages):
        problems.append(f"this client was too slow for {lost} detections: the figures are not complete")
    by_node = defaultdict(Counter)
    for (node, _), (_, report) in reports.last.items():
        for drop in report["drops"]:
            by_node[f"{node}/{drop['port']}"][drop["cause"]] += drop["value"]
    result["drops_by_node"] = {node: dict(causes) for node, causes in by_node.items()}
    result["problems"] = problems
    result["ok"] = not problems
    return result


def main():
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="millrace-live-") as temporary:
        folder = args.keep or temporary
        os.makedirs(folder, exist_ok=True)
        result = measure(args, folder)
    print(table(result["cameras"]))
    print(f"memory {result['memory_pss_kib'] / 1024:.0f} MiB (PSS) in {result['processes']} processes; ended in {result['stop_s']} s with exit code {result['exit_code']}")
    for node, causes in result["drops_by_node"].items():
        print(f"dropped at {node}: {causes}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)
    for problem in result["problems"]:
        print(f"PROBLEM {problem}")
    print("all as it has to be" if result["ok"] else f"{len(result['problems'])} problems")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
