"""Faults: what is done to a camera or to a node, for how long, and how it is undone."""

import os
import signal
import time
from dataclasses import dataclass, field


@dataclass
class Fault:
    kind: str
    target: str  # a camera's id or a node's
    seconds: float = 0.0
    detail: object = None
    fault_ns: int = 0
    cure_ns: int = 0
    result: dict = field(default_factory=dict)

    @property
    def name(self):
        return f"{self.kind}{'' if self.detail is None else ' ' + str(self.detail)} {self.target}" + (f", {self.seconds:g} s" if self.seconds else "")

    @property
    def of_node(self):
        return self.kind in ("kill", "stop")


CAMERA_FAULTS = {
    # kind: (begin, end)
    "gone": (lambda c, _: c.kill(), lambda c, _: c.start()),
    "status": (lambda c, code: c.command(refuse=code), lambda c, _: c.command(refuse=0)),
    "silent": (lambda c, _: c.fall_silent(), lambda c, _: c.speak()),
    "stall": (lambda c, _: c.command(stall=True), lambda c, _: c.command(stall=False)),
    "freeze": (lambda c, _: c.freeze(), lambda c, _: c.thaw()),
    "cut": (lambda c, _: None, lambda c, _: c.command(disconnect=True)),
    "media": (lambda c, media: c.command(media=media), lambda c, _: c.command(disconnect=True)),
}


def apply(fault, cameras, run):
    """Does it, waits, undoes it; notes when."""
    if fault.of_node:
        pid = run.nodes()[0][fault.target]
        fault.fault_ns = time.monotonic_ns()
        if fault.kind == "kill":
            os.kill(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(fault.seconds)
            os.kill(pid, signal.SIGCONT)
        fault.cure_ns = time.monotonic_ns()
        return
    camera = next(c for c in cameras if c.id == fault.target)
    begin, end = CAMERA_FAULTS[fault.kind]
    fault.fault_ns = time.monotonic_ns()
    begin(camera, fault.detail)
    time.sleep(fault.seconds)
    end(camera, fault.detail)
    fault.cure_ns = time.monotonic_ns()


def full(cameras, nodes, long_s=60):
    """Each fault of the requirement, one after the other, on different cameras."""
    ids = [c.id for c in cameras]
    one = lambda n: ids[n % len(ids)]  # noqa: E731
    suite = [
        Fault("gone", one(0), 5), Fault("gone", one(1), long_s),
        Fault("status", one(2), 8, 401), Fault("status", one(3), 8, 404), Fault("status", one(0), 8, 503),
        Fault("silent", one(1), 12), Fault("stall", one(2), 10), Fault("freeze", one(3), 10),
        Fault("cut", one(0)), Fault("media", one(1), 0, {"width": 640, "height": 360}),
    ]  # fmt: skip
    for node in nodes:
        suite += [Fault("kill", node), Fault("stop", node, 5)]
    return suite


def short(cameras, nodes):
    """A few of them, for every change of the code."""
    ids = [c.id for c in cameras]
    return [
        Fault("gone", ids[0], 4), Fault("status", ids[1 % len(ids)], 4, 401), Fault("stall", ids[2 % len(ids)], 5),
        *[Fault("kill", node) for node in nodes if node.startswith("detect")][:1],
    ]  # fmt: skip


SUITES = {"none": lambda *_: [], "short": short, "full": full}
