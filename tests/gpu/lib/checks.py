"""Steps about the machine, the driver, the pools and the kernels."""
import json
import pathlib
import platform

from lib.suite import Failed

ON_GPU = {"MILLRACE_GPU": "1"}


def machine(suite, step):
    query = "name,driver_version,vbios_version,memory.total,memory.used,clocks.max.sm,pcie.link.gen.max,mig.mode.current,utilization.gpu"
    rows = step.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv"], 30).text.strip().splitlines()
    step.check(len(rows) > 1, "nvidia-smi shows no GPU")
    for row in rows[1:]:
        step.note(row)
    cpu = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    step.note(f"CPU: {len(cpu)} of {cpu[0] if cpu else platform.machine()}")
    step.note(f"kernel: {platform.release()}")
    step.note("memory: " + open("/proc/meminfo").readline().split(":", 1)[1].strip())


def doctor(suite, step):
    command = [suite.target / "millrace", "doctor", "--json"]
    if suite.stand_in is None:
        command.insert(2, "--gpu")
    done = step.run(command, 180, may_fail=True)
    try:
        report = json.loads(done.text[done.text.index("{") : done.text.rindex("}") + 1])
    except ValueError as e:
        raise Failed(f"'millrace doctor --json' wrote no JSON: {done.text[-500:]}") from e
    step.check(bool(report.get("checks")), "the doctor checked nothing")
    for check in report.get("checks", []):
        step.note(f"{check['status']}: {check['name']}: {check['value']}")
    if suite.stand_in is None:
        step.check(done.code == 0, f"something is missing that graphs on a GPU need: {report.get('gpu')}")


def driver(suite, step):
    step.tests("cuda-driver", [], ON_GPU)


def processes(suite, step):
    # one at a time on a GPU: what a process has queued holds the others up
    step.tests("cuda-processes", ["suite::", "--test-threads", "1"], ON_GPU, 120)


def pool(suite, step):
    # one at a time on a GPU: processes that are killed while others measure their patience
    step.tests("pool-conformance", ["cuda_"], ON_GPU, 240)
    step.tests("pool-crash", ["cuda_", "--test-threads", "2"], ON_GPU, 240)


def example(suite, name):
    return suite.target / "examples" / name


def kernels(suite, step):
    file = suite.out / "kernels.json"
    done = step.run([example(suite, "gpu_kernels"), "--json", file], 200, may_fail=True)
    step.check(done.code == 0, f"a kernel is wrong, or there is none: exit code {done.code}; {done.log.name}")
    found = step.figures_of(file)
    correct, rows = found["correct"], {row["name"]: row for row in found["speed"]["rows"]}
    right = correct["wrong"] == 0 and correct["worst_of_allowed"] <= 1
    step.figure("wrong frames", f"{correct['wrong']} of {correct['cases']}", "", "colour", right)
    # what is allowed for u8 is 1/255
    step.figure("largest difference, of what is allowed", correct["worst_of_allowed"], "", "colour", right)
    step.figure("PSNR", correct["psnr_db"], "dB", "colour", correct["psnr_db"] > 50)
    for name, row in rows.items():
        batch = name.removeprefix("fused, batch ")
        in_goal = batch in ("16", "32", "64")
        goal, met = ("kernel-copy", row["of_copy"] >= 0.8) if in_goal else (None, None)
        step.figure(name, 100 * row["of_copy"], "% of the copy rate", goal, met)
    for row in found["speed"]["replayed"]:
        step.figure(f"surfaces replayed, batch {row['batch']}: time by way of BGR24 over NV12's", row["bgr24_us"] / row["nv12_us"], "x")
    # the same job in torch, right after
    file = suite.out / "torch.json"
    step.run([suite.need_python("torch"), suite.root / "tests/gpu/torch_kernels.py", "--json", file], 150)
    theirs = step.figures_of(file)["figures"]
    for batch in (16, 32, 64):
        least = min((f for f in theirs if f["batch"] == batch), key=lambda f: f["us_per_frame"])
        ratio = least["us_per_frame"] / rows[f"fused, batch {batch}"]["us_per_frame"]
        step.figure(f"batch {batch}, time of torch ({least['arm']}) over ours", ratio, "x", "kernel-torch", ratio > 1)


def heads(suite, step):
    file = suite.out / "heads.json"
    done = step.run([example(suite, "gpu_heads"), "--json", file], 120, may_fail=True)
    step.check(done.code == 0, f"a box differs, or there is no GPU: exit code {done.code}; {done.log.name}")
    for row in step.figures_of(file)["rows"]:
        name = f"{row['model']} {row['dtype']}, batch {row['batch']}: time of the whole output over its candidates"
        step.figure(f"{name}, copied", row["down_ratio"], "x")
        step.figure(f"{name}, head", row["head_ratio"], "x")


def handover(suite, step):
    """Between two processes, and between two threads of one."""
    handed_over(suite, step, "two processes", [], "handover", 100)
    handed_over(suite, step, "one process", ["--one-process"], "handover-one-process", 20)


def handed_over(suite, step, where, options, goal, most_us):
    file = suite.out / f"{goal}.json"
    step.run([example(suite, "gpu_handover"), *options, "--frames", "300", "--json", file], 90)
    found = step.figures_of(file)
    for arm in found["arms"]:
        name = f"{where}, {arm['way']}, sync {arm['sync']}, {arm['work_us']} us of work"
        if "error" in arm:
            step.fault(f"{name}: {arm['error']}")
            continue
        p50 = arm["event_to_kernel_us"]["p50"]
        # the pools as they are by default: the consumer's stream waits for the event
        in_goal = arm["way"] != "host memory" and arm["sync"] == "device"
        step.figure(f"{name}, event to kernel p50", p50, "us", goal if in_goal else None, p50 < most_us if in_goal else None)
        step.figure(f"{name}, event to kernel p99", arm["event_to_kernel_us"]["p99"], "us")
        step.figure(f"{name}, publish to awake p50", arm["publish_to_awake_us"]["p50"], "us")
        for side, us in arm["cpu_us_per_frame"].items():
            step.figure(f"{name}, CPU of the {side}", us, "us a frame")
    copied = {arm["bytes_copied"] for arm in found["arms"] if "error" not in arm and arm["way"] != "host memory"}
    step.figure(f"{where}, pools on the GPU", max(copied), "bytes", "handover-copies", copied == {0})


def infer(suite, step):
    """The CUDA provider against the CPU's in full f32, and its rate with TF32; it fails where they don't agree."""
    library = suite.onnxruntime()
    models = {"demo": suite.root / "tests/data/demo/model/model.yml"}
    if suite.data is not None:
        models["yolox-nano"] = suite.yolox()
    for name, model in models.items():
        file = suite.out / f"infer-{name}.json"
        command = [example(suite, "gpu_infer"), "--model", model, "--provider", "cuda", "--library", library]
        step.run([*command, "--tf32", "off", "--frames", "20"], 90)
        # TF32 has 10 bits: on noise through dozens of layers, some per cent of the largest value
        step.run([*command, "--tolerance", "0.1", "--json", file], 90)
        step.figures_of(file)


def nothing_left():
    """Names in /dev/shm."""
    return sorted(p.name for p in pathlib.Path("/dev/shm").iterdir())
