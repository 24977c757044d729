"""What people bring, on the GPU: pictures stored turned or mirrored, models that see the middle of a picture, a decoder in its sandbox."""
import json
import pathlib
import time

from lib import compare, graphs
from lib.suite import Failed

TURNED = "refs/turned"
# the pictures of which the CPU's and the GPU's tensors are compared, each in its own way
SAME_SIZE = ("none", "90", "180", "270", "mirror", "mirror_90", "mirror_180", "mirror_270")
TENSORS = {
    "own/crop_b.mp4": ("none",), "own/crop_left_top.264": ("none", "90"), "own/stated_size.mp4": ("none", "270"), "own/cavlc_b.264": SAME_SIZE,
    "own/bt601_full.264": ("none",), "own/baseline_slices.264": ("mirror",),
}  # fmt: skip
CLASSES = """schema: 1
name: classes
file: {0}
input: {{name: images, width_px: 24, height_px: 16, layout: nchw, dtype: f32, colour: rgb}}
fit: crop
crop: {{resize_px: 19}}
head: {{kind: classify, output: output}}
labels: [dark, light]
"""
GRAPH = """exit_when_nodes_finish: true
env: {{FLOW: lossless}}
nodes:
{nodes}
"""


def turned(suite, step):
    """Each orientation through the graph, H.264 in 8 and H.265 in 10 bits, against the checksums of FFmpeg's filters."""
    folder = suite.need_data(TURNED)
    for sums in sorted(folder.glob("*.framemd5")):
        # CLIP.ORIENTATION.framemd5; without one the file says it
        clip, _, orientation = sums.name.removesuffix(".framemd5").rpartition(".")
        if orientation in ("mp4", "264", "265"):
            clip, orientation = f"{clip}.{orientation}", "auto"
        source = next((f for part in ("own", "made") if (f := suite.data / part / clip).exists()), None)
        if source is None:
            raise Failed(f"missing: {clip}, of {sums}")
        out = suite.out / f"turned-{clip}.{orientation}.framemd5"
        sets = [f"decode.SOURCE={source}", f"decode.ORIENTATION={orientation}", f"checksum.PATH={out}"]
        done = step.run(graphs.millrace(suite, "graphs/gpu-checksum.yml", sets), 60, may_fail=True)
        if graphs.refused(source, done):
            step.note(f"{clip}, {orientation}: refused by name")
            continue
        step.check(done.code == 0, f"{clip}, {orientation}: exit code {done.code}: {done.text[-600:].strip()}")
        ours, theirs = compare.checksums(out), compare.checksums(sums)
        # FFmpeg wrote the first pictures alone of some
        same = sum(a == b for a, b in zip(ours, theirs))
        step.check(same == len(theirs), f"{clip}, {orientation}: {same} of {len(theirs)} frames are FFmpeg's")
        step.figure(f"{clip}, {orientation}", f"{same} of {len(theirs)}", "frames", "decode-exact", same == len(theirs))


def node(suite, name, program, inputs, outputs, env):
    return {"id": name, "path": str(suite.target / program), "inputs": inputs, "outputs": outputs, "restart_policy": "never", "env": env}


