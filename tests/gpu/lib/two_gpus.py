"""Two GPUs of one machine: graphs/gpu-two.yml, each GPU with its half of the cameras."""
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time

from lib import detector, live, watch
from lib.graphs import millrace, of_family
from lib.suite import Failed

CAMERAS, SETTLE_S, MEASURED_S, BACK_LIMIT_S = 200, 11, 12, 30


def two_gpus(suite, step):
    """Many cameras on both, and what the one GPU's cameras notice when the other's decoder is killed."""
    shown = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()
    if len(shown) < 2 or os.environ.get("CUDA_VISIBLE_DEVICES"):
        raise Failed(f"missing: two GPUs; nvidia-smi lists {len(shown)}")
    source = live.long_stream(suite, live.NO_B)
    cameras = suite.out / "two-gpus-cameras.yml"
    # JSON is YAML
    rows = [{"id": f"cam{n:03}", "file": str(source), "loop": True} for n in range(CAMERAS)]
    cameras.write_text(json.dumps({"cameras": rows}))
    graph = suite.out / "two-gpus.yml"
    text = (suite.root / "graphs/gpu-two.yml").read_text().replace("../", f"{suite.root}/")
    # what the bundle has no program for
    graph.write_text(text[: text.index("  - id: zenoh\n")])
    port = watch.free_port()
    sets = [f"decode-{n}.CAMERAS={cameras}" for n in (0, 1)] + [f"detect-{n}.LIBRARY={suite.onnxruntime()}" for n in (0, 1)] + [f"page.PORT={port}"]
    process = step.start(millrace(suite, graph, sets))
    try:
        begin(port, process)
        time.sleep(SETTLE_S)
        before, began = watch.cameras_of(port), time.monotonic()
        cpu = processors(process.pid)
        gpu = watch.GpuUse()
        time.sleep(MEASURED_S)
        after, seconds = watch.cameras_of(port), time.monotonic() - began
        cores = (processors(process.pid) - cpu) / seconds
        fps = sorted((after[c]["frames"] - before[c]["frames"]) / seconds for c in after)
        missing = sum(after[c]["missing"] - before[c]["missing"] for c in after)
        p99 = max(watch.age_ms(camera, "p99") or 0 for camera in after.values())
        detector.said(
            step,
            f"{CAMERAS} cameras on two GPUs: a camera {fps[0]:.2f} to {fps[-1]:.2f} frames/s, {missing} missing, age p99 of the worst {p99:.0f} ms; {cores:.2f} cores, "
            f"{100 * cores / CAMERAS:.2f} % a camera; mean of both GPUs: {gpu.means()}",
        )
        step.figure(f"{CAMERAS} cameras on two GPUs: slowest camera", fps[0], "frames/s", "live-rate", fps[0] >= 0.98 * live.FPS)
        step.figure(f"{CAMERAS} cameras on two GPUs: lost", missing, "frames", "live-lost", missing == 0)
        kill(step, port, process)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        source.unlink(missing_ok=True)


def begin(port, process):
    deadline = time.monotonic() + live.BEGIN_LIMIT_S
    while True:
        stats = watch.cameras_of(port)
        if sum(camera["fps"] >= live.FPS / 2 for camera in stats.values()) == CAMERAS:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{len(stats)} of {CAMERAS} cameras deliver; the end of the log:\n{process.log.read_text(errors='replace')[-1500:]}")
        time.sleep(0.2)


def processors(root_pid):
    """Processor seconds of all nodes."""
    return sum(watch.cpu_s(pid) for program in watch.PROGRAMS for pid in of_family(root_pid, program))


def part(camera):
    """Which of two parts has a camera: ADR 0028."""
    return int.from_bytes(hashlib.md5(camera.encode()).digest()[:8], "big") % 2 + 1


def kill(step, port, process):
    """kill -9 of the first GPU's decoder: its cameras come back, and the other GPU's lose nothing."""
    decoders = {node: pid for pid in of_family(process.pid, "nvdec-nv12") for node in re.findall(rb"decode-\d", environment(pid))[:1]}
    before = watch.cameras_of(port)
    os.kill(decoders[b"decode-0"], signal.SIGKILL)
    killed = time.monotonic()
    dead = {camera for camera in before if part(camera) == 1}
    while any(row["frames"] < before[camera]["frames"] + 20 for camera, row in watch.cameras_of(port).items() if camera in dead):
        if time.monotonic() > killed + BACK_LIMIT_S:
            raise Failed(f"not every camera of the killed decoder is back within {BACK_LIMIT_S} s")
        time.sleep(0.1)
    back_s, after = time.monotonic() - killed, watch.cameras_of(port)
    others = set(before) - dead
    missing = sum(after[camera]["missing"] - before[camera]["missing"] for camera in others)
    slowest = min((after[camera]["frames"] - before[camera]["frames"]) / back_s for camera in others)
    detector.said(step, f"kill -9 of a decoder: 20 more frames of each of its {len(dead)} cameras after {back_s:.1f} s; the other GPU's {len(others)}: {missing} frames missing, slowest {slowest:.1f} frames/s meanwhile")
    step.check(missing == 0, f"cameras of the other GPU lost {missing} frames")
    step.check(slowest >= 0.9 * live.FPS, f"a camera of the other GPU had {slowest:.1f} frames/s meanwhile")


def environment(pid):
    return pathlib.Path(f"/proc/{pid}/environ").read_bytes()
