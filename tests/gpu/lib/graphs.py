"""Steps that decode and that run whole graphs."""
import os
import pathlib
import re
import signal
import statistics
import subprocess
import time

from lib import compare
from lib.checks import example, nothing_left
from lib.suite import Failed

HERE = pathlib.Path(__file__).resolve().parent.parent
# damaged on purpose: what each decoder makes of what is lost is its own, so it is reported and not judged
DAMAGED = {"BA_MW_D_P_LOST.264"}
REAL = "one-by-one-person-detection.mp4"
CAMERA = "made/cam-1080p30-h264.mp4"
STREAM = "made/cam-1080p30-h264.264"


def refused(clip, done):
    """Whether the GPU refuses a small stream by name: it is smaller than what the GPU decodes of its codec."""
    return done.code != 0 and clip.parent.name == "own" and "use sw-nv12" in done.text


def decode(suite, step):
    """Every clip and stream by gpu_decode, no graph around it."""
    same_frames = all_frames = 0
    for clip, sums in suite.clips_with_sums():
        out = suite.out / f"{clip.name}.gpu.framemd5"
        done = step.run([example(suite, "gpu_decode"), "md5", clip, "--out", out], 60, may_fail=True)
        if refused(clip, done):
            step.note(f"{clip.name}: refused by name: {done.text.strip().splitlines()[-1]}")
            continue
        if done.code != 0 or not out.exists():
            step.fault(f"{clip.name}: exit code {done.code}: {done.text[-300:].strip()}")
            continue
        same, ours, theirs, first = compare.same_frames(out, sums)
        step.note(f"{clip.name}: {same} of {theirs} frames are FFmpeg's; {ours} decoded")
        if clip.name in DAMAGED:
            continue
        same_frames, all_frames = same_frames + same, all_frames + theirs
        step.check(first is None, f"{clip.name}: frame {first} is not FFmpeg's ({ours} frames, {theirs} expected)")
    step.figure("intact clips and streams", f"{same_frames} of {all_frames}", "frames", "decode-exact", same_frames == all_frames)


def last_fps(done):
    found = re.findall(r'"fps": ?([0-9.]+)', done.text)
    if not found:
        raise Failed(f"no '\"fps\": N' in {done.log.name}")
    return float(found[-1])


def decode_rate(suite, step):
    """Ours and PyNvVideoCodec in turns, A B B A, with the same clip and as many sessions."""
    python = suite.need_python("PyNvVideoCodec")
    stream = suite.need_data(STREAM)
    for sessions, times in ((1, 5), (4, 4), (7, 3), (14, 2), (28, 1)):
        # byte streams one after the other are a byte stream: enough frames that the sessions are all at work for seconds
        clip = suite.out / f"rate-{times}.264"
        clip.write_bytes(stream.read_bytes() * times)
        common = [clip, "--sessions", str(sessions)]
        arms = {
            "A": [example(suite, "gpu_decode"), "rate", *common],
            "B": [python, HERE / "pynvvideocodec_arm.py", *common],
        }
        rates = {"A": [], "B": []}
        for arm in "ABBA":
            rates[arm].append(last_fps(step.run(arms[arm], 60)))
        ours, theirs = statistics.median(rates["A"]), statistics.median(rates["B"])
        clip.unlink()
        busy = sessions >= 7
        step.figure(f"{sessions} sessions, gpu_decode", ours, "frames/s")
        step.figure(f"{sessions} sessions, PyNvVideoCodec", theirs, "frames/s")
        step.figure(f"{sessions} sessions", ours / theirs, "x", "decode-rate" if busy else None, ours / theirs >= 0.95 if busy else None)


def millrace(suite, graph, sets):
    words = [suite.target / "millrace", "run", graph, "--no-build"]
    for pair in sets:
        words += ["--set", pair]
    return words


def table(text):
    """{node: {in, out, fps, dropped}} of the table at the end of 'millrace run'."""
    rows, found = text.splitlines(), {}
    start = next((n for n, row in enumerate(rows) if row.split()[:4] == ["node", "in", "out", "fps"]), None)
    for row in rows[start + 1 :] if start is not None else []:
        words = row.split()
        if len(words) < 5 or not re.fullmatch(r"\d+|-", words[1]):
            break
        found[words[0]] = dict(zip(("in", "out", "fps", "dropped"), words[1:5]))
    return found


def counts(step, done, frames):
    """Every node had every frame."""
    nodes = table(done.text)
    step.check(bool(nodes), f"no table of nodes in {done.log.name}")
    for node, row in nodes.items():
        seen = {row[side] for side in ("in", "out") if row[side] != "-"}
        step.check(seen == {str(frames)} and row["dropped"] == "0", f"{node}: {row}, {frames} frames expected")


