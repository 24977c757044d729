"""Steps with trt-infer: engines built, kept, loaded and run, by a TensorRT that --tensorrt names."""
import json
import os
import pathlib
import re
import signal
import time

from lib import compare, detector, graphs, hold, placement
from lib.checks import example
from lib.suite import Failed

DEMO = "tests/data/demo/model/model.yml"
DEMO_F16 = "tests/data/demo/model/model-f16.yml"
# builds that are judged for what they compute, not for how fast; TensorRT 8 builds for minutes at its own level
QUICK = ["BUILD_LEVEL=0", "TACTICS=edge_mask_convolutions"]
# name: model, and settings beside those; all are built at once
ENGINES = {
    "one": (DEMO, []),
    "eight": (DEMO, ["BATCH=8"]),
    "eight-f16": (DEMO, ["BATCH=8", "PRECISION=f16"]),
    "file-f16": (DEMO_F16, ["BATCH=8"]),
}


def library(suite):
    """The newest libnvinfer in the folder."""
    if not suite.args.tensorrt:
        raise Failed("missing: --tensorrt, a folder with TensorRT's libraries")
    found = sorted(suite.args.tensorrt.resolve().glob("libnvinfer.so.[0-9]*"))
    if not found:
        raise Failed(f"{suite.args.tensorrt} has no libnvinfer.so.N")
    return found[-1]


def is_eight(suite):
    return ".so.8" in library(suite).name


def engines(suite):
    """{name: (model, settings)} that this TensorRT has."""
    return {name: (model, sets) for name, (model, sets) in ENGINES.items() if "PRECISION=f16" not in sets or is_eight(suite)}


def settings(suite, more, cache="engines"):
    level = QUICK if is_eight(suite) else []
    return [f"LIBRARY={library(suite)}", f"ENGINE_CACHE={suite.out / cache}", *level, *more]


def build_command(suite, model, more, cache="engines"):
    words = [suite.target / "millrace", "model", "build", suite.root / model]
    for pair in settings(suite, more, cache):
        words += ["--set", pair]
    return words


def kept(suite, cache="engines"):
    folder = suite.out / cache
    return {file.name: file.read_bytes() for file in folder.glob("*.engine")} if folder.exists() else {}


def written(suite):
    """When each file of the cache was written."""
    return {file.name: file.stat().st_mtime_ns for file in (suite.out / "engines").glob("*.engine")}


def build(suite, step):
    """Engines of the demo's model and of YOLOX-nano, at once, each in a process of its own; again from the cache; and past the limit."""
    asked = engines(suite)
    if suite.data is not None:
        asked["yolox-nano"] = (suite.yolox(), [])
    started = {name: step.start(build_command(suite, model, more)) for name, (model, more) in asked.items()}
    for name, process in started.items():
        limit = time.monotonic() + min(240, suite.left_s())
        while process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        seconds = time.monotonic() - process.began
        if process.poll() is None:
            step.kill(process)
        text = process.log.read_text(errors="replace")
        step.check(process.returncode == 0, f"{name}: exit code {process.returncode} after {seconds:.0f} s: {text[-600:].strip()}")
        step.check("built in" in text, f"{name}: no line says that it was built: {text[-300:]}")
        step.figure(f"{name}, built", seconds, "s")
    before = kept(suite)
    # one of timings beside them
    step.check(len(before) == len(asked) + 1, f"{len(before)} files are kept of {len(asked)} engines")
    for name, (model, more) in asked.items():
        done = step.run(build_command(suite, model, more), 60)
        step.check("the engine was built before" in done.text, f"{name}: built once more: {done.text[-300:]}")
        step.figure(f"{name}, from the cache", done.seconds, "s")
    step.check(kept(suite) == before, "a start from the cache changed it")
    with_timings = step.run(build_command(suite, DEMO, ["BATCH=2"]), 240)
    step.figure("BATCH 2, built with the timings of the others", with_timings.seconds, "s")
    # a damaged file is named, and built again
    broken = pathlib.Path(re.search(r"was built before: '(.+)'", step.run(build_command(suite, DEMO, []), 60).text)[1]).name
    (suite.out / "engines" / broken).write_bytes(before[broken][:-1])
    done = step.run(build_command(suite, DEMO, []), 240)
    step.check(f"{broken}' is not used" in done.text and "built in" in done.text, f"a file cut short: {done.text[-300:]}")
    # nothing is left of a build that is ended at its limit
    done = step.run(build_command(suite, DEMO, ["BUILD_LIMIT_S=1"], "late"), 60, may_fail=True)
    step.check(done.code != 0 and "(BUILD_LIMIT_S): raise it" in done.text, f"past the limit: {done.code}: {done.text[-300:]}")
    step.check(not kept(suite, "late"), "an engine is kept that was not built")
    # its settings, the folder of engines among them, are in a build's command line
    late = str(suite.out / "late").encode()
    running = [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if b"--build-engine" in read(p) and late in read(p)]
    step.check(not running, f"processes that build are left: {running}")


