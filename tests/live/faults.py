"""Faults: what is done to a camera, to a node or to the cameras' file, for how long, and how it is undone."""

import os
import signal
import time
from dataclasses import dataclass, field

import graph

OTHER_MEDIA = ({"width": 640, "height": 360}, {"codec": "h265"}, {"codec": "h264", "b_frames": 2}, {"width": 320, "height": 180, "b_frames": 0})


@dataclass
class Fault:
    kind: str
    target: str  # a camera's id, a node's, or 'all'
    seconds: float = 0.0
    detail: object = None
    fault_ns: int = 0
    cure_ns: int = 0
    end_ns: int = 0
    result: dict = field(default_factory=dict)

    @property
    def name(self):
        detail = "" if self.detail is None else f" {self.detail}"
        return f"{self.kind}{detail} {self.target}" + (f", {self.seconds:g} s" if self.seconds else "")

    @property
    def of_node(self):
        return self.kind in ("kill", "stop")

    @property
    def is_lasting(self):
        """Whether somebody has to notice it before it is over."""
        return self.kind in ("gone", "status", "silent", "stall", "freeze") and self.seconds >= 3

    def hits(self, cameras):
        if self.of_node or self.target == "all":
            return cameras
        if self.kind == "calm":
            return [c for c in cameras if c.id != self.target]
        return [c for c in cameras if c.id == self.target]


def begin_and_end(kind):
    """How a fault of a camera begins and ends."""
    return {
        "gone": (lambda c, _: c.kill(), lambda c, _: c.start()),
        "status": (lambda c, code: c.command(refuse=code), lambda c, _: c.command(refuse=0)),
        "silent": (lambda c, _: c.fall_silent(), lambda c, _: c.speak()),
        "stall": (lambda c, _: c.command(stall=True), lambda c, _: c.command(stall=False)),
        "freeze": (lambda c, _: c.freeze(), lambda c, _: c.thaw()),
        "calm": (lambda c, _: c.command(stall=True), lambda c, _: c.command(stall=False)),  # all but the target
        "cut": (lambda c, _: None, lambda c, _: c.command(disconnect=True)),
        "network": (lambda c, what: c.command(network=what), lambda c, _: c.command(network={})),  # of cameras that play clips, by UDP
        "media": (lambda c, media: c.command(media=media), lambda c, _: c.command(disconnect=True)),
    }[kind]


def begin(fault, camera):
    begin_and_end(fault.kind)[0](camera, fault.detail)


def end(fault, camera):
    begin_and_end(fault.kind)[1](camera, fault.detail)


def apply(fault, cameras, session):
    """Does it, waits, undoes it; notes when."""
    if fault.of_node:
        return to_node(fault, session)
    if fault.kind in ("remove", "churn"):
        return {"remove": remove, "churn": churn}[fault.kind](fault, cameras, session)
    fault.fault_ns = time.monotonic_ns()
    for camera in fault.hits(cameras):
        begin(fault, camera)
    time.sleep(fault.seconds)
    for camera in fault.hits(cameras):
        end(fault, camera)
    fault.cure_ns = time.monotonic_ns()


def to_node(fault, session):
    pid = session.run.nodes()[0][fault.target]
    fault.fault_ns = time.monotonic_ns()
    if fault.kind == "kill":
        os.kill(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(fault.seconds)
        os.kill(pid, signal.SIGCONT)
    fault.cure_ns = time.monotonic_ns()


def remove(fault, cameras, session):
    """The camera leaves the cameras' file, and is in it again after the time."""
    fault.fault_ns = time.monotonic_ns()
    graph.cameras_file(session.folder, [c for c in cameras if c.id != fault.target])
    time.sleep(fault.seconds)
    graph.cameras_file(session.folder, cameras)
    fault.cure_ns = time.monotonic_ns()


def churn(fault, cameras, session):
    """`detail` connections of each camera, each with another size, codec or order of pictures, cut after `seconds`."""
    hit = fault.hits(cameras)
    fault.fault_ns = time.monotonic_ns()
    before, came = None, 0
    for n in range(int(fault.detail)):
        if n == 4 * min(5, len(OTHER_MEDIA)):  # what is needed once is there now
            before = session.resources()
        for k, camera in enumerate(hit):
            camera.command(media=OTHER_MEDIA[(n + k) % len(OTHER_MEDIA)])
            camera.command(disconnect=True)
        cut = time.monotonic_ns()
        waiting = {c.id for c in hit}
        while waiting and time.monotonic_ns() - cut < 20e9 and not session.ended:
            time.sleep(0.02)
            waiting -= {c for c in waiting if any(m.ns > cut + 100_000_000 for m in session.seen(c)[-3:])}
        came += len(hit) - len(waiting)
        time.sleep(fault.seconds)
    after = session.resources()
    fault.cure_ns = time.monotonic_ns()
    before = before or after
    fault.result.update(
        connections=int(fault.detail) * len(hit), came_back=came, took_s=round((fault.cure_ns - fault.fault_ns) / 1e9, 1),
        growth={name: {k: after[name][k] - before[name][k] for k in after[name]} for name in after if name in before},
    )  # fmt: skip


def full(cameras, nodes, long_s=60):
    """Each fault of the requirement, one after the other, on different cameras."""
    ids = [c.id for c in cameras]
    one = lambda n: ids[n % len(ids)]  # noqa: E731
    suite = [
        Fault("gone", one(0), 5), Fault("gone", one(1), long_s),
        Fault("status", one(2), 8, 401), Fault("status", one(3), 8, 404), Fault("status", one(0), 8, 503),
        Fault("silent", one(1), 12), Fault("stall", one(2), 10), Fault("freeze", one(3), 10),
        Fault("cut", one(0)), Fault("media", one(1), 0, {"width": 640, "height": 360}), Fault("cut", "all"),
    ]  # fmt: skip
    if len(nodes) == len({n.rstrip("0123456789") for n in nodes}):  # one graph for all cameras, from a file
        suite += [Fault("remove", one(3), 5)]
    for node in nodes:
        suite += [Fault("kill", node), Fault("stop", node, 5)]
    return suite


def first(cameras, _):
    """Faults that are there before the graph starts; the first camera is well."""
    ids = [c.id for c in cameras]
    kinds = [("gone", None), ("status", 401), ("silent", None), ("status", 404), ("status", 503)]
    return [Fault(kind, camera, 12, detail) for camera, (kind, detail) in zip(ids[1:], kinds)]


def short(cameras, nodes):
    """A few of them, for every change of the code."""
    ids = [c.id for c in cameras]
    return [
        Fault("gone", ids[0], 4), Fault("status", ids[1 % len(ids)], 4, 401), Fault("stall", ids[2 % len(ids)], 5),
        *[Fault("stop", node, 3) for node in nodes if node.startswith("decode")][:1],
        *[Fault("remove", ids[-1], 2) for node in nodes if node == "decode"],
        *[Fault("kill", node) for node in nodes if node.startswith("detect")][:1],
    ]  # fmt: skip


SUITES = {"none": lambda *_: [], "short": short, "full": full, "first": first}
