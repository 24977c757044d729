"""Steps that compare two graphs with 'millrace ab', and what is read of its reports."""
import contextlib
import json
import os
from dataclasses import dataclass

from lib.mps import mps
from lib.suite import Failed

# the demo's own clip: so small that NVDEC does not set the pace
DEMO = "tests/data/demo/clip.mp4"
SAME_IN_BOTH = ["--set", "decode.SOURCE="]


@dataclass
class Experiment:
    page: str
    arms: tuple
    title: str
    # figures that the table of goals has: (goal, load, metric)
    goals: tuple = ()
    # a file of the data, by default the demo's street, larger, with its truth beside it; or DEMO
    clip: str = "made/street-1080p/clip.mp4"
    cameras: int = 8
    frames: int = 500
    # frames of each camera before them: until the last decoder is made
    warm_up: int = 40
    # of each camera, for the comparison of what comes out
    quality_frames: int = 100
    # the share of the multiprocessors that MPS leaves the graphs
    percent: int | None = None
    # how the whole graphs are driven, and the node after which they are cut off for one more load
    loads: str = "saturated,cameras"
    until: str | None = "to-rgb"


NV12 = ("gpu-bgr24", "gpu-full")
EXPERIMENTS = {
    "nv12": Experiment("gpu-nv12-vs-bgr24", NV12, "On a GPU: NV12 against BGR24 made there", (("nv12-rate", "until", "fps"), ("nv12-traffic", "until", "moved_mb_per_frame"))),
    "nv12-host": Experiment("gpu-nv12-vs-bgr24-host", ("gpu-bgr24-host", "gpu-full"), "On a GPU: NV12 that stays there against BGR24 through host memory"),
    "nv12-many": Experiment("gpu-nv12-vs-bgr24-many", NV12, "On a GPU: NV12 against BGR24 made there, 32 cameras in one decoder process", cameras=32, frames=600, loads="none"),
    "nv12-4k": Experiment("gpu-nv12-vs-bgr24-4k", NV12, "On a GPU: NV12 against BGR24 made there, cameras of 3840x2160", clip="made/street-2160p/clip.mp4", frames=150, loads="none"),
    "nv12-small": Experiment("gpu-nv12-vs-bgr24-small", NV12, "On a small GPU: NV12 against BGR24 made there, with 4 % of the multiprocessors", percent=4, loads="none"),
    "nv12-tiny": Experiment("gpu-nv12-vs-bgr24-tiny", NV12, "On a tiny GPU: NV12 against BGR24 made there, with 2 % of the multiprocessors", percent=2, loads="none"),
    "streams": Experiment("gpu-streams-vs-blocking", ("gpu-blocking", "gpu-full"), "On a GPU: streams and events against threads that wait", (("streams-rate", "saturated", "fps"),)),
    "fused": Experiment("gpu-fused-vs-separate", ("gpu-separate", "gpu-full"), "On a GPU: one pass against separate passes", loads="saturated"),
    "batch": Experiment("gpu-batch-vs-single", ("gpu-batch1", "gpu-full"), "On a GPU: batches of up to 8 frames against frame by frame", loads="saturated"),
    "cuda-graph": Experiment("gpu-cuda-graph", ("gpu-full", "gpu-cuda-graph"), "On a GPU: inferences as CUDA graphs against launches one by one", loads="saturated", until=None),
    "one-process": Experiment("gpu-one-process", ("gpu-full", "gpu-one-process"), "On a GPU: decoder, converter and detector in one process against three, 64 cameras of 960x540", clip=DEMO, cameras=64, frames=1000, warm_up=300, quality_frames=12, loads="saturated", until=None),
    "baseline": Experiment("gpu-baseline-vs-full", ("gpu-baseline", "gpu-full"), "On a GPU: every optimization off at once against all of them", loads="saturated"),
    "fp16": Experiment("gpu-fp16", ("gpu-full", "gpu-fp16"), "On a GPU: a model of 16 bits against one of 32", loads="saturated", until=None),
}


def step_of(name):
    """The step of one experiment, for the suite's list."""

    def work(suite, step):
        experiment = EXPERIMENTS[name]
        page = experiment.page
        clip = suite.root / DEMO if experiment.clip == DEMO else suite.need_data(experiment.clip)
        suite.onnxruntime()
        # the command stands on the page, so it names nothing of this machine
        folder = suite.out / page
        sources = " ".join(f"cam{n}={os.path.relpath(clip, suite.root / 'graphs')}" for n in range(experiment.cameras))
        command = [
            suite.target / "millrace", "ab", *(f"graphs/{arm}.yml" for arm in experiment.arms), "--no-build", "--quiet",
            *SAME_IN_BOTH, "--set", f"decode.SOURCES={sources}", "--title", experiment.title,
            "--loads", experiment.loads, *(["--until", experiment.until] if experiment.until else []), "--rounds", suite.args.rounds, "--frames", experiment.frames, "--camera-frames", 60, "--warm-up", experiment.warm_up,
            "--quality-frames", experiment.quality_frames, "--out", os.path.relpath(folder, suite.root), "--page", os.path.relpath(suite.out / "pages" / f"{page}.md", suite.root),
        ]
        with mps(experiment.percent) if experiment.percent else contextlib.nullcontext({}) as environment:
            done = step.run(command, 600, environment, may_fail=True)
        if done.code != 0:
            raise Failed(f"millrace ab: exit code {done.code}: {done.text[-1500:].strip()}")
        report = json.loads((folder / "report.json").read_text())
        verdict = report["analysis"]["verdict"]
        step.note(f"{verdict['word']}: {verdict['reason']}")
        for load in report["analysis"]["loads"]:
            where = "until" if load.get("until") else load["pace"]
            for metric in load["metrics"]:
                if not (ends := metric["interval_99"]):
                    continue
                low, high = ends["low"], ends["high"]
                goal = next((goal for goal, at, what in experiment.goals if (at, what) == (where, metric["metric"])), None)
                met = None
                if goal:
                    met = high <= 0.5 if goal == "nv12-traffic" else low >= (1.15 if goal == "nv12-rate" else 1.10)
                kind = "B - A" if metric["by_difference"] else "B/A"
                step.figure(f"{where}: {metric['metric']}, {kind}", f"{metric['change']:.4g} ({low:.4g} to {high:.4g})", "", goal, met)
        step.check(verdict["word"] != "failed", verdict["reason"])

    return work
