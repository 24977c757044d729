"""How many cameras of 1080p30 hold: every one at its full rate, with its detections in time."""
import math
import time

from lib import detector, live
from lib.placement import TOGETHER
from lib.suite import Failed

MOST_P95_MS, LEAST_SHARE = 100, 0.98
# ages are those of the last 10 s
TRIES, SETTLE_S, MEASURED_S = 6, 9, 5


def hold(suite, step):
    """ONNX Runtime on CUDA with each model of --models, the stages of the GPU in one process."""
    given = [model.resolve() for model in suite.args.models]
    for name, (model, batch) in detector.models(suite).items():
        if model in given:
            rate = detector.rates(detector.alone(suite, step, name, model, batch))[2]
            most(suite, step, f"{name}, ort-infer", model, batch, rate)


def most(suite, step, name, model, batch, engine_fps, program="ort-infer", engine=None):
    """The largest number of cameras that was seen to hold, at most what the engine alone computes; 0 where none of the tries does."""
    held, failed = 0, min(detector.NO_MORE, max(1, math.floor(engine_fps / live.FPS))) + 1
    count = failed - 1
    for _ in range(TRIES):
        try:
            row = cameras(suite, step, name, count, model, batch, program, engine)
        except Failed as e:
            step.fault(f"{name}, {count} cameras: {e}")
            break
        ages, fps = row["age_ms"] or {}, row["fps"]
        holds = fps["min"] >= LEAST_SHARE * live.FPS and not row["missing"] and 0 < ages.get("p95", 0) < MOST_P95_MS
        detector.said(
            step,
            f"{name}, {count} cameras: {'holds' if holds else 'does not hold'}; a camera {fps['min']:.2f} to {fps['max']:.2f} frames/s, {row['missing']} missing; age p50 "
            f"{ages.get('p50', 0):.0f}, p95 {ages.get('p95', 0):.0f}, p99 {ages.get('p99', 0):.0f} ms; {row['frames_a_launch'].get('detect', 0):.1f} frames a batch; "
            f"GPU {row['gpu'].get('sm', 0):.0f} %",
        )
        step.figure(f"{name}, {count} cameras", row, "as named")
        if holds:
            held = count
        else:
            failed = count
        if failed - held <= 1:
            break
        # a fifth less until one holds, then the middle
        count = (held + failed) // 2 if held else max(1, failed * 4 // 5)
    what = f"{name}: cameras that hold (its engine alone: {engine_fps:.0f} frames/s, {engine_fps / live.FPS:.1f} cameras)"
    step.figure(what, held, "cameras", "hold", held >= 50)
    return held


def cameras(suite, step, name, count, model, batch, program, engine):
    source = live.long_stream(suite, live.NO_B)
    clips = {f"cam{n:03}": source for n in range(count)}
    run_name = f"hold-{name.replace(', ', '-')}-{count}"
    with live.Run(suite, step, run_name, clips, model, detect={"BATCH": batch, **(engine or {})}, sets=TOGETHER, detector=program) as run:
        begin_s = run.begin(enough_fps=live.FPS / 2)
        time.sleep(SETTLE_S)
        row = run.measure(MEASURED_S)
        row.update(begin_s=begin_s, end_s=run.end()[0])
    return row
