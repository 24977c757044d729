"""Steps with live cameras: byte streams of 1080p at the pace of cameras."""
import json
import os
import signal
import statistics
import subprocess
import time

from lib import watch
from lib.checks import example
from lib.graphs import millrace, of_family, threads_cpu_s
from lib.suite import Failed

FPS = 30
NO_B, TWO_B, UNSTATED = "live-b0.mp4", "live-b2.mp4", "live-b2-unstated.264"
# 70 s of 5: a row is over before a stream repeats, which no camera does
REPEATS = 14
CLIPS = {NO_B: "no B-frames", TWO_B: "two B-frames", UNSTATED: "two B-frames, no bound on reordering stated"}
CAMERAS = (8, 64, 100, 140)
UNSTATED_COUNTS = (8, 64)
# the page tells ages of the last 10 s, and the start is not what is measured
MEASURED_S, BEGIN_LIMIT_S, SETTLE_S = 12, 60, 11
HEAVY = "made/heavy/model.yml"
NODES = ("decode", "to-rgb", "detect", "page")
# as graphs/gpu-cameras.yml has it
BATCH = 32

GRAPH = """env:
  FLOW: live
  LOG: warn
nodes:
  - id: decode
    path: {bin}/nvdec-nv12
    inputs: {{tick: dora/timer/secs/5}}
    outputs: [frame]
    restart_policy: never
    env:
      PACE: realtime
      LOOP: {loop}
      SOURCES: "{sources}"
  - id: to-rgb
    path: {bin}/nv12-to-rgb
    inputs: {{frame: decode/frame}}
    outputs: [tensor]
    restart_policy: never
    env: {{MODEL: "{model}"}}
  - id: detect
    path: {bin}/{detector}
    inputs: {{tensor: to-rgb/tensor}}
    outputs: [detections]
    restart_policy: never
    env: {detect}
  - id: page
    path: {bin}/ws-publisher
    inputs: {{detections: detect/detections}}
    restart_policy: never
    env: {{PORT: {port}}}
"""