def graph_checksum(suite, step):
    for clip, sums in (pair for pair in suite.clips_with_sums() if pair[0].suffix == ".mp4"):
        out = suite.out / f"{clip.name}.graph.framemd5"
        sets = [f"decode.SOURCE={clip}", f"checksum.PATH={out}"]
        done = step.run(millrace(suite, "graphs/gpu-checksum.yml", sets), 60, may_fail=True)
        if refused(clip, done):
            step.note(f"{clip.name}: refused by name")
            continue
        step.check(done.code == 0, f"{clip.name}: exit code {done.code}: {done.text[-600:].strip()}")
        same, ours, theirs, first = compare.same_frames(out, sums)
        counts(step, done, theirs)
        step.check(first is None, f"{clip.name}: frame {first} is not FFmpeg's ({ours} frames, {theirs} expected)")
        step.figure(f"{clip.name} through the graph", f"{same} of {theirs}", "frames", "decode-exact", first is None)


def detect_sets(suite, out):
    model = suite.yolox()
    clip = suite.need_data(f"clips/{REAL}")
    return [f"decode.SOURCE={clip}", f"to-rgb.MODEL={model}", f"detect.MODEL={model}", f"detect.LIBRARY={suite.onnxruntime()}", f"write.PATH={out}"]


def graph_detect(suite, step):
    out = suite.out / "detections.jsonl"
    done = step.run(millrace(suite, "graphs/gpu-detect.yml", detect_sets(suite, out)), 120)
    found = compare.detections(out, suite.need_data("refs/one-by-one-person-detection.yolox_nano.json"))
    counts(step, done, found["frames_expected"])
    step.note(str(found))
    for name, unit in (("reference", "boxes"), ("missing", "boxes"), ("surplus", "boxes"), ("mean_iou", "")):
        step.figure(name, found[name], unit)
    step.check(found["in_order"], "not each frame once and in order")
    step.check(found["reference"] > 500, "the reference has too few boxes to compare with")
    step.check(found["missing"] <= 0.01 * found["reference"], f"{found['missing']} boxes are missing")
    step.check(found["surplus"] <= 0.01 * found["reference"], f"{found['surplus']} boxes are too many")
    step.check(found["mean_iou"] >= 0.97, f"mean IoU {found['mean_iou']:.4f}")


def graph_rate(suite, step):
    python = suite.need_python("PyNvVideoCodec", "torch", "onnxruntime")
    ours, theirs = suite.out / "rate-ours.jsonl", suite.out / "rate-python.jsonl"
    clip, models = suite.need_data(f"clips/{REAL}"), suite.need_data("models")
    arms = {
        "A": (millrace(suite, "graphs/gpu-detect.yml", detect_sets(suite, ours)), ours),
        "B": ([python, suite.root / "tests/bench/gpu_python_arm.py", "yolox", models / "yolox_nano.onnx", clip, theirs], theirs),
    }
    results = {"A": [], "B": []}
    for number, arm in enumerate("ABABBAAB"):
        command, out = arms[arm]
        done = step.run(command, 90)
        frames = sum(1 for _ in open(out))
        step.check(frames == 1394, f"{frames} lines, 1394 expected")
        if number > 1:  # the first of each fills caches
            results[arm].append((frames / done.seconds, 1000 * done.cpu_seconds / frames))
    ratios = [a[0] / b[0] for a, b in zip(results["A"], results["B"])]
    for arm, name in (("A", "gpu-detect.yml"), ("B", "one Python process")):
        step.figure(f"{name}, whole process", statistics.median(r[0] for r in results[arm]), "frames/s")
        step.figure(f"{name}, CPU", statistics.median(r[1] for r in results[arm]), "ms a frame")
    ratio = statistics.median(ratios)
    step.figure("frames/s of the graph over Python's, start to end", ratio, "x", "graph-rate", ratio >= 1)
    step.figure("each round", " ".join(f"{r:.2f}" for r in ratios), "x")


def live(suite, name, text):
    """gpu-detect.yml as a live graph whose nodes are started again."""
    again = "on-failure\n    max_restarts: 5\n    restart_delay: 0.5"
    text = text.replace("FLOW: lossless", "FLOW: live").replace("restart_policy: never", f"restart_policy: {again}")
    text = text.replace("PACE: asfast", "PACE: realtime").replace("../", f"{suite.root}/")
    file = suite.out / f"{name}.yml"
    file.write_text(text)
    return file


def of_family(root_pid, program):
    """Processes of a program that a process or its children started."""
    parents, programs = {}, {}
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
                parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
                programs[int(folder.name)] = os.readlink(folder / "exe")
            except (OSError, ValueError):
                continue

    def descends(pid):
        while pid > 1 and pid != root_pid:
            pid = parents.get(pid, 0)
        return pid == root_pid

    return [pid for pid, path in programs.items() if path.removesuffix(" (deleted)").endswith(f"/{program}") and descends(pid)]


def lines_of(file):
    return file.read_bytes().count(b"\n") if file.exists() else 0


