#!/usr/bin/env python3
"""The whole batch graph against one Python process (OpenCV + onnxruntime, 2 threads): same clip, same model, in turn.

usage: tests/bench/throughput.py [--rounds N] [--loops N] [--real]

The demo's clip, four times over, and its model; with --real, the clip of people and YOLOX-nano of ../shared/data. Each round runs every arm once, whole processes from start to end; printed
are frames per second and CPU milliseconds a frame, the median of the rounds, and the ratio to Python's of the same round.
The last arm calls cpu-infer's graph's stages in one process: against it, the cost of the processes shows.
Packages are installed into target/tools/bench; the nodes have to be built (tests/run does it), and the last arm by
cargo build --release --workspace --examples
"""
import argparse
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["onnxruntime==1.32.0", "opencv-python-headless", "numpy", "imageio-ffmpeg"]
DEMO = ROOT / "tests/data/demo"
REAL = ROOT.parent / "shared/data"
YOLOX = """
schema: 1
name: yolox-nano
file: {0}/yolox_nano.onnx
input: {{name: images, width_px: 416, height_px: 416, layout: nchw, dtype: f32, colour: bgr}}
letterbox: {{anchor: top_left, pad: 114}}
head: {{kind: yolox, output: output}}
thresholds: {{score: 0.3, iou: 0.45}}
labels: {{file: {0}/coco_classes.txt}}
"""


def install():
    folder = ROOT / "target/tools/bench"
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *PACKAGES], check=True)
    return folder


def repeated(clip, loops, folder, environment):
    """The clip, so many times over: start-up then weighs as little as it does in a job of some length."""
    if loops == 1:
        return clip
    code = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())"
    ffmpeg = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    long = pathlib.Path(folder, f"{clip.stem}-x{loops}.mp4")
    command = [ffmpeg.stdout.strip(), "-loglevel", "error", "-stream_loop", str(loops - 1), "-i", clip, "-c", "copy", long]
    subprocess.run(command, check=True)
    return long


def timed(command, out, environment):
    """(seconds, CPU seconds of it and all its children, lines written)"""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, sum(1 for _ in open(out))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loops", type=int, default=4)
    parser.add_argument("--real", action="store_true")
    args = parser.parse_args()
    packages = install()
    library = next((packages / "onnxruntime/capi").glob("libonnxruntime.so*"))
    environment = os.environ | {"PYTHONPATH": str(packages)}
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "out.jsonl")
        if args.real:
            kind, clip, onnx = "yolox", REAL / "clips/one-by-one-person-detection.mp4", REAL / "models/yolox_nano.onnx"
            model = pathlib.Path(folder, "model.yml")
            model.write_text(YOLOX.format(REAL / "models"))
        else:
            kind, clip, onnx, model = "demo", DEMO / "clip.mp4", DEMO / "model/model.onnx", DEMO / "model/model.yml"
        clip = repeated(clip, args.loops, folder, environment)
        graph = (ROOT / "graphs/detect.yml").read_text().replace("../", f"{ROOT}/")

        def millrace(engine, *sets):
            file = pathlib.Path(folder, f"{engine}.yml")
            file.write_text(graph.replace("cpu-infer", engine))
            pairs = [f"decode.SOURCE={clip}", f"detect.MODEL={model}", f"to-rgb.MODEL={model}", f"write.PATH={out}", *sets]
            return [ROOT / "target/release/millrace", "run", file, "--no-build", "--quiet", *(x for p in pairs for x in ("--set", p))]

        arms = {
            "python, one process": [sys.executable, ROOT / "tests/bench/python_arm.py", kind, onnx, clip, out],
            "millrace, ort-infer": millrace("ort-infer", f"detect.LIBRARY={library}"),
            "millrace, cpu-infer": millrace("cpu-infer"),
            "its stages, 1 process": [ROOT / "target/release/examples/one_process", clip, model, out, str(os.cpu_count())],
        }
        runs = {name: [] for name in arms}
        for number in range(args.rounds + 1):
            for name, command in arms.items():
                seconds, cpu, frames = timed(command, out, environment)
                if number > 0:  # the first round fills caches
                    runs[name].append((frames / seconds, 1000 * cpu / frames))
                print(f"round {number}: {name}: {frames} frames in {seconds:.2f} s", file=sys.stderr)
    base = runs["python, one process"]
    print(f"{clip.name}, {onnx.name}, {args.rounds} rounds, {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    print(f"{'arm':<22}{'fps':>8}{'CPU ms/frame':>14}{'fps / python':>14}  each round")
    for name, results in runs.items():
        ratios = [r[0] / b[0] for r, b in zip(results, base)]
        fps, cpu = (statistics.median(r[i] for r in results) for i in (0, 1))
        print(f"{name:<22}{fps:>8.1f}{cpu:>14.1f}{statistics.median(ratios):>14.2f}  {' '.join(f'{r:.2f}' for r in ratios)}")


if __name__ == "__main__":
    main()
