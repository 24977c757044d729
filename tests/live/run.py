#!/usr/bin/env python3
"""Proves what becomes of each picture of live cameras: numbers in the pictures, a real RTSP server, faults on purpose.

    tests/live/run.py --cameras 4 --seconds 20 --faults short --json result.json

Starts cameras (camera.py, GStreamer's RTSP server), writes a graph, runs it with `millrace run`, reads the detections of the
page as any client would, and holds the numbers that arrived against those that were sent. Exit code 0 when everything is as
it has to be, 1 when not, 77 when the RTSP server's packages are not installed and not required (tests/needs).
Needs the packages of tests/clients/requirements.txt on PYTHONPATH; target/tools/python is looked at too.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests/needs"), os.path.join(ROOT, "target/tools/python")]

import faults as faults_of  # noqa: E402
import session as session_of  # noqa: E402
import verdict  # noqa: E402
from fleet import Missing, camera_arguments, fleet  # noqa: E402
from needs import skip_without  # noqa: E402

# /stats is asked five times a second
SEEN_MS, HEALED_MS, STOP_S = 3000 + 200, 10_000, 3.0
WARM_S = 120
# between the 20th round of reconnections and the last: threads come and go, and a picture more may be on its way
MOST_GROWTH = {"pss_kib": 16 << 10, "fds": 8, "threads": 4, "shared_maps": 8}
CALM_MS = 1000  # from the fall of a load that was too much to the last picture that is older than usual


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=4)
    camera_arguments(parser)
    parser.add_argument("--loss", default="0", help="share of RTP packets that are dropped; a list goes round the cameras")
    parser.add_argument("--join-amid", type=int, default=0, help="connections begin so many pictures behind a key picture")
    parser.add_argument("--seconds", type=float, default=15, help="how long all runs undisturbed, before the faults")
    parser.add_argument("--faults", default="none", help="none, short, full, or KIND:TARGET[:SECONDS[:DETAIL]], separated by spaces")
    parser.add_argument("--first", default="none", help="faults that are there before the graph starts: none, first, or as above")
    parser.add_argument("--model", default="model", choices=("model", "model-slow"), help="model-slow: the detector cannot keep up")
    parser.add_argument("--fair-percent", type=float, help="each camera's pictures of the undisturbed time are so near to the mean")
    parser.add_argument("--age-p99-ms", type=float, help="largest p99 of the age from sending, of the undisturbed time")
    parser.add_argument("--shape", choices=("one", "fan-in", "chains"), default="one",
                        help="one decoder process for all cameras; a decoder for each, and the rest for all; a chain for each")
    parser.add_argument("--runner", choices=("millrace", "dora"), default="millrace")
    parser.add_argument("--detector", choices=("cpu-infer", "ort-infer"), default="cpu-infer")
    parser.add_argument("--zenoh", action="store_true", help="with a zenoh-publisher in the graph")
    parser.add_argument("--pictures", action="store_true", help="the page gets packets and frames too, as in graphs/cameras.yml")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="for the graph's env")
    parser.add_argument("--stale-ms", type=float, default=1000)
    parser.add_argument("--gap-ms", type=float, default=200, help="largest gap of the cameras that no fault was for")
    parser.add_argument("--max-lost", type=int, default=0, help="pictures that may be missing inside a connection without a fault; -1 for any")
    parser.add_argument("--json", help="file for all figures")
    parser.add_argument("--keep", help="folder for the graph, the records and the logs; kept")
    args = parser.parse_args()
    if args.clips and (args.loss != "0" or args.join_amid):
        parser.error("cameras that play clips lose no packets, and begin at key pictures: leave --loss and --join-amid out")
    return args


def parse_faults(text, cameras, nodes):
    if text in faults_of.SUITES:
        return faults_of.SUITES[text](cameras, nodes)
    made = []
    for part in text.split():
        kind, target, *rest = part.split(":", 3)
        detail = json.loads(rest[1]) if len(rest) > 1 else None
        made.append(faults_of.Fault(kind, target, float(rest[0]) if rest else 0.0, detail))
    return made


def start_cameras(cameras):
    try:
        for camera in cameras:
            camera.start()
    except Missing as missing:
        skip_without("gstreamer", missing)
        sys.exit(77)


def judge_growth(when, by_node, problems):
    for node, growth in by_node.items():
        if grown := {what: by for what, by in growth.items() if by > MOST_GROWTH[what]}:
            problems.append(f"{when}: {node} has grown by {grown}; {MOST_GROWTH} are allowed")


def judge_faults(suite, gap_limit_ms, problems):
    before = {}
    for fault in suite:
        result = fault.result
        for camera, left in result.get("unaccounted", {}).items():
            # what a killed process had counted is gone with it, for good
            least = -verdict.MOST_HELD if camera in before else 0
            if not least <= left - before.get(camera, 0) <= verdict.MOST_HELD and fault.kind != "kill":
                problems.append(f"{fault.name}: {left} pictures of {camera} were received and neither delivered nor named, {before.get(camera, 0)} before it")
            if fault.kind == "kill":
                before[camera] = left
        for camera, ms in result.get("healed_ms", {}).items():
            if ms is None or ms > HEALED_MS:
                problems.append(f"{fault.name}: {camera} was healed after {ms} ms; {HEALED_MS} ms are allowed")
        for camera, ms in result.get("seen_ms", {}).items():
            if ms is None or ms > SEEN_MS:
                problems.append(f"{fault.name}: that {camera} is not live was seen after {ms} ms; {SEEN_MS} ms are allowed")
        for camera, ms in result.get("others_gap_ms", {}).items():
            if ms > gap_limit_ms:
                problems.append(f"{fault.name}: {camera}, which it was not for, had a gap of {ms} ms; {gap_limit_ms:g} ms are allowed (the machine itself was late by {result.get('machine_late_ms', 0)} ms)")
        if fault.kind == "stop" and fault.seconds >= 4 and (result["hang_seen_ms"] or 1e9) > SEEN_MS + 500:
            problems.append(f"{fault.name}: 'millrace run' reported that it hangs after {result['hang_seen_ms']} ms; {SEEN_MS} ms are allowed")
        if fault.kind == "calm":
            calm = result["calm"]
            if calm["recovered_ms"] > CALM_MS or calm["delivered"] < calm["sent_after_1_s"]:
                problems.append(f"{fault.name}: after the load fell: {calm}; no loss is allowed, and ages as usual after {CALM_MS} ms")
        judge_growth(fault.name, result.get("growth", {}), problems)
        if fault.kind == "churn" and result["came_back"] < result["connections"]:
            problems.append(f"{fault.name}: pictures came back after {result['came_back']} of {result['connections']} connections")
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
    losses = [float(n) for n in args.loss.split(",")]
    more = {} if args.clips else {"loss": lambda n: losses[n % len(losses)], "join_amid": args.join_amid}
    cameras = fleet(args, folder, **more)
    session = session_of.Session(args, folder, cameras)
    suite, first = parse_faults(args.faults, cameras, session.ids), parse_faults(args.first, cameras, session.ids)
    try:
        start_cameras(cameras)
        session.begin_first(first)
        session.start()
        well = [c for c in cameras if not any(c in f.hits(cameras) for f in first)]
        if late := session_of.wait_for("every camera is seen", 60, lambda: all(session.seen(c.id) for c in well) or session.ended):
            session.problems.append(late)
        session.end_first(first)
        print(f"{len(cameras)} cameras, {len(session.ids)} nodes; {args.seconds:g} s undisturbed", flush=True)
        before, began_ns = session.usage(), time.monotonic_ns()
        # what a process keeps room for is there after so long
        time.sleep(min(WARM_S, args.seconds))
        warm = session.resources()
        time.sleep(max(0, args.seconds - WARM_S))
        after, quiet_ns = session.usage(), time.monotonic_ns()
        held = session.resources()
        session.go_through(suite)
        # nothing more is sent, so that all that was sent can arrive before it is counted; pictures that a decoder holds for
        # their order come out, or are counted, once it has seen that the camera has stalled
        session.end_ns = time.monotonic_ns()
        for camera in cameras:
            if camera.process is not None:
                camera.command(stall=True)
        time.sleep(5)
        code, stop_s = session.run.stop()
    finally:
        session.close()
        for camera in cameras:
            camera.close()
    result = {
        "command": " ".join(sys.argv), "machine": f"{platform.machine()}, {os.cpu_count()} cores", "load_average": os.getloadavg(), "machine_late_ms": session.machine.worst_ms(began_ns, quiet_ns), "quiet_s": args.seconds,
        "memory_pss_kib": sum(h["pss_kib"] for h in held.values()), "processes": len(held), "held": held, "stop_s": round(stop_s, 2), "exit_code": code,
        "cpu_share": {node: round((ns - before[node]) / (quiet_ns - began_ns), 4) for node, ns in after.items() if node in before},
        "cameras": {}, "faults": [{"name": f.name, **f.result} for f in [*first, *suite]],
    }  # fmt: skip
    problems = session.problems
    result["growth"] = {node: {what: h[what] - warm[node][what] for what in MOST_GROWTH} for node, h in held.items() if node in warm}
    judge_growth("undisturbed", result["growth"], problems)
    judge_faults([*first, *suite], args.gap_ms, problems)
    judge_cameras(args, session, [*first, *suite], (began_ns, quiet_ns), result)
    by_node = defaultdict(Counter)
    for (node, _), (_, report) in session.reports.last.items():
        for drop in report["drops"]:
            by_node[f"{node}/{drop['port']}"][drop["cause"]] += drop["value"]
    result["drops_by_node"] = {node: dict(causes) for node, causes in by_node.items()}
    rows, unequal = verdict.hops(session.nodes, [report for _, report in session.reports.last.values()], [c.id for c in cameras])
    result["hops"] = rows
    result["counters"] = [
        {"node": node, "pid": pid, **{key: report[key] for key in ("state", "counters", "drops")}} for (node, pid), (_, report) in session.reports.last.items()
    ]
    if not any(f.kind == "kill" for f in suite):  # the counters of a killed process are those of its last report
        problems += unequal
    if session.zenoh is not None:
        judge_zenoh(args, session, [*first, *suite], result)
    problems += [f"page: {text}" for page in session.pages for text in page.problems[:3]]
    if lost := sum(page.gaps for page in session.pages):
        problems.append(f"this client was too slow for {lost} detections: the figures are not complete")
    if stop_s > STOP_S:
        problems.append(f"it ended {stop_s:.1f} s after the stop; {STOP_S} s are allowed")
    result["problems"], result["ok"] = problems, not problems
    return result


def judge_zenoh(args, session, suite, result):
    """The second sink: what was sent since its subscriber got the first picture of the camera."""
    result["zenoh"] = {}
    path = verdict.path_to(session.nodes, ["zenoh"])
    for camera in session.cameras:
        seen = [m for m in session.zenoh.seen if m.source == camera.id]
        history = camera.history().since(next((m.stamp for m in seen if m.stamp), None))
        judged = verdict.judge(camera.number, history, seen, {}, None, outages(suite), args.stale_ms, session.unix_offset_ns, True, session.end_ns)
        result["zenoh"][camera.id] = judged
        named = sum(session.drops(camera.id, path).values())
        session.problems += [f"zenoh, {camera.id}: {text}" for text in judged["problems"] if "without a name" not in text]
        if judged["missing"]["inside"] > named:
            session.problems.append(f"zenoh, {camera.id}: {judged['missing']['inside']} pictures are missing, {named} have a name")
    session.problems += [f"zenoh: {text}" for text in session.zenoh.problems[:3]]


def outages(suite):
    return [(f.fault_ns - 200_000_000, f.end_ns) for f in suite if f.of_node]


def judge_cameras(args, session, suite, quiet_span, result):
    # what a killed process had counted is gone, and a stopped decoder closes connections with pictures that it never read
    killed = any(f.kind == "kill" for f in suite)
    unread = any(f.of_node and f.target in session.sources for f in suite)
    shares = {}
    for camera in session.cameras:
        seen, history = session.seen(camera.id), camera.history()
        received = session.counted("received", camera.id, session.sources)
        judged = verdict.judge(camera.number, history, seen, session.drops(camera.id, session.shown_by), received, outages(suite), args.stale_ms, session.unix_offset_ns, killed, session.end_ns, unread)
        quiet = [m for m in seen if quiet_span[0] <= m.ns <= quiet_span[1]]
        of_quiet = verdict.judge(camera.number, history, quiet, {})
        judged["quiet"] = {key: of_quiet[key] for key in ("age_from_made_ms", "age_from_sent_ms", "largest_gap_ms", "delivered")}
        result["cameras"][camera.id] = judged
        shares[camera.id] = of_quiet["delivered"]
        session.problems += [f"{camera.id}: {text}" for text in judged["problems"]]
        if not suite and args.max_lost >= 0 and not history.hurt and judged["missing"]["inside"] > args.max_lost:
            session.problems.append(f"{camera.id}: {judged['missing']['inside']} pictures were lost though nothing was done: {judged['named_losses']} (this client was woken up to {result['machine_late_ms']} ms too late)")
        p99 = judged["quiet"]["age_from_sent_ms"].get("p99")
        if args.age_p99_ms and (p99 is None or p99 > args.age_p99_ms):
            session.problems.append(f"{camera.id}: the age at p99 is {p99} ms; {args.age_p99_ms:g} ms are allowed")
    if args.fair_percent:
        mean = sum(shares.values()) / len(shares)
        for camera, share in shares.items():
            if abs(share / mean - 1) * 100 > args.fair_percent:
                session.problems.append(f"{camera}: {share} pictures, {share / mean * 100:.0f} % of its share; {args.fair_percent:g} % off are allowed")


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
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
