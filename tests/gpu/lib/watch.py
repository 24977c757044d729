"""What is seen of a running graph from outside: its page's figures, its nodes' reports, its processes, the GPU."""
import collections
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

# where nodes share a process, their own programs sleep and the last one works
PROGRAMS = ["nvdec-nv12", "nv12-to-rgb", "ort-infer", "trt-infer", "ws-publisher", "millrace-stages"]


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def cameras_of(port):
    """{camera: its figures} of /stats; empty while the page is not there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=2) as answer:
            stats = json.load(answer)
    except (OSError, ValueError):
        return {}
    return {camera["source"]: camera for camera in stats.get("cameras", [])}


def age_ms(camera, share):
    """An age of a camera's frames; older builds call it latency."""
    found = camera.get(f"age_{share}_ms")
    return found if found is not None else camera.get(f"latency_{share}_ms")


def cpu_s(pid):
    """Processor seconds of a process."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Reports:
    """The reports of a graph's nodes, which they send to every socket in the dataflow's folder. A report is cumulative, and may
    come in parts: of each figure the newest is kept."""

    def __init__(self, pid_of_a_node):
        environment = pathlib.Path(f"/proc/{pid_of_a_node}/environ").read_bytes().decode(errors="replace")
        dataflow = re.search(r"dataflow_id\W+([0-9a-f-]{36})", environment)
        if dataflow is None:
            raise OSError("a node's environment names no dataflow")
        self.folder = pathlib.Path(tempfile.gettempdir()) / f"millrace-{os.getuid()}" / dataflow[1]
        for folder in (self.folder.parent, self.folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.path = self.folder / f"suite-{os.getpid()}.sock"
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(str(self.path))
        self.socket.settimeout(0.2)
        self.counters, self.drops = collections.defaultdict(dict), collections.defaultdict(dict)
        self.closing = False
        self.thread = threading.Thread(target=self.receive, daemon=True)
        self.thread.start()

    def receive(self):
        while not self.closing:
            try:
                # a report that is too long for a datagram comes in a file beside it
                data, files, _, _ = socket.recv_fds(self.socket, 4 << 20, 1)
                for descriptor in files:
                    # not from its position, which all watchers of the node share
                    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                    os.close(descriptor)
                message = json.loads(data)
            except (TimeoutError, ValueError):
                continue
            except OSError:
                return
            node = message.get("node", "")
            for kind, name in ((self.counters, "counters"), (self.drops, "drops")):
                for row in message.get(name) or []:
                    what = row.get("name") or row.get("cause")
                    kind[node][what, row.get("port", ""), row.get("source", "")] = row["value"]

    def counted(self):
        """{node: {counter: its sum over cameras and ports}}"""
        return {node: self.sums(rows) for node, rows in list(self.counters.items())}

    def lost(self):
        """{node: {cause: frames}}"""
        return {node: self.sums(rows) for node, rows in list(self.drops.items())}

    @staticmethod
    def sums(rows):
        found = collections.Counter()
        for (what, _, _), value in list(rows.items()):
            found[what] += value
        return dict(found)

    def close(self):
        self.closing = True
        self.thread.join()
        self.socket.close()
        self.path.unlink(missing_ok=True)


def differences(before, after):
    """The same structure of what was added; what did not change is left out."""
    found = {}
    for node, rows in after.items():
        added = {what: value - before.get(node, {}).get(what, 0) for what, value in rows.items()}
        if added := {what: value for what, value in added.items() if value}:
            found[node] = added
    return found


class GpuUse:
    """Samples of nvidia-smi, one a second."""

    def __init__(self):
        self.rows, self.names = [], []
        only = os.environ.get("CUDA_VISIBLE_DEVICES")
        command = ["nvidia-smi", "dmon", "-s", "um", "-d", "1", *(["-i", only] if only else [])]
        try:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            self.process = None
            return
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            words = line.replace("#", " ").split()
            if "#" in line:
                self.names = self.names or words
            elif len(words) == len(self.names):
                self.rows.append(dict(zip(self.names, words)))

    def means(self):
        """{column: mean} of what is a number."""
        if self.process is None:
            return {}
        self.process.terminate()
        self.process.wait()
        self.thread.join()
        found = {}
        for name in ("sm", "dec", "fb"):
            values = [float(row[name]) for row in self.rows if row.get(name, "-").isdigit()]
            if values:
                found[name] = sum(values) / len(values)
        return found
