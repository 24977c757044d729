"""report.json and report.md."""
import datetime
import json

# what is to be reached, in the order of the table: id, what, goal
GOALS = [
    ("kernel-copy", "fused kernel: share of the device-to-device copy rate of the same run, batches of 16 to 64", "at least 80 %"),
    ("kernel-torch", "fused kernel against torch or CV-CUDA doing the same", "faster"),
    ("decode-exact", "decoded frames against FFmpeg's", "bit-exact"),
    ("decode-rate", "decode rate against PyNvVideoCodec, all engines busy", "at least 95 %"),
    ("colour", "colour against the f64 reference, u8", "at most 1/255, PSNR over 50 dB"),
    ("handover", "hand-over of a 1080p frame, producer's event to consumer's kernel, p50", "under 100 us"),
    ("handover-one-process", "the same between two stages of one process", "under 20 us"),
    ("handover-copies", "frame bytes copied by the hand-over", "0"),
    ("graph-rate", "the whole graph against one Python process (PyNvVideoCodec, torch, onnxruntime)", "at least as fast"),
    ("camera-cpu", "CPU of a 1080p30 camera beyond demuxing", "under 1 % of a core"),
    ("nv12-rate", "NV12 against BGR24 made on the GPU, up to the tensor, saturated: frames a second", "1.15 times, by the whole interval"),
    ("nv12-traffic", "the same: bytes of frames that our code moved", "at most half"),
    ("streams-rate", "streams and events against threads that wait, whole graph, saturated: frames a second", "1.10 times, by the whole interval"),
    ("live-rate", "live cameras: the rate of every camera", "within 2 % of its clip's"),
    ("live-lost", "live cameras: frames lost", "0"),
    ("live-age-8", "8 live cameras without B-frames: age of a frame's detections, p50", "at most 10 ms"),
    ("live-age-100", "100 live cameras: the same, p99 of the worst camera", "at most 60 ms"),
    ("live-cpu", "100 live cameras: CPU of a camera, all nodes", "under 2 % of a core"),
    ("live-batch", "64 live cameras and more: frames a launch, with no setting", "at least 4"),
    ("live-end", "live cameras: from an interrupt to the end, no node killed", "at most 3 s"),
    ("detector-share", "the whole graph, saturated, two batches in flight, against its engine alone at the same batch", "at least 90 %"),
    ("trt-own", "trt-infer's engine, two batches in flight, against TensorRT's own loop over it", "at least 90 %"),
    ("hold", "cameras of 1080p30 with RT-DETR R50 in 16-bit floats: all at full rate, p95 under 100 ms", "50"),
    ("overload-shares", "overload: share of every camera over the mean", "within 10 %"),
    ("overload-age", "overload: age of a frame's detections, p99 of the worst camera", "bounded: at most 1.5 s"),
    ("overload-recovery", "overload: until every camera has all of its frames, after the load fell", "at most 1 s"),
    ("recovery", "kill -9 of a GPU node until detections flow again", "they do; nothing is left"),
]
STAND_IN = "ON THE STAND-IN FOR THE DRIVER: no GPU was used, nothing was measured."


def shown(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def write(suite, manifest):
    on_stand_in = suite.stand_in is not None
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "on_the_stand_in": on_stand_in,
        "bundle": {k: v for k, v in manifest.items() if k != "sha256"},
        "steps": [
            {
                "name": step.name,
                "about": step.about,
                "verdict": step.verdict,
                "seconds": round(step.seconds, 1),
                "commands": step.commands,
                "figures": step.figures,
                "notes": step.notes,
                "faults": step.faults,
            }
            for step in suite.steps
        ],
    }
    (suite.out / "report.json").write_text(json.dumps(facts, indent=1) + "\n")
    (suite.out / "report.md").write_text(page(suite, facts))


def page(suite, facts):
    lines = ["# GPU suite", ""]
    if facts["on_the_stand_in"]:
        lines += [f"**{STAND_IN}**", ""]
    commit = facts["bundle"].get("commit", "unknown")
    lines += [f"{facts['date']}, commit {commit}{' with changes' if facts['bundle'].get('changed_since') else ''}", ""]
    figures = [(step, figure) for step in suite.steps for figure in step.figures]
    if not facts["on_the_stand_in"]:
        lines += ["| what | goal | measured | verdict |", "|---|---|---|---|"]
        for key, what, goal in GOALS:
            found = [figure for _, figure in figures if figure["goal"] == key]
            measured = "; ".join(f"{f['name']}: {shown(f['value'])} {f['unit']}".strip() for f in found) or "not measured"
            met = [f["met"] for f in found if f["met"] is not None]
            verdict = "not measured" if not found else "reached" if met and all(met) else "short" if met else "no verdict"
            lines.append(f"| {what} | {goal} | {measured} | {verdict} |")
        lines.append("")
    lines += ["| step | verdict | seconds | what |", "|---|---|---|---|"]
    lines += [f"| {s.name} | {s.verdict} | {s.seconds:.1f} | {s.about} |" for s in suite.steps]
    for step in (s for s in suite.steps if s.verdict != "not asked"):
        lines += ["", f"## {step.name}: {step.verdict}", ""]
        lines += [f"    {command['command']}" for command in step.commands[:12]]
        if len(step.commands) > 12:
            lines.append(f"    ... and {len(step.commands) - 12} more, in report.json")
        lines += ["", *(f"- {note}" for note in step.notes)]
        lines += [f"- FAULT: {fault.splitlines()[0]}" for fault in step.faults]
        plain = [f for f in step.figures if not isinstance(f["value"], (dict, list))]
        if plain:
            lines += ["", "| figure | value | unit |", "|---|---|---|"]
            lines += [f"| {f['name']} | {shown(f['value'])} | {f['unit']} |" for f in plain]
        for f in (f for f in step.figures if isinstance(f["value"], (dict, list))):
            lines += ["", f"{f['name']}:", "", "```json", json.dumps(f["value"], indent=1), "```"]
    return "\n".join(lines) + "\n"