class Run:
    """A graph of live cameras, from its start to its end."""

    def __init__(self, suite, step, name, clips, model, loop=True, detect=None, sets=(), env=None, restarts=0, detector="ort-infer"):
        self.suite, self.step, self.cameras = suite, step, list(clips)
        self.port, self.reports, self.ended_s = watch.free_port(), None, None
        sources = " ".join(f"{camera}={clip}" for camera, clip in clips.items())
        engine = {"PROVIDER": "cuda", "LIBRARY": str(suite.onnxruntime())} if detector == "ort-infer" else {}
        settings = {"MODEL": str(model), "BATCH": BATCH, **engine, **(detect or {})}
        # JSON is YAML
        values = {"bin": suite.target, "sources": sources, "model": model, "detector": detector, "detect": json.dumps(settings), "port": self.port}
        file = suite.out / f"{name}.yml"
        graph = GRAPH.format(loop="true" if loop else "false", **values)
        if restarts:
            policy = f"restart_policy: on-failure\n    max_restarts: {restarts}\n    restart_delay: 0.2"
            graph = graph.replace("restart_policy: never", policy)
        file.write_text(graph)
        self.process = step.start(millrace(suite, file, sets), env)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.reports:
            self.reports.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stats(self):
        if self.process.poll() is not None:
            raise Failed(f"the graph ended; the end of its log:\n{self.process.log.read_text(errors='replace')[-1500:]}")
        return watch.cameras_of(self.port)

    def begin(self, enough_fps=0.0):
        """Waits until every camera delivers; gives the seconds since the start."""
        deadline = time.monotonic() + BEGIN_LIMIT_S
        while True:
            stats = self.stats()
            if sum(1 for camera in stats.values() if camera["frames"] > 0 and camera["fps"] >= enough_fps) == len(self.cameras):
                break
            if time.monotonic() > deadline:
                raise Failed(f"{len(stats)} of {len(self.cameras)} cameras deliver within {BEGIN_LIMIT_S} s")
            time.sleep(0.2)
        began_s = time.monotonic() - self.process.began
        self.pids = {program: pid for program in watch.PROGRAMS for pid in of_family(self.process.pid, program)}
        try:
            self.reports = watch.Reports(next(iter(self.pids.values())))
        except (OSError, StopIteration) as e:
            self.step.note(f"the nodes' reports are not read: {e}")
        return began_s

    def look(self):
        counted = (self.reports.counted(), self.reports.lost()) if self.reports else ({}, {})
        cpu = {program: watch.cpu_s(pid) for program, pid in self.pids.items()}
        threads = {program: threads_cpu_s(pid) for program, pid in self.pids.items()}
        return {"at": time.monotonic(), "stats": self.stats(), "counted": counted, "cpu": cpu, "threads": threads}

    def measure(self, seconds):
        """What happens within so many seconds, as one row."""
        gpu, before = watch.GpuUse(), self.look()
        ages = {"p50": [], "p95": [], "p99": []}
        while time.monotonic() < before["at"] + seconds:
            time.sleep(1)
            for camera in self.stats().values():
                for share, found in ages.items():
                    found.append(watch.age_ms(camera, share))
        after, use = self.look(), gpu.means()
        duration = after["at"] - before["at"]

        def added(key):
            return [after["stats"][c][key] - before["stats"].get(c, {}).get(key, 0) for c in self.cameras if c in after["stats"]]

        ages = {share: [age for age in found if age is not None] for share, found in ages.items()}
        fps, count = [frames / duration for frames in added("frames")], len(self.cameras)
        counters = watch.differences(before["counted"][0], after["counted"][0])
        cpu = {program: (after["cpu"][program] - before["cpu"][program]) / duration for program in self.pids}
        threads = {
            program: {name: round(seconds / duration, 3) for name, seconds in names.items() if seconds > 0.01 * duration}
            for program, names in watch.differences(before["threads"], after["threads"]).items()
        }
        return {
            "cameras": count,
            "seconds": duration,
            "fps": {"min": min(fps, default=0), "median": statistics.median(fps or [0]), "max": max(fps, default=0), "all": sum(fps)},
            "missing": sum(added("missing")),
            "lost": watch.differences(before["counted"][1], after["counted"][1]),
            # the middle of all cameras, and the worst of them
            "age_ms": {"p50": statistics.median(ages["p50"]), **{share: max(ages[share], default=0) for share in ("p95", "p99")}} if ages["p50"] else None,
            "frames_a_launch": self.batches(counters),
            "cores": {program: round(share, 3) for program, share in cpu.items()},
            "cores_by_thread": threads,
            "cpu_percent_a_camera": 100 * sum(cpu.values()) / count,
            "decoder_cpu_percent_a_camera": 100 * cpu.get("nvdec-nv12", 0) / count,
            "gpu": use,
        }

    @staticmethod
    def batches(counters):
        """{node: frames a launch}, where its counters are there."""
        found = {}
        for node, frames, launches in (("to-rgb", "out", "launches"), ("detect", "out", "batches")):
            row = counters.get(node, {})
            if row.get(launches):
                found[node] = row.get(frames, 0) / row[launches]
        return found

    def end(self):
        """As Ctrl-C does; gives the seconds that it took and the nodes that were killed."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            raise Failed("the graph did not end within 20 s of an interrupt") from None
        self.ended_s = time.monotonic() - began
        rows = [line.split() for line in self.process.log.read_text(errors="replace").splitlines()]
        killed = {words[0] for words in rows if words and words[0] in NODES and "killed" in words}
        return self.ended_s, sorted(killed)


def clip(suite, name):
    return suite.need_data(f"made/{name}")


def long_stream(suite, name):
    """A byte stream that lasts longer than a row: byte streams one after the other are one."""
    file = suite.out / f"long-{name.split('.')[0]}.264"
    if not file.exists():
        file.write_bytes(REPEATS * clip(suite, name.replace(".mp4", ".264")).read_bytes())
    return file


def demo(suite):
    return suite.root / "tests/data/demo/model/model.yml"


def shown(row):
    """One row of the table in the report."""
    ages, fps, gpu = row["age_ms"] or {}, row["fps"], row["gpu"]
    lost = ", ".join(f"{node} {cause} {n}" for node, causes in row["lost"].items() for cause, n in causes.items()) or "none"
    batches = ", ".join(f"{node} {n:.1f}" for node, n in row["frames_a_launch"].items()) or "?"
    cores = " ".join(f"{cores:.2f}" for cores in row["cores"].values())
    return (
        f"| {row['cameras']} | {row['clip']} | {fps['min']:.2f} / {fps['median']:.2f} | {row['missing']} | {lost} | "
        f"{ages.get('p50', 0):.1f} / {ages.get('p99', 0):.1f} | {cores} | {row['cpu_percent_a_camera']:.2f} | {batches} | "
        f"{gpu.get('sm', 0):.0f}, {gpu.get('dec', 0):.0f}, {gpu.get('fb', 0):.0f} | {row['begin_s']:.1f}, {row['end_s']:.1f} | {', '.join(row['killed']) or 'none'} |"
    )


HEADER = (
    "| cameras | clip | fps a camera, min / median | missing | lost, by node and cause | age p50 / p99, ms | cores of decoder, converter, detector, page | "
    "% of a core a camera, all | frames a launch | SM %, NVDEC %, MiB | seconds to begin, to end | killed |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def live(suite, step):
    """Rows of N cameras with each clip."""
    rows = [HEADER]
    # cameras without B-frames in all numbers first: the most is known should the time run out
    plan = [(n, name) for name in CLIPS for n in suite.args.cameras or CAMERAS if name != UNSTATED or n in UNSTATED_COUNTS]
    for count, name in plan:
        what = f"{count} cameras, {CLIPS[name]}"
        try:
            row = one_row(suite, step, count, name)
        except Failed as e:
            step.fault(f"{what}: {e}")
            continue
        rows.append(shown(row))
        print(rows[-1], flush=True)
        judge(step, what, row, name)
        step.figure(what, row, "as named")
        (suite.out / "live.md").write_text("\n".join(rows) + "\n")
    for file in suite.out.glob("long-*.264"):
        file.unlink()
    for line in "\n".join(rows).splitlines():
        step.note(line)


def one_row(suite, step, count, name):
    source = long_stream(suite, name)
    with Run(suite, step, f"live-{count}-{name.split('.')[0]}", {f"cam{n:03}": source for n in range(count)}, demo(suite)) as run:
        begin_s = run.begin(enough_fps=FPS / 2)
        time.sleep(SETTLE_S)
        row = run.measure(MEASURED_S)
        end_s, killed = run.end()
        row.update(clip=CLIPS[name], begin_s=begin_s, end_s=end_s, killed=killed)
        return row


def judge(step, what, row, name):
    """The goals that a row is about."""
    fps, ages = row["fps"], row["age_ms"] or {}
    # a frame that a node lost by name is missing at the page, too
    lost = max(row["missing"], sum(n for causes in row["lost"].values() for n in causes.values()))
    step.figure(f"{what}: slowest camera", fps["min"], "frames/s", "live-rate", 0.98 * FPS <= fps["min"] and fps["max"] <= 1.02 * FPS)
    step.figure(f"{what}: lost", lost, "frames", "live-lost", lost == 0)
    if ages and (row["cameras"], name) == (8, NO_B):
        step.figure(f"{what}: age p50", ages["p50"], "ms", "live-age-8", ages["p50"] <= 10)
    if ages and row["cameras"] == 100:
        step.figure(f"{what}: age p99", ages["p99"], "ms", "live-age-100", ages["p99"] <= 60)
    if row["cameras"] == 100:
        cpu = row["cpu_percent_a_camera"]
        step.figure(f"{what}: all nodes", cpu, "% of a core a camera", "live-cpu", cpu < 2)
    if row["cameras"] >= 64:
        for node, frames in row["frames_a_launch"].items():
            step.figure(f"{what}: {node}", frames, "frames a launch", "live-batch", frames >= 4)
    step.figure(f"{what}: to the end", row["end_s"], "s", "live-end", row["end_s"] <= 3 and not row["killed"])


def overload(suite, step):
    """Three times the frames that the detector can compute, and what happens when two thirds and more of the cameras end."""
    model = suite.need_data(HEAVY)
    stream = clip(suite, NO_B.replace(".mp4", ".264")).read_bytes()
    # byte streams one after the other are a byte stream
    short, lasting = suite.out / "short.264", suite.out / "lasting.264"
    short.write_bytes(7 * stream)
    lasting.write_bytes(12 * stream)
    try:
        with Run(suite, step, "overload-capacity", {f"cam{n:03}": lasting for n in range(64)}, model) as run:
            run.begin()
            time.sleep(SETTLE_S)
            capacity = run.measure(6)["fps"]["all"]
            run.end()
        step.figure("what the detector computes, with 64 cameras", capacity, "frames/s")
        count = max(8, min(140, round(3 * capacity / FPS)))
        stay = max(1, int(0.7 * capacity / FPS))
        if stay >= count:
            raise Failed(f"the detector computes {capacity:.0f} frames/s, which {count} cameras do not overload")
        clips = {f"cam{n:03}": lasting if n < stay else short for n in range(count)}
        with Run(suite, step, "overload", clips, model, loop=False) as run:
            run.begin()
            # a detector's first batches take seconds, and frames wait for them
            time.sleep(SETTLE_S)
            row = run.measure(6)
            shares(step, row, FPS * count / capacity)
            recovery(step, run, clips, short)
            run.end()
    finally:
        short.unlink()
        lasting.unlink()


def shares(step, row, load):
    fps, ages = row["fps"], row["age_ms"] or {}
    mean = fps["all"] / row["cameras"]
    least, most = fps["min"] / mean, fps["max"] / mean
    step.figure("offered frames over what the detector computes", load, "x")
    step.figure(f"{row['cameras']} cameras: share of the least and of the most served over the mean", f"{least:.2f} to {most:.2f}", "x", "overload-shares", least >= 0.9 and most <= 1.1)
    if ages:
        step.figure("ages under overload, p50", ages["p50"], "ms")
        step.figure("ages under overload, p99", ages["p99"], "ms", "overload-age", ages["p99"] <= 1500)
    step.figure("under overload", row, "as named")


def recovery(step, run, clips, short):
    """From the last frame of the cameras that end until the others have all of their frames over half a second."""
    ending = {camera for camera, source in clips.items() if source == short}
    seen, last_frame, last_sum = [], None, None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        now, stats = time.monotonic(), run.stats()
        total = sum(stats[c]["frames"] for c in ending if c in stats)
        if total != last_sum:
            last_sum, last_frame = total, now
        seen.append((now, {c: stats[c]["frames"] for c in clips if c in stats and c not in ending}))
        if last_frame is not None and now - last_frame > 4:
            break
        time.sleep(0.05)
    else:
        raise Failed("the cameras that were to end did not within 30 s")
    recovered = None
    for began, frames in seen:
        end = next(((at, later) for at, later in seen if at >= began + 0.5), None)
        if end is None:
            break
        rates = [(end[1][c] - frames[c]) / (end[0] - began) for c in frames if c in end[1]]
        # one frame more or less in half a second
        if began >= last_frame and rates and min(rates) >= FPS - 3:
            recovered = began - last_frame
            break
    step.check(recovered is not None, "the cameras that went on did not have all of their frames within 4 s of the others' end")
    if recovered is not None:
        step.figure(f"{len(ending)} of {len(clips)} cameras end: until the others have all of their frames", recovered, "s", "overload-recovery", recovered <= 1)
    ages = [watch.age_ms(camera, "p99") for source, camera in run.stats().items() if source not in ending]
    step.note(f"p99 age 4 s after the load fell: {max((a for a in ages if a is not None), default='?')} ms")


def decode_delay(suite, step):
    """How many units follow a picture's own before it comes out, in each order, with each kind of stream."""
    clips = [clip(suite, name) for name in CLIPS]
    if suite.data and (real := suite.data / "clips/one-by-one-person-detection.mp4").exists():
        clips.append(real)
    file = suite.out / "decode-delay.json"
    step.run([example(suite, "gpu_decode"), "delay", *clips, "--json", file], 60)
    for row in json.loads(file.read_text()):
        name, ready = os.path.basename(row["clip"]), row["feed_to_pixels_ms"]
        step.note(f"{name}, {row['way']}: pictures by units held {row['units_held']}, {row['out_of_order']} out of order, feed to pixels p50 {ready['p50']} ms, p99 {ready['p99']} ms")
        if row["way"] == "live flow":
            held = {int(units): n for units, n in row["units_held"].items()}
            longer = sum(n for units, n in held.items() if units > 2)
            step.check(row["late"] == 0, f"{name}, live flow: {row['late']} pictures came after one that follows them")
            step.check(row["pictures"] == row["units"], f"{name}, live flow: {row['pictures']} pictures of {row['units']} units")
            if name in CLIPS:
                step.check(longer <= 10, f"{name}, live flow: {longer} pictures wait for more than two later units: {row['units_held']}")
        if row["way"] != "decoding order":
            step.check(row["out_of_order"] == 0, f"{name}, {row['way']}: {row['out_of_order']} pictures come out of order")
        else:
            held = {int(units): n for units, n in row["units_held"].items()}
            step.check(set(held) <= {0}, f"{name}: in decoding order pictures wait for later units: {held}")
        if name == NO_B and row["way"] == "low delay":
            step.check(set(row["units_held"]) <= {"0"}, f"{name}: pictures that nothing precedes are held: {row['units_held']}")


