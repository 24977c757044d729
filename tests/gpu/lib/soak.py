"""A soak on a GPU: live cameras of 1080p30 whose pictures carry numbers, and faults one after the other."""
import json
import sys

from lib.mps import mps
from lib.suite import Failed

CAMERAS, CLIPS = 64, "made/numbered"
# as a camera of 4 Mb/s and 30 pictures a second sends
PICTURE_BYTES = 16_600
# so long apart that counts can be compared between two of them
EVERY_S = 12


def soak(suite, step):
    """All faults, for as long as --soak says."""
    one(suite, step, "soak", CAMERAS, suite.args.soak, "all")


def soak_mps(suite, step):
    """Another process under the same MPS server faults, and takes the contexts of all with it."""
    with mps() as environment:
        one(suite, step, "soak-mps", 16, "2m", "gpu", environment)


def one(suite, step, name, cameras, length, faults, env=None):
    out = suite.out / name
    command = [
        sys.executable, suite.root / "tests/live/soak.py", f"--cameras={cameras}", f"--clips={suite.need_data(CLIPS)}", f"--picture-bytes={PICTURE_BYTES}",
        "--transports=tcp,tcp,udp,tcp", f"--for={length}", f"--every={EVERY_S}s", f"--faults={faults}", f"--gpu={suite.onnxruntime()}", f"--out={out}",
    ]  # fmt: skip
    done = step.run(command, suite.left_s(), {"MILLRACE_PROGRAMS": str(suite.target), **(env or {})}, may_fail=True)
    if not (out / "soak.json").exists():
        raise Failed(f"exit code {done.code}, and no report; the end of {done.log.name}:\n{done.text[-1500:].strip()}")
    verdict = step.figures_of(out / "soak.json")["verdict"]
    for finding in verdict["findings"]:
        step.note(f"{finding['what']}: {finding['standing']}: {finding['figures']}")
        # slopes need hours
        allowed = ("met", "open") if finding["what"] == "nothing grows" else ("met",)
        step.check(finding["standing"] in allowed, f"{finding['what']}: {finding['figures']}")
    judged = json.loads((out / "judge.json").read_text())
    step.note(f"{judged['sent']} pictures sent, {sum(c['delivered'] for c in judged['cameras'].values())} delivered; the report is {name}/soak.html")
