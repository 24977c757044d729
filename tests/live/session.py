"""One run: cameras, a graph, and all that can be seen of it."""

import os
import re
import time
from collections import Counter

import faults as faults_of
import graph
import verdict
from fleet import free_port
from watch import Machine, Page, Reports, Run, Stats, resources

ROOT = graph.ROOT
# pictures of a detector that is not overloaded are not older than this
USUAL_NS = 100_000_000


def onnxruntime():
    folder = os.path.join(ROOT, "target/tools/onnxruntime/onnxruntime/capi")
    found = [name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if name.startswith("libonnxruntime.so")]
    if not found:
        raise SystemExit("no ONNX Runtime in target/tools/onnxruntime: tests/run installs it")
    return os.path.join(folder, found[0])


def wait_for(what, limit_s, is_so):
    until = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > until:
            return f"{what}: not after {limit_s} s"
        time.sleep(0.05)
    return None


class Session:
    def __init__(self, args, folder, cameras):
        self.args, self.folder, self.cameras = args, folder, cameras
        self.problems = []
        self.end_ns = None
        self.unix_offset_ns = time.time_ns() - time.monotonic_ns()
        self.threads = []
        self.run = None
        library = onnxruntime() if args.detector == "ort-infer" else None
        ports = [free_port() for _ in cameras] if args.shape == "chains" else [free_port()]
        model = graph.model(args.model)
        zenoh = free_port() if args.zenoh else None
        if args.shape == "chains":
            nodes = graph.chains(cameras, ports, args.detector, library, zenoh, model, args.pictures)
        elif args.shape == "fan-in":
            nodes = graph.fan_in(cameras, ports[0], args.detector, library, zenoh, model, args.pictures)
        else:
            nodes = graph.one(graph.cameras_file(folder, cameras), ports[0], args.detector, library, zenoh, model, args.pictures)
        self.nodes = nodes
        self.ids = [node["id"] for node in nodes]
        self.graph = graph.write(folder, nodes, dict(pair.split("=", 1) for pair in args.env))
        self.pages, self.stats = [Page(port, cameras) for port in ports], [Stats(port) for port in ports]
        self.reports, self.machine, self.zenoh = None, Machine(), None
        self.sources = {id for id in self.ids if id.startswith("decode")}
        # a loss at another sink is none of the page
        self.shown_by = verdict.path_to(nodes, [id for id in self.ids if id.startswith("page")])
        if args.zenoh and args.shape != "chains":
            from zenoh_watch import Zenoh  # its package is needed for this alone

            self.zenoh = Zenoh(zenoh, cameras)

    def start(self):
        self.run = Run(self.graph, self.folder, self.args.runner)
        late = wait_for("all nodes run", 60, lambda: set(self.run.nodes()[0]) >= set(self.ids) or self.ended)
        if late or self.ended:
            output = "\n".join(line for _, line in self.run.lines[-40:])
            raise SystemExit(f"the graph did not start: {late or 'it ended'}\n{output}")
        self.reports = Reports(self.run.nodes()[1])
        self.threads = [self.machine, self.reports, *self.pages, *self.stats]
        for thread in self.threads:
            thread.start()
        if self.zenoh is not None:
            self.zenoh.start()

    @property
    def ended(self):
        return self.run.process.poll() is not None

    def close(self):
        if self.run is not None:
            self.run.stop()
        if self.zenoh is not None:
            self.zenoh.close()
        for thread in self.threads:
            thread.over.set()
        for thread in self.threads:
            thread.join(3)

    def seen(self, camera):
        messages = [m for page in self.pages for m in page.seen if m.source == camera]
        return sorted(messages, key=lambda m: m.ns) if len(self.pages) > 1 else messages

    def resources(self):
        """Memory, descriptors, threads and shared mappings of each node."""
        return {node: resources(pid) for node, pid in self.run.nodes()[0].items()}

    def usage(self):
        """Processor time of each node so far, in nanoseconds."""
        return {node: report["cpu_ns"] for (node, _), (_, report) in list(self.reports.last.items())}

    def first_sight_ms(self, camera, fault_ns):
        """When /stats or a node's report first showed the camera as not live; 0 where it already was not."""
        times = []
        reported = self.reports.states.get(camera, {}).values()
        on_zenoh = [self.zenoh.states.get(camera, [])] if self.zenoh is not None else []
        for states in [s.states(camera) for s in self.stats] + list(reported) + on_zenoh:
            before = [state for ns, state in list(states) if ns < fault_ns and state is not None]
            if before and before[-1] != "live":
                return 0.0
            times += [ns for ns, state in list(states) if ns >= fault_ns and state not in (None, "live")][:1]
        return round((min(times) - fault_ns) / 1e6, 1) if times else None

    def hang_seen_ms(self, node, fault_ns):
        """When `millrace run` first reported that a node hangs."""
        words = re.compile(rf"\b{re.escape(node)}\b.*(hang|hung|sign of life|not answer)")
        return next((round((ns - fault_ns) / 1e6, 1) for ns, line in list(self.run.lines) if ns > fault_ns and words.search(line)), None)

    def drops(self, camera, nodes):
        """Pictures that these nodes counted as lost of a camera, or left out on purpose, in all their processes; of a sink
        those of its detections. Encoded pictures are another matter: each is a picture that is decoded as well."""
        by_cause = Counter()
        for (node, _), (_, report) in list(self.reports.last.items()):
            if node not in nodes:
                continue
            for drop in report["drops"]:
                of_others = drop["port"] == "packet" or node.startswith("page") and drop["port"] == "frame"
                if drop["source"] == camera and not of_others:
                    by_cause[drop["cause"]] += drop["value"]
            for counter in report["counters"]:
                if counter["source"] == camera and counter["name"] in verdict.LEFT_OUT:
                    by_cause[counter["name"]] += counter["value"]
        return by_cause

    def counted(self, name, camera, nodes, port=None):
        """The sum of a counter over all processes of some nodes; None where none of them has it."""
        values = [
            c["value"]
            for (node, _), (_, report) in list(self.reports.last.items())
            for c in report["counters"]
            if c["name"] == name and c["source"] == camera and node in nodes and port in (None, c["port"])
        ]
        return sum(values) if values else None

    def begin_first(self, suite):
        """Faults that are there before the graph starts."""
        for fault in suite:
            for camera in fault.hits(self.cameras):
                faults_of.begin(fault, camera)

    def end_first(self, suite):
        """They are over, all at once, after the longest of their times, which begins when all nodes run."""
        for fault in suite:
            fault.fault_ns = time.monotonic_ns()
        time.sleep(max((f.seconds for f in suite), default=0))
        for fault in suite:
            for camera in fault.hits(self.cameras):
                faults_of.end(fault, camera)
            fault.cure_ns = time.monotonic_ns()
        for fault in suite:
            # counting silences all cameras, which belongs into no fault's time
            self.look(fault, count=fault is suite[-1])

    def go_through(self, suite):
        """One fault after the other, each until all is well again."""
        for fault in suite:
            faults_of.apply(fault, self.cameras, self)
            self.look(fault)
            if self.ended:
                self.problems.append(f"{fault.name}: the whole graph ended")
                return

    def unaccounted(self):
        """Of each camera what was received and is neither delivered nor named, while all cameras are quiet for a moment.
        What its decoder holds for its order is still on its way."""
        playing = [c for c in self.cameras if c.process is not None]
        for camera in playing:
            camera.command(stall=True)
        time.sleep(1.3)  # shorter than a stall, and long enough for the last picture and two reports behind it
        left = {}
        for camera in self.cameras:
            received = self.counted("received", camera.id, self.sources)
            if received is not None:
                left[camera.id] = verdict.unaccounted(received, len(self.seen(camera.id)), self.drops(camera.id, self.shown_by))
        for camera in playing:
            camera.command(stall=False)
        began = time.monotonic_ns()
        wait_for("pictures again", 10, lambda: self.ended or all(any(m.ns > began for m in self.seen(c.id)[-1:]) for c in playing))
        return left

    def calm(self, fault):
        """How the one camera that goes on is served once all others have fallen silent, and when it is served as usual."""
        camera = next(c for c in self.cameras if c.id == fault.target)
        history, begin, end = camera.history(), fault.fault_ns + 1_000_000_000, fault.cure_ns - 200_000_000
        arrived = {(m.stamp.life, m.stamp.frame): m.ns for m in self.seen(camera.id) if m.stamp}
        since = {key: ns for key, ns in history.sent.items() if fault.fault_ns <= ns <= end}
        old = [arrived[key] for key, ns in since.items() if key in arrived and arrived[key] - ns > USUAL_NS]
        later = [key for key, ns in since.items() if ns >= begin]
        return {
            "recovered_ms": round((max(old) - fault.fault_ns) / 1e6) if old else 0,
            "sent_after_1_s": len(later), "delivered": sum(key in arrived for key in later),
            "age_ms": verdict.quantiles_ms([arrived[key] - since[key] for key in later if key in arrived]),
        }  # fmt: skip

    def look(self, fault, count=True):
        """Waits until all is well again, and notes what was seen of the fault; with `count`, also whether all pictures have a fate."""
        hit = fault.hits(self.cameras)
        healed = {}
        until = time.monotonic() + 30
        while time.monotonic() < until and len(healed) < len(hit) and not self.ended:
            time.sleep(0.2)
            for camera in hit:
                if camera.id not in healed:
                    ms = verdict.healed_ms(camera.history(), self.seen(camera.id), fault.cure_ns)
                    if ms is not None:
                        healed[camera.id] = ms
        time.sleep(2)
        fault.end_ns = time.monotonic_ns()
        gap = lambda c: verdict.largest_gap_ms(self.seen(c.id), c.history(), fault.fault_ns, fault.end_ns)  # noqa: E731
        result = fault.result
        result["healed_ms"] = {c.id: healed.get(c.id) for c in hit}
        if fault.is_lasting:
            result["seen_ms"] = {c.id: self.first_sight_ms(c.id, fault.fault_ns) for c in hit}
        if fault.kind == "stop":
            result["hang_seen_ms"] = self.hang_seen_ms(fault.target, fault.fault_ns)
        result["gap_ms"] = {c.id: gap(c) for c in hit}
        if others := [c for c in self.cameras if c not in hit]:
            result["others_gap_ms"] = {c.id: gap(c) for c in others}
        if fault.kind == "calm":
            result["calm"] = self.calm(fault)
        if (late := self.machine.worst_ms(fault.fault_ns, fault.end_ns)) > 20:
            result["machine_late_ms"] = late
        from_before = {c.id: verdict.shown_from_before_ms(c.history(), self.seen(c.id), fault.fault_ns, fault.cure_ns) for c in hit}
        if any(from_before.values()):
            result["from_before_ms"] = {camera: ages for camera, ages in from_before.items() if ages}
        if count and not self.ended:
            result["unaccounted"] = self.unaccounted()
        print(f"  {fault.name}: {result}", flush=True)