def decode_end(suite, step):
    """How long many sessions take to begin and to end, and the process to be gone."""
    for count in (8, 64, 140):
        for how in ([], ["--leave"]):
            done = step.run([example(suite, "gpu_decode"), "end", clip(suite, NO_B), "--sessions", count, *how], 60)
            gone_ns = time.monotonic_ns()
            row = json.loads(done.text.strip().splitlines()[-1])
            row["exit_s"] = (gone_ns - row.pop("exits_at_monotonic_ns")) / 1e9
            whole = row["end_s"] + row["exit_s"]
            step.figure(f"{count} sessions, {'left to the end of the process' if how else 'destroyed'}: from the end of the work to the end of the process", whole, "s")
            step.note(json.dumps(row))


KILLS, KILLED_CAMERAS, BACK_LIMIT_S = 12, 64, 30


def kill_decoder(suite, step):
    """Kills the decoder and the converter again and again under load: what they had queued on the GPU never ends for the nodes behind
    them, and every camera has to come back all the same."""
    source = long_stream(suite, NO_B)
    clips = {f"cam{n:03}": source for n in range(KILLED_CAMERAS)}
    with Run(suite, step, "kill-decoder", clips, demo(suite), restarts=3 * KILLS) as run:
        run.begin(enough_fps=FPS / 2)
        back = {}
        for number in range(KILLS):
            time.sleep(2)
            program = ("nvdec-nv12", "nv12-to-rgb")[number % 2]
            frames = {camera: row["frames"] for camera, row in run.stats().items()}
            os.kill(of_family(run.process.pid, program)[0], signal.SIGKILL)
            killed = time.monotonic()
            # 20 more of each: what was under way at the death is less
            while any(row["frames"] < frames.get(camera, 0) + 20 for camera, row in run.stats().items()):
                if time.monotonic() > killed + BACK_LIMIT_S:
                    raise Failed(f"kill {number + 1}, {program}: not every camera is back within {BACK_LIMIT_S} s")
                time.sleep(0.1)
            back.setdefault(program, []).append(round(time.monotonic() - killed, 2))
        run.end()
        log = run.process.log.read_text(errors="replace")
    file = suite.out / f"long-{NO_B.split('.')[0]}.264"
    file.unlink(missing_ok=True)
    ended = sum("GPU never finishes" in line for line in log.splitlines())
    for program, seconds in back.items():
        step.figure(f"{KILLED_CAMERAS} cameras, kill -9 of {program}, until 20 more frames of each", seconds, "s")
    step.note(f"kill -9, seconds until 20 more frames of each camera: {back}; lines that say that a node ended itself: {ended}")