def read(file):
    try:
        return file.read_bytes()
    except OSError:
        return b""


def node(suite, step):
    """The node's own tests: outputs against numpy's, boxes against the head's."""
    env = {"MILLRACE_TENSORRT": str(library(suite)), "MILLRACE_ROOT": str(suite.root), "XDG_CACHE_HOME": str(suite.out / "cache")}
    if is_eight(suite):
        env["MILLRACE_TENSORRT_LEVEL"] = "0"
    # the test of damaged models makes hundreds of engines
    step.tests("trt-infer", ["it_gives_the_reference", "it_opens_the_demo_model"], env, 240)


def graph_of(suite, name, program, env):
    """gpu-detect.yml with another detector."""
    text = (suite.root / "graphs/gpu-detect.yml").read_text().replace("../", f"{suite.root}/")
    text = text.replace("-p ort-infer", f"-p {program}").replace("release/ort-infer", f"release/{program}")
    lines = [line for line in text.splitlines(keepends=True) if "PROVIDER: cuda" not in line]
    at = next(n for n, line in enumerate(lines) if "MODEL: *model" in line)
    lines[at + 1 : at + 1] = [f"      {pair.replace('=', ': ', 1)}\n" for pair in env]
    file = suite.out / f"{name}.yml"
    file.write_text("".join(lines))
    return file


def as_reference(lines, file):
    """JSON lines as compare.detections reads a reference."""
    keys = ("class_id", "score", "x1", "y1", "x2", "y2")
    rows = [[[box[key] for key in keys] for box in json.loads(line)["boxes"]] for line in open(lines)]
    file.write_text(json.dumps({"detections": rows}))
    return len(rows)


def judge(step, name, found, least):
    step.note(f"{name}: {found}")
    for key, unit in (("reference", "boxes"), ("missing", "boxes"), ("surplus", "boxes"), ("mean_iou", "")):
        step.figure(f"{name}, {key}", found[key], unit)
    step.check(found["in_order"], f"{name}: not each frame once and in order")
    step.check(found["reference"] > least, f"{name}: the reference has too few boxes to compare with")
    step.check(found["missing"] <= 0.01 * found["reference"], f"{name}: {found['missing']} boxes are missing")
    step.check(found["surplus"] <= 0.01 * found["reference"], f"{name}: {found['surplus']} boxes are too many")
    step.check(found["mean_iou"] >= 0.97, f"{name}: mean IoU {found['mean_iou']:.4f}")


def boxes(suite, step):
    """Tensors on the GPU, alone and in batches, in 32 and 16 bits: boxes against ONNX Runtime's on the CPU, same pictures."""
    theirs, reference = suite.out / "trt-reference.jsonl", suite.out / "trt-reference.json"
    runtime = graph_of(suite, "trt-reference", "ort-infer", [f"LIBRARY={suite.onnxruntime(cuda=False)}", "PROVIDER=cpu"])
    step.run(graphs.millrace(suite, runtime, ["decode.MEMORY=host", f"write.PATH={theirs}"]), 120)
    frames = as_reference(theirs, reference)
    for name, (model, more) in engines(suite).items():
        out = suite.out / f"trt-{name}.jsonl"
        graph = graph_of(suite, f"trt-{name}", "trt-infer", settings(suite, more))
        model = suite.root / model
        # more slots than a batch has frames
        sets = [f"to-rgb.MODEL={model}", f"detect.MODEL={model}", f"write.PATH={out}", "to-rgb.SLOTS=16"]
        done = step.run(graphs.millrace(suite, graph, sets), 240)
        graphs.counts(step, done, frames)
        step.figure(f"{name}, the whole graph, start to end", frames / done.seconds, "frames/s")
        judge(step, name, compare.detections(out, reference), 500)


