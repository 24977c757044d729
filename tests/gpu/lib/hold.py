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
    """The largest number of cameras that hold, from what the engine alone computes downwards; 0 where none of the tries does."""
    count = max(1, math.floor(engine_fps / live.FPS))
    for _ in range(TRIES):
        try:
            row = cameras(suite, step, name, count, model, batch, program, engine)
        except Failed as e:
            step.fault(f"{name}, {count} cameras: {e}")
            return 0
        ages, fps = row["age_ms"] or {}, row["fps"]
        holds = fps["min"] >= LEAST_SHARE * live.FPS and not row["missing"] and 0 < ages.get("p95", 0) < MOST_P95_MS
        detector.said(
            step,
            f"{name}, {count} cameras: {'holds' if holds else 'does not hold'}; a camera {fps['min']:.2f} to {fps['max']:.2f} frames/s, {row['missing']} missing; age p50 "
            f"{ages.get('p50', 0):.0f}, p95 {ages.get('p95', 0):.0f} ms; {row['frames_a_launch'].get('detect', 0):.1f} frames a batch; GPU {row['gpu'].get('sm', 0):.0f} %",
        )
        step.figure(f"{name}, {count} cameras", row, "as named")
        if holds:
            step.figure(f"{name}: cameras that hold (its engine alone: {engine_fps:.0f} frames/s, {engine_fps / live.FPS:.1f} cameras)", count, "cameras", "hold", count >= 50)
            return count
        # the rate that there was says where to go on
        count = max(1, min(count - 1, math.floor(fps["all"] / live.FPS)))
    return 0


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
