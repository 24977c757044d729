"""Steps that compare two graphs with 'millrace ab', and what is read of its reports."""
import json
import os

from lib.suite import Failed

# the demo's street at twice its size, with its truth beside it
CLIP = "made/street-1080p/clip.mp4"
SAME_IN_BOTH = ["--set", "decode.SOURCE="]
CAMERAS = 8
# name of the page, arms, heading, figures that the table of goals has: (goal, load, metric)
EXPERIMENTS = {
    "nv12": ("gpu-nv12-vs-bgr24", ("gpu-bgr24", "gpu-full"), "On a GPU: NV12 against BGR24 made there", [("nv12-rate", "until", "fps"), ("nv12-traffic", "until", "moved_mb_per_frame")]),
    "nv12-host": ("gpu-nv12-vs-bgr24-host", ("gpu-bgr24-host", "gpu-full"), "On a GPU: NV12 that stays there against BGR24 through host memory", []),
    "streams": ("gpu-streams-vs-blocking", ("gpu-blocking", "gpu-full"), "On a GPU: streams and events against threads that wait", [("streams-rate", "saturated", "fps")]),
    "fused": ("gpu-fused-vs-separate", ("gpu-separate", "gpu-full"), "On a GPU: one pass against separate passes", []),
    "batch": ("gpu-batch-vs-single", ("gpu-batch1", "gpu-full"), "On a GPU: batches of up to 8 frames against frame by frame", []),
    "cuda-graph": ("gpu-cuda-graph", ("gpu-full", "gpu-cuda-graph"), "On a GPU: inferences as CUDA graphs against launches one by one", []),
    "one-process": ("gpu-one-process", ("gpu-full", "gpu-one-process"), "On a GPU: decoder, converter and detector in one process against three", []),
    "fp16": ("gpu-fp16", ("gpu-full", "gpu-fp16"), "On a GPU: a model of 16 bits against one of 32", []),
}


def step_of(name):
    """The step of one experiment, for the suite's list."""

    def work(suite, step):
        page, arms, title, goals = EXPERIMENTS[name]
        clip = suite.need_data(CLIP)
        suite.onnxruntime()
        # the command stands on the page, so it names nothing of this machine
        folder = suite.out / page
        sources = " ".join(f"cam{n}={os.path.relpath(clip, suite.root / 'graphs')}" for n in range(CAMERAS))
        command = [
            suite.target / "millrace", "ab", *(f"graphs/{arm}.yml" for arm in arms), "--no-build", "--quiet",
            *SAME_IN_BOTH, "--set", f"decode.SOURCES={sources}", "--title", title,
            "--until", "to-rgb", "--rounds", suite.args.rounds, "--frames", 500, "--camera-frames", 60, "--warm-up", 40,
            "--quality-frames", 100, "--out", os.path.relpath(folder, suite.root), "--page", os.path.relpath(suite.out / "pages" / f"{page}.md", suite.root),
        ]
        done = step.run(command, 600, may_fail=True)
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
                goal = next((goal for goal, at, what in goals if (at, what) == (where, metric["metric"])), None)
                met = None
                if goal:
                    met = high <= 0.5 if goal == "nv12-traffic" else low >= (1.15 if goal == "nv12-rate" else 1.10)
                kind = "B - A" if metric["by_difference"] else "B/A"
                step.figure(f"{where}: {metric['metric']}, {kind}", f"{metric['change']:.4g} ({low:.4g} to {high:.4g})", "", goal, met)
        step.check(verdict["word"] != "failed", verdict["reason"])

    return work