def tensors(suite, step):
    """Tensors that the GPU makes of files of many kinds against those that the CPU makes, element by element: a letterbox and the middle
    of the picture."""
    cameras = suite.out / "tensors-cameras.yml"
    rows = [
        {"id": f"{pathlib.Path(file).name}-{turn}".replace(".", "-").replace("_", "-"), "file": str(suite.need_data(file)), "orientation": turn}
        for file, turns in TENSORS.items() for turn in turns
    ]  # fmt: skip
    # JSON is YAML
    cameras.write_text(json.dumps({"cameras": rows}))
    classes = suite.out / "classes.yml"
    classes.write_text(CLASSES.format(suite.root / "runtime/infer/tests/data/tiny_classify.onnx"))
    models = {"letterbox": suite.root / "tests/data/demo/model/model.yml", "crop": classes}
    nodes, files = [], {fit: suite.out / f"tensors-{fit}.jsonl" for fit in models}
    for side, decoder in (("gpu", "nvdec-nv12"), ("cpu", "sw-nv12")):
        nodes.append(node(suite, f"decode-{side}", decoder, {"tick": "dora/timer/secs/5"}, ["frame"], {"CAMERAS": str(cameras), "PACE": "asfast"}))
        for fit, model in models.items():
            nodes.append(node(suite, f"{fit}-{side}", "nv12-to-rgb", {"frame": f"decode-{side}/frame"}, ["tensor"], {"MODEL": str(model)}))
    for fit, file in files.items():
        nodes.append(node(suite, f"compare-{fit}", "tensor-compare", {"a": f"{fit}-gpu/tensor", "b": f"{fit}-cpu/tensor"}, [], {"PATH": str(file)}))
    graph = suite.out / "tensors.yml"
    graph.write_text(GRAPH.format(nodes="\n".join(f"  - {json.dumps(row)}" for row in nodes)))
    done = step.run(graphs.millrace(suite, graph, []), 120, may_fail=True)
    step.check(done.code == 0, f"exit code {done.code}: {done.text[-1500:].strip()}")
    for fit, file in files.items():
        pairs = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        seen = {pair["source"] for pair in pairs}
        step.check(seen == {row["id"] for row in rows}, f"{fit}: no tensors of {sorted({row['id'] for row in rows} - seen)}")
        differ = [pair for pair in pairs if pair["differing"]]
        step.check(not differ, f"{fit}: {len(differ)} of {len(pairs)} tensors differ; the first: {differ[:1]}")
        step.check(all(pair["range_a"][0] < pair["range_a"][1] for pair in pairs), f"{fit}: a tensor has one value alone")
        step.figure(f"{fit}: tensors that are the CPU's, bit for bit", f"{len(pairs) - len(differ)} of {len(pairs)}", "tensors")


def sandbox(suite, step):
    """A decoder in its sandbox decodes, and cannot gain privileges."""
    clip = suite.need_data(graphs.CAMERA)
    graph = graphs.live(suite, "sandbox", (suite.root / "graphs/gpu-checksum.yml").read_text())
    sets = [f"decode.SOURCE={clip}", "decode.LOOP=true", "decode.SANDBOX=required", f"checksum.PATH={suite.out / 'sandbox.framemd5'}"]
    process = step.start(graphs.millrace(suite, graph, sets))
    try:
        (decoder,) = graphs.until("the decoder's process", 60, lambda: graphs.of_family(process.pid, "nvdec-nv12"), process)

        def status():
            lines = pathlib.Path(f"/proc/{decoder}/status").read_text().splitlines()
            return {line.split(":")[0]: line.split(":")[1].strip() for line in lines}

        graphs.until("frames", 60, lambda: graphs.lines_of(suite.out / "sandbox.framemd5") > 40, process)
        time.sleep(1)
        found = {key: status().get(key) for key in ("NoNewPrivs", "Seccomp")}
        step.note(f"the decoder's process: {found}")
        step.check(found == {"NoNewPrivs": "1", "Seccomp": "2"}, f"the decoder's process is not in a sandbox: {found}")
        graphs.end(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    out = suite.out / "sandbox-whole.framemd5"
    done = step.run(graphs.millrace(suite, "graphs/gpu-checksum.yml", [f"decode.SOURCE={clip}", "decode.SANDBOX=required", f"checksum.PATH={out}"]), 60)
    sums = next(sums for file, sums in suite.clips_with_sums() if file == clip)
    same, ours, theirs, first = compare.same_frames(out, sums)
    graphs.counts(step, done, theirs)
    step.check(first is None, f"frame {first} is not FFmpeg's ({ours} frames, {theirs} expected)")
    step.figure("frames of a decoder in its sandbox that are FFmpeg's", f"{same} of {theirs}", "frames", "decode-exact", first is None)
