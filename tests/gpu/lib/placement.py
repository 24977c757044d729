"""Where the GPU's stages run: in three processes, in one, and in three under CUDA's MPS. The graph is the same."""
import shutil
import time

from lib import detector, live
from lib.mps import CONTROL, mps
from lib.suite import Failed

CAMERAS = (8, 64, 140)
TOGETHER = [f"{node}.PROCESS=gpu" for node in ("decode", "to-rgb", "detect")]


def placement(suite, step):
    """Live cameras and, for each model of --models, more frames than its engine computes, in each of the three ways."""
    engines = engines_alone(suite, step)
    ways = [("three processes", [], None), ("one process", TOGETHER, None)]
    for way, sets, env in ways:
        in_one_way(suite, step, way, sets, env, engines)
    if shutil.which(CONTROL):
        with mps() as environment:
            in_one_way(suite, step, "three processes under MPS", [], environment, engines)
    else:
        detector.said(step, f"three processes under MPS: there is no {CONTROL} here")
    for file in suite.out.glob("long-*.264"):
        file.unlink()


def engines_alone(suite, step):
    """(name, model, batch, frames/s of the engine alone with two batches in flight) of each model that was given."""
    found = []
    for name, (model, batch) in detector.models(suite).items():
        if model in [given.resolve() for given in suite.args.models]:
            rate = detector.rates(detector.alone(suite, step, name, model, batch))[2]
            detector.said(step, f"{name}, batch {batch}, engine alone: {rate:.0f} frames/s with 2 in flight")
            found.append((name, model, batch, rate))
    return found


def in_one_way(suite, step, way, sets, env, engines):
    for count in suite.args.cameras or CAMERAS:
        try:
            row = cameras(suite, step, way, count, sets, env)
        except Failed as e:
            step.fault(f"{way}, {count} cameras: {e}")
            continue
        ages, fps, gpu = row["age_ms"] or {}, row["fps"], row["gpu"]
        detector.said(
            step,
            f"{way}, {count} cameras: a camera {fps['min']:.1f} to {fps['max']:.1f} frames/s, {row['missing']} missing; age p50 {ages.get('p50', 0):.1f}, "
            f"p99 {ages.get('p99', 0):.1f} ms; {row['cpu_percent_a_camera']:.2f} % of a core a camera; GPU {gpu.get('sm', 0):.0f} %, {gpu.get('fb', 0):.0f} MiB; "
            f"frames a launch {row['frames_a_launch']}; ended in {row['end_s']:.1f} s",
        )
        step.figure(f"{way}, {count} cameras", row, "as named")
        step.check(not row["killed"], f"{way}, {count} cameras: {row['killed']} did not end by themselves")
    for name, model, batch, rate in engines:
        try:
            detector.around(suite, step, name, model, batch, 2, rate, way, sets, env)
        except Failed as e:
            step.fault(f"{way}, {name}: {e}")


def cameras(suite, step, way, count, sets, env):
    source = live.long_stream(suite, live.NO_B)
    clips = {f"cam{n:03}": source for n in range(count)}
    with live.Run(suite, step, f"placement-{count}-{way.replace(' ', '-')}", clips, live.demo(suite), sets=sets, env=env) as run:
        begin_s = run.begin(enough_fps=live.FPS / 2)
        time.sleep(live.SETTLE_S)
        row = run.measure(live.MEASURED_S)
        end_s, killed = run.end()
    return {**row, "begin_s": begin_s, "end_s": end_s, "killed": killed}