def yolox(suite, step):
    """The real detector: boxes against those of onnxruntime in Python."""
    model = suite.yolox()
    step.run(build_command(suite, model, []), 400)
    out = suite.out / "trt-yolox.jsonl"
    graph = graph_of(suite, "trt-yolox", "trt-infer", settings(suite, []))
    clip = suite.need_data(f"clips/{graphs.REAL}")
    done = step.run(graphs.millrace(suite, graph, [f"decode.SOURCE={clip}", f"to-rgb.MODEL={model}", f"detect.MODEL={model}", f"write.PATH={out}"]), 120)
    found = compare.detections(out, suite.need_data("refs/one-by-one-person-detection.yolox_nano.json"))
    graphs.counts(step, done, found["frames_expected"])
    judge(step, "YOLOX-nano", found, 500)


def engine(suite, step):
    """Each model of --models in 16-bit floats: what trt-infer computes against TensorRT's own loop over the same engine, the graph around
    it in one process, and how many cameras hold."""
    batch = detector.usual_batch(suite)
    for model in suite.args.models:
        model, name = model.resolve(), model.resolve().parent.name
        # TensorRT's own level and tactics: this engine is judged for its speed
        more = {"LIBRARY": str(library(suite)), "ENGINE_CACHE": str((suite.args.engines or suite.out / "engines").resolve())}
        if suite.args.build_level is not None:
            more["BUILD_LEVEL"] = str(suite.args.build_level)
        try:
            built = [word for pair in more.items() for word in ("--set", "=".join(pair))]
            done = step.run([suite.target / "millrace", "model", "build", model, "--set", f"BATCH={batch}", *built], 560)
            detector.said(step, f"{name}: {done.text.strip().splitlines()[-1]}; {done.seconds:.0f} s")
            file = suite.out / f"trt-{name}.json"
            command = [example(suite, "trt_infer"), "--model", model, "--batch", str(batch), "--in-flight", "2", "--frames", str(detector.USUAL_FRAMES), "--json", file]
            step.run([*command, *built], 120)
            report = json.loads(file.read_text())
            step.figure(f"{name}: trt_infer", report, "as named")
            ours, own = detector.rates(report)[2], report["own"]["frames_per_s"]
            detector.said(step, f"{name}, batch {batch}: trt-infer alone {ours:.0f} frames/s, TensorRT's own loop {own:.0f} ({ours / own:.2f} x)")
            step.figure(f"{name}: trt-infer against TensorRT's own loop", 100 * ours / own, "%", "trt-own", ours >= 0.9 * own)
            detector.around(suite, step, name, model, batch, 2, ours, "one process", placement.TOGETHER, None, "trt-infer", more)
            hold.most(suite, step, f"{name}, trt-infer", model, batch, ours, "trt-infer", more)
        except Failed as e:
            step.fault(f"{name}: {e}")


def fault(suite, step):
    """kill -9 of the detector in a live graph: it starts again with the engine of the step trt-build."""
    graph = graph_of(suite, "trt-fault", "trt-infer", settings(suite, []))
    graph = graphs.live(suite, "trt-live", graph.read_text())
    out = suite.out / "trt-fault.jsonl"
    before = written(suite)
    process = step.start(graphs.millrace(suite, graph, ["decode.LOOP=true", f"write.PATH={out}", "write.APPEND=true"]))
    try:
        graphs.until("detections flow", 240, lambda: graphs.lines_of(out) > 40, process)
        (old,) = graphs.of_family(process.pid, "trt-infer")
        os.kill(old, signal.SIGKILL)
        killed = time.monotonic()
        graphs.until("trt-infer starts again", 30, lambda: [p for p in graphs.of_family(process.pid, "trt-infer") if p != old], process)
        lines = graphs.lines_of(out)
        graphs.until("detections flow after kill -9", 60, lambda: graphs.lines_of(out) >= lines + 20, process)
        step.figure("trt-infer, until 20 detections after it was back", time.monotonic() - killed, "s", "recovery", True)
        graphs.end(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    step.check(before and written(suite) == before, "an engine was built that was in the cache")
