"""Steps, the commands that they run, and what comes of them."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time


YOLOX = """schema: 1
name: yolox-nano
file: {0}/yolox_nano.onnx
input: {{name: images, width_px: 416, height_px: 416, layout: nchw, dtype: f32, colour: bgr}}
letterbox: {{anchor: top_left, pad: 114}}
head: {{kind: yolox, output: output}}
thresholds: {{score: 0.3, iou: 0.45}}
labels: {{file: {0}/coco_classes.txt}}
"""


class Failed(Exception):
    """A step cannot go on; the text says why."""


class Done:
    """A command that has ended."""

    def __init__(self, code, seconds, cpu_seconds, log):
        self.code, self.seconds, self.cpu_seconds, self.log = code, seconds, cpu_seconds, log

    @property
    def text(self):
        return self.log.read_text(errors="replace")


class Step:
    """One step: its commands, figures and faults."""

    def __init__(self, suite, name, about):
        self.suite, self.name, self.about = suite, name, about
        self.commands, self.figures, self.faults, self.notes = [], [], [], []
        self.verdict, self.seconds = "not asked", 0.0

    def fault(self, text):
        self.faults.append(text)
        print(f"    {text}", file=sys.stderr)

    def check(self, holds, text):
        if not holds:
            self.fault(text)

    def note(self, text):
        self.notes.append(text)

    def figure(self, name, value, unit, goal=None, met=None):
        """A figure; `goal` is one of report.GOALS, `met` whether it is reached. From the stand-in there are none."""
        if self.suite.stand_in is None:
            self.figures.append({"name": name, "value": value, "unit": unit, "goal": goal, "met": met})

    def figures_of(self, file):
        """The JSON that a benchmark wrote, whole."""
        try:
            found = json.loads(pathlib.Path(file).read_text())
        except (OSError, ValueError) as e:
            raise Failed(f"its figures in {file} cannot be read: {e}") from e
        self.figure("all figures", found, "as named")
        return found

    def run(self, command, limit_s, env=None, may_fail=False):
        """Runs a command to its end, its output in a file. Past the limit it is ended with all its children."""
        process = self.start(command, env)
        left = self.suite.left_s()
        limit_s = min(limit_s, left)
        overdue = threading.Timer(limit_s, self.kill, [process])
        overdue.start()
        _, status, usage = os.wait4(process.pid, 0)
        overdue.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - process.began
        done = Done(process.returncode, seconds, usage.ru_utime + usage.ru_stime, process.log)
        process.entry.update(exit=done.code, seconds=round(seconds, 3))
        if done.code != 0 and not may_fail:
            why = f"past its limit of {limit_s:.0f} s" if seconds >= limit_s else f"exit code {done.code}"
            raise Failed(f"{pathlib.Path(command[0]).name}: {why}; the end of {process.log.name}:\n{done.text[-1500:].strip()}")
        return done

    def start(self, command, env=None):
        """Starts a command in a process group of its own."""
        command = [str(word) for word in command]
        if not self.suite.exists(command[0]):
            raise Failed(f"missing: {command[0]}")
        log = self.suite.logs / f"{self.name}-{len(self.commands)}.txt"
        entry = {"command": " ".join(command), "environment": env or {}, "log": f"logs/{log.name}"}
        self.commands.append(entry)
        environment = {**os.environ, **self.suite.environment(), **(env or {})}
        with open(log, "wb") as out:
            process = subprocess.Popen(command, cwd=self.suite.root, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        process.began, process.log, process.entry = time.monotonic(), log, entry
        return process

    @staticmethod
    def kill(process):
        try:
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(3)
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def tests(self, binary, filters, env, limit_s=180):
        """Runs a Rust test binary; no test at all is a fault."""
        done = self.run([self.suite.target / "suite" / binary, *filters], limit_s, {"RUST_BACKTRACE": "0", **env}, may_fail=True)
        counts = re.findall(r"test result: (\w+)\. (\d+) passed; (\d+) failed; (\d+) ignored", done.text)
        passed, failed = (sum(int(c[i]) for c in counts) for i in (1, 2))
        self.note(f"{binary} {' '.join(filters)}: {passed} passed, {failed} failed")
        self.check(done.code == 0 and failed == 0, f"{binary}: {failed} tests failed, exit code {done.code}: {done.log.name}")
        self.check(passed > 0, f"{binary}: no test ran")


class Suite:
    """What the steps share."""

    def __init__(self, root, args):
        self.root, self.args = root, args
        self.target = root / "target/release"
        self.out = args.out.resolve()
        self.logs = self.out / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.stand_in = args.against_the_stand_in
        self.deadline = time.monotonic() + 60 * args.minutes
        data = [args.data] if args.data else [root / "data", root.parent / "shared/data"]
        self.data = next((folder.resolve() for folder in data if folder and folder.is_dir()), None)
        self.steps, self.libraries = [], None

    def left_s(self):
        left = self.deadline - time.monotonic()
        if left < 5:
            raise Failed(f"the {self.args.minutes:g} minutes are over")
        return left

    def exists(self, program):
        return pathlib.Path(program).is_file() or any(
            (pathlib.Path(folder) / program).is_file() for folder in os.environ.get("PATH", "").split(":")
        )

    def environment(self):
        """For every command: where the stand-in is, or the libraries that come with Python's packages."""
        folders = [str(self.stand_in)] if self.stand_in else self.nvidia_folders()
        if os.environ.get("LD_LIBRARY_PATH"):
            folders.append(os.environ["LD_LIBRARY_PATH"])
        found = {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}
        if self.args.onnxruntime:
            found["ORT_DYLIB_PATH"] = str(self.onnxruntime(cuda=False))
        return found

    def nvidia_folders(self):
        """CUDA's run-time libraries (cuBLAS, cuDNN) as pip installs them, for ONNX Runtime."""
        if self.libraries is None:
            self.libraries = []
            if self.args.python:
                code = "import sys, glob; print('\\n'.join(f for p in sys.path if p for f in sorted(glob.glob(p + '/nvidia/*/lib'))))"
                found = subprocess.run([self.args.python, "-c", code], capture_output=True, text=True)
                self.libraries = found.stdout.split()
        return list(self.libraries)

    def need_data(self, path):
        """A file of the real data."""
        if self.data is None:
            raise Failed("missing: real clips; pack them with bundle --data, or name them with --data")
        if not (self.data / path).exists():
            raise Failed(f"missing: {self.data / path}")
        return self.data / path

    def yolox(self):
        """The model file of the real detector."""
        model = self.out / "yolox-nano.yml"
        model.write_text(YOLOX.format(self.need_data("models")))
        return model

    def need_python(self, *modules):
        """The interpreter of the comparison arms."""
        if not self.args.python:
            raise Failed(f"missing: --python, an interpreter with {', '.join(modules)}")
        code = "; ".join(f"import {module}" for module in modules)
        environment = {**os.environ, **self.environment()}
        found = subprocess.run([self.args.python, "-c", code], capture_output=True, text=True, env=environment)
        if found.returncode != 0:
            raise Failed(f"{self.args.python} lacks one of {', '.join(modules)}: {found.stderr.strip()[-300:]}")
        return self.args.python

    def onnxruntime(self, cuda=True):
        """The library of a build of ONNX Runtime, with the provider for CUDA."""
        if not self.args.onnxruntime:
            raise Failed("missing: --onnxruntime, a folder with ONNX Runtime's build for CUDA")
        found = [f for f in self.args.onnxruntime.resolve().rglob("libonnxruntime.so*") if f.is_file()]
        provider = list(self.args.onnxruntime.resolve().rglob("libonnxruntime_providers_cuda.so"))
        if not found or (cuda and not provider):
            raise Failed(f"{self.args.onnxruntime} has no libonnxruntime.so{' beside a libonnxruntime_providers_cuda.so' if cuda else ''}")
        return found[0]

    def clips_with_sums(self):
        """Every clip or stream that has FFmpeg's checksums."""
        if self.data is None:
            raise Failed("missing: real clips; pack them with bundle --data, or name them with --data")
        found = []
        for sums in sorted((self.data / "refs/framemd5").glob("*.framemd5")):
            name = sums.name.removesuffix(".framemd5")
            clip = next((f for folder in ("clips", "h264", "made", "own") if (f := self.data / folder / name).exists()), None)
            if clip is None:
                raise Failed(f"{sums} has no clip")
            found.append((clip, sums))
        if not found:
            raise Failed(f"missing: checksums in {self.data}/refs/framemd5")
        return found

    def perform(self, name, about, work, asked):
        step = Step(self, name, about)
        self.steps.append(step)
        if not asked:
            return
        print(f"{name}: {about}", file=sys.stderr)
        began = time.monotonic()
        try:
            self.left_s()
            work(self, step)
        except Failed as e:
            step.fault(str(e))
        except Exception as e:  # a step that the suite itself gets wrong fails, and the others go on
            step.fault(f"{type(e).__name__}: {e}")
        step.seconds = time.monotonic() - began
        step.verdict = "fail" if step.faults else "pass"
        print(f"    {step.verdict} after {step.seconds:.1f} s", file=sys.stderr)
