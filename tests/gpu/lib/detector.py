"""The detector: its engine alone, each option of the provider, and the graph around it."""
import json
import math
import pathlib
import time

from lib import live
from lib.checks import example
from lib.suite import Failed

NO_MORE = 140  # cameras that NVDEC decodes
MEASURED_S, SETTLE_S = 5, 2
# what the frames of a measurement take: about a second and a half
FRAMES = {"demo": 20000, "yolox-nano": 1500}
USUAL_FRAMES, USUAL_BATCH = 960, 16
OPTIONS = {
    "PREFER_NHWC: true": ["--prefer-nhwc"],
    "CONV_SEARCH: heuristic": ["--conv-search", "heuristic"],
    "CONV_SEARCH: fixed": ["--conv-search", "fixed"],
    "CONV_MAX_WORKSPACE: false": ["--small-workspace"],
    "CUDA_GRAPH: true": ["--cuda-graph"],
}
OF_16_BITS = {"GRID_SAMPLE_F32: false": ["--grid-sample-f16"]}


def usual_batch(suite):
    """Frames in a batch of a model that was given."""
    return suite.args.batch or USUAL_BATCH


def models(suite):
    """{name: (model.yml, frames in a batch)}: the demo's, a real one for one frame at a time, and those that were given."""
    found = {"demo": (live.demo(suite), 32)}
    if suite.data is not None and (suite.data / "models/yolox_nano.onnx").exists():
        found["yolox-nano"] = (suite.yolox(), 1)
    for model in suite.args.models:
        found[model.resolve().parent.name] = (model.resolve(), usual_batch(suite))
    return found


def alone(suite, step, name, model, batch, options=(), checked=False):
    """What gpu_infer says of the engine with 1 and 2 batches in work."""
    file = suite.out / f"alone-{name}.json"
    command = [example(suite, "gpu_infer"), "--model", model, "--provider", "cuda", "--library", suite.onnxruntime(), "--json", file]
    frames = 64 if checked else FRAMES.get(name, USUAL_FRAMES)
    command += ["--batch", str(batch), "--in-flight", "2", "--frames", str(frames), *options]
    command += ["--tf32", "off"] if checked else ["--unchecked"]
    step.run(command, 120)
    return json.loads(file.read_text())


def rates(report):
    """Frames a second by the number of batches in work."""
    return {row["in_flight"]: row["frames_per_s"] for row in report["measured"]}


def said(step, text):
    print(f"    {text}", flush=True)
    step.note(text)


def detector(suite, step):
    """The engine alone against the whole graph at the same batch, with one and with two batches in work."""
    for name, (model, batch) in models(suite).items():
        try:
            if name in FRAMES:
                checked = alone(suite, step, name, model, batch, checked=True)
                said(step, f"{name}: outputs and boxes with batches in work are those of the CPU: {checked['agree']}")
            report = alone(suite, step, name, model, batch)
            engine = rates(report)
            said(step, f"{name}, batch {batch}, engine alone: {engine[1]:.0f} frames/s with 1 in flight, {engine[2]:.0f} with 2 ({engine[2] / engine[1]:.2f} x); open {report['open_s']:.1f} s")
            for note in report["notes"]:
                said(step, f"{name}: {note}")
            for in_flight in (1, 2):
                step.figure(f"{name}, engine alone, {in_flight} in flight", engine[in_flight], "frames/s")
                around(suite, step, name, model, batch, in_flight, engine[in_flight])
        except Failed as e:
            step.fault(f"{name}: {e}")
    for file in suite.out.glob("long-*.264"):
        file.unlink()


def around(suite, step, name, model, batch, in_flight, engine_fps, way="graph", sets=(), env=None, program="ort-infer", engine=None):
    """The graph, with about a third more frames than the engine computes, as far as that many can be decoded."""
    count = min(NO_MORE, max(8, math.ceil(1.3 * engine_fps / live.FPS)))
    clips = {f"cam{n:03}": live.long_stream(suite, live.NO_B) for n in range(count)}
    settings = {"BATCH": batch, "IN_FLIGHT": in_flight, **(engine or {})}
    run_name = f"detector-{name}-{in_flight}-{way.replace(' ', '-')}"
    with live.Run(suite, step, run_name, clips, model, detect=settings, sets=sets, env=env, detector=program) as run:
        begin_s = run.begin()
        time.sleep(SETTLE_S)
        row = run.measure(MEASURED_S)
        row.update(begin_s=begin_s, end_s=run.end()[0])
    most = min(engine_fps, count * live.FPS)
    share, ages, fps = row["fps"]["all"] / most, row["age_ms"] or {}, row["fps"]
    batches = row["frames_a_launch"].get("detect", 0)
    said(
        step,
        f"{name}, {way}, {count} cameras, {in_flight} in flight: {fps['all']:.0f} frames/s, {100 * share:.0f} % of {most:.0f}; a camera {fps['min']:.1f} to "
        f"{fps['max']:.1f}; age p50 {ages.get('p50', 0):.0f}, p99 {ages.get('p99', 0):.0f} ms; {batches:.1f} frames a batch; GPU {row['gpu'].get('sm', 0):.0f} %; "
        f"detector's process {row['cores'].get('millrace-stages', row['cores'].get(program, 0)):.2f} cores; ended in {row['end_s']:.1f} s",
    )
    judged = in_flight == 2 and way in ("graph", "one process")
    what = f"{name}, {way}, {count} cameras, {in_flight} in flight"
    step.figure(what, 100 * share, "% of the engine alone", "detector-share" if judged else None, share >= 0.9 if judged else None)
    step.figure(f"{what}, as a row", row, "as named")


def options(suite, step):
    """Each of the provider's options by itself, on the largest model there is."""
    name, (model, batch) = list(models(suite).items())[-1]
    usual = rates(alone(suite, step, name, model, batch))
    said(step, f"{name}, batch {batch}, as by default: {usual[1]:.0f} / {usual[2]:.0f} frames/s with 1 / 2 in flight")
    is_16_bits = "dtype: f16" in pathlib.Path(model).read_text()
    for option, words in {**OPTIONS, **(OF_16_BITS if is_16_bits else {})}.items():
        try:
            report = alone(suite, step, name, model, batch, words)
        except Failed as e:
            # a model may not be one that the option is for
            said(step, f"{name}, {option}: {str(e).strip().splitlines()[-1]}")
            continue
        found = rates(report)
        ratios = [found[n] / usual[n] for n in (1, 2)]
        said(step, f"{name}, {option}: {found[1]:.0f} / {found[2]:.0f} frames/s, {ratios[0]:.2f} / {ratios[1]:.2f} x; open {report['open_s']:.1f} s")
        step.figure(f"{name}, {option}, 2 in flight", ratios[1], "x of the default")
