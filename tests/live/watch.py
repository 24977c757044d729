"""What can be seen of a running graph from outside: detections, /stats, and the nodes' status reports."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/clients"))
import ws_client  # noqa: E402
import graph as graph_of  # noqa: E402
from pattern import Unreadable, read  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidHandshake  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

DORA = os.path.join(ROOT, "target/tools/bin/dora")  # as `millrace setup` installs it

Seen = namedtuple("Seen", "ns source seq pts_ns capture_ns sender_ns stamp error width height")


def seen(ns, message, cameras):
    """What a `detections` message that arrived at `ns` says, whichever way it came. `cameras` are those of the run, by id."""
    stamp = error = None
    try:
        stamp = read(message["boxes"])
        if message["source"] in cameras:
            stamp = cameras[message["source"]].numbered(stamp, ns)
    except Unreadable as why:
        error = str(why)
    return Seen(ns, message["source"], message["seq"], message["pts_ns"], message["capture_ns"], message.get("sender_ns"), stamp, error, message["width_px"], message["height_px"])


class Page(threading.Thread):
    """Reads all detections of one page, and connects again when it goes away."""

    def __init__(self, port, cameras):
        super().__init__(daemon=True)
        self.port, self.cameras = port, {c.id: c for c in cameras}
        self.seen = []
        self.problems = []
        self.gaps = 0  # detections that the server says this client was too slow for
        self.connected = []  # when a connection was made
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            try:
                with connect(f"ws://127.0.0.1:{self.port}/ws", max_size=64 << 20, proxy=None, compression=None) as ws:
                    self.connected.append(time.monotonic_ns())
                    self.read(ws)
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                time.sleep(0.02)

    def read(self, ws):
        while not self.over.is_set():
            try:
                text = ws.recv(timeout=0.5)
            except TimeoutError:
                continue
            ns = time.monotonic_ns()
            try:
                message = ws_client.check_text(text)
            except ws_client.SchemaError as error:
                self.problems.append(str(error))
                message = json.loads(text)
            if message["type"] == "gap":
                self.gaps += message["detections"]
            if message["type"] != "detections":
                continue
            self.seen.append(seen(ns, message, self.cameras))


class Stats(threading.Thread):
    """Asks a page for /stats five times a second."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.url = f"http://127.0.0.1:{port}/stats"
        self.answers = []  # (ns, the object, or None where there was no answer)
        self.over = threading.Event()

    def run(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self.over.wait(0.2):
            try:
                answer = json.load(opener.open(self.url, timeout=1))
            except (OSError, ValueError):
                answer = None
            self.answers.append((time.monotonic_ns(), answer))

    def states(self, camera):
        """(ns, state) whenever it was another one than before."""
        last, found = None, []
        for ns, answer in self.answers:
            for row in (answer or {}).get("cameras", ()):
                if row["source"] == camera and row.get("state") != last:
                    last = row.get("state")
                    found.append((ns, last))
        return found


class Reports(threading.Thread):
    """Receives the nodes' status reports, as `millrace` does."""

    def __init__(self, dataflow):
        super().__init__(daemon=True)
        user = os.getuid()
        base = f"/run/user/{user}" if os.path.isdir(f"/run/user/{user}") else "/tmp"
        folder = os.path.join(base, f"millrace-{user}", dataflow)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.path = os.path.join(folder, f"proof-{os.getpid()}")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(self.path)
        self.socket.settimeout(0.5)
        self.last = {}  # (node, pid): (ns, report)
        self.states = {}  # camera: [(ns, node, state)], whenever it changed
        self.count = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            try:
                report = json.loads(self.socket.recv(1 << 20))
            except TimeoutError:
                continue
            self.count += 1
            ns = time.monotonic_ns()
            self.last[report["node"], report["pid"]] = ns, report
            for camera in report.get("cameras", ()):
                states = self.states.setdefault(camera["source"], {}).setdefault(report["node"], [])
                if not states or states[-1][1] != camera["state"]:
                    states.append((ns, camera["state"]))
        os.unlink(self.path)
        self.socket.close()
        try:
            os.rmdir(os.path.dirname(self.path))
        except OSError:  # another watcher listens
            pass


class Machine(threading.Thread):
    """Notes when this machine did not let even an idle process run: no gap can be shorter than that."""

    def __init__(self):
        super().__init__(daemon=True)
        self.late = []  # (when, how much too late this thread was woken), where it was over 20 ms
        self.over = threading.Event()

    def run(self):
        before = time.monotonic_ns()
        while not self.over.wait(0.01):
            now = time.monotonic_ns()
            if now - before > 30_000_000:
                self.late.append((now, now - before - 10_000_000))
            before = now

    def worst_ms(self, begin_ns, end_ns):
        return round(max((late for ns, late in list(self.late) if begin_ns <= ns <= end_ns), default=0) / 1e6, 1)


class Run:
    """`millrace run` of a graph, or `dora run`, which checks nothing and shows nothing."""

    def __init__(self, graph, folder, runner):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CARGO")}
        self.out_path = os.path.join(folder, "run.out")
        self.lines = []  # (ns, line)
        self.process = subprocess.Popen(
            {"millrace": [os.path.join(graph_of.PROGRAMS, "millrace"), "run", graph, "--no-build"], "dora": [DORA, "run", graph]}[runner],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        with open(self.out_path, "w") as out:
            for line in self.process.stdout:
                self.lines.append((time.monotonic_ns(), line.rstrip("\n")))
                out.write(line)
                out.flush()

    def nodes(self):
        """The processes of the nodes: {node: pid}, and the dataflow's id."""
        children = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat") as stat:
                        parent = int(stat.read().rsplit(")", 1)[1].split()[1])
                except (OSError, IndexError):
                    continue
                children.setdefault(parent, []).append(int(name))
        found, dataflow, todo = {}, "", [self.process.pid]
        while todo:
            pid = todo.pop()
            todo += children.get(pid, [])
            try:
                with open(f"/proc/{pid}/environ", "rb") as environ:
                    entries = environ.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            config = next((e for e in entries if e.startswith("DORA_NODE_CONFIG=")), "")
            for line in config.removeprefix("DORA_NODE_CONFIG=").splitlines():
                key, _, value = line.strip().partition(":")
                if key == "node_id":
                    found[value.strip()] = pid
                if key == "dataflow_id":
                    dataflow = value.strip()
        return found, dataflow

    def stop(self, limit_s=15):
        """Ends it, and says how long that took; the exit code."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.reader.join(2)
        return code, time.monotonic() - began


def resources(pid):
    """What a process holds now."""
    held = {"pss_kib": memory_kib([pid]), "fds": 0, "threads": 0, "shared_maps": 0}
    for name, folder in (("fds", "fd"), ("threads", "task")):
        try:
            held[name] = len(os.listdir(f"/proc/{pid}/{folder}"))
        except OSError:
            pass
    try:
        with open(f"/proc/{pid}/maps") as lines:
            held["shared_maps"] = sum("/dev/shm/" in line or "/memfd:" in line for line in lines)
    except OSError:
        pass
    return held


def memory_kib(pids):
    """Proportional set size of all together."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as lines:
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            pass
    return total