def until(what, limit_s, condition, process):
    began = time.monotonic()
    while not (found := condition()):
        if process.poll() is not None:
            raise Failed(f"the graph ended while waited for {what}; the end of its log:\n{process.log.read_text()[-1200:]}")
        if time.monotonic() - began > limit_s:
            raise Failed(f"{what}: not within {limit_s} s; the end of the log:\n{process.log.read_text()[-1200:]}")
        time.sleep(0.02)
    return found


def gpu_memory_mib():
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0])


def end(process):
    """As Ctrl-C does; past 20 s all that is left."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise Failed("the graph did not end within 20 s of an interrupt") from None


def fault(suite, step):
    library = suite.onnxruntime()
    shm, memory = nothing_left(), gpu_memory_mib()
    graph = live(suite, "gpu-live", (suite.root / "graphs/gpu-detect.yml").read_text())
    out = suite.out / "fault.jsonl"
    process = step.start(millrace(suite, graph, ["decode.LOOP=true", f"detect.LIBRARY={library}", f"write.PATH={out}", "write.APPEND=true"]))
    try:
        until("detections flow", 60, lambda: lines_of(out) > 40, process)
        for program in ("nvdec-nv12", "nv12-to-rgb", "ort-infer"):
            old = of_family(process.pid, program)
            if len(old) != 1:
                raise Failed(f"{len(old)} processes of {program} found")
            os.kill(old[0], signal.SIGKILL)
            killed = time.monotonic()
            until(f"{program} starts again", 30, lambda: [p for p in of_family(process.pid, program) if p != old[0]], process)
            # what was under way when it died has been written by now: 20 more came through the new process
            before = lines_of(out)
            until(f"detections flow after kill -9 of {program}", 60, lambda: lines_of(out) >= before + 20, process)
            step.figure(f"{program}, until 20 detections after it was back", time.monotonic() - killed, "s", "recovery", True)
            time.sleep(1)
        end(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    left = [name for name in nothing_left() if name not in shm]
    step.check(not left, f"left in /dev/shm: {left}")
    # the driver frees what a killed process had a little after it died
    deadline = time.monotonic() + 10
    while gpu_memory_mib() > memory + 16 and time.monotonic() < deadline:
        time.sleep(0.5)
    after = gpu_memory_mib()
    step.figure("GPU memory in use after the end, over that before", after - memory, "MiB", "recovery", after <= memory + 16)
    step.check(after <= memory + 16, f"GPU memory in use: {memory} MiB before, {after} MiB after")


def threads_cpu_s(pid):
    """{first word of a thread's name: processor seconds} of a process; the second is the camera's."""
    ticks, found = os.sysconf("SC_CLK_TCK"), {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            stat = (task / "stat").read_text()
        except OSError:
            continue
        name = re.split(r"[ -]|\d", stat[stat.index("(") + 1 : stat.rindex(")")], maxsplit=1)[0]
        fields = stat.rsplit(")", 1)[1].split()
        found[name] = found.get(name, 0) + (int(fields[11]) + int(fields[12])) / ticks
    return found


def cameras(suite, step):
    clip = suite.need_data(CAMERA)
    text = (suite.root / "graphs/gpu-detect.yml").read_text()
    # decoder and converter alone: everything behind them has no part in a camera's cost here
    text = text[: text.index("  - id: detect")]
    text = "".join(line for line in text.splitlines(keepends=True) if "SOURCE:" not in line)
    for number in (1, 4, 16):
        graph = live(suite, f"gpu-cameras-{number}", text)
        sources = " ".join(f"cam{n}={clip}" for n in range(number))
        process = step.start(millrace(suite, graph, [f"decode.SOURCES={sources}", "decode.LOOP=true"]))
        try:
            found = until("nvdec-nv12 starts", 30, lambda: of_family(process.pid, "nvdec-nv12"), process)[0]
            time.sleep(4)
            before, began = threads_cpu_s(found), time.monotonic()
            time.sleep(10)
            after, seconds = threads_cpu_s(found), time.monotonic() - began
            end(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shares = {name: 100 * (cpu - before.get(name, 0)) / seconds / number for name, cpu in after.items()}
        total = sum(shares.values())
        # the goal leaves demuxing out, which shares a thread with the decoder's input: the whole is an upper bound
        step.figure(f"{number} cameras, nvdec-nv12 in all, demuxing too", total, "% of a core a camera", "camera-cpu", total < 1)
        rows = table(process.log.read_text())
        step.note(f"{number} cameras: {rows}")
        # a camera that loses frames for want of time costs too little
        out, dropped = (int(rows.get("decode", {}).get(key, "0").replace("-", "0")) for key in ("out", "dropped"))
        step.check(out > 10 * 30 * number, f"{number} cameras gave {out} frames, which is not 30 a second")
        step.check(dropped <= 0.01 * out, f"{number} cameras: {dropped} frames of {out} were lost")
