#!/usr/bin/env python3
"""A soak whose pictures carry numbers: cameras, `millrace soak`, a fault a minute, and a judge that reads the numbers.

    tests/live/soak.py --cameras 16 --for 2h --out report

Starts cameras (camera.py), writes a graph and a file of faults, and runs `millrace soak` over them. Its exit code is that of
`millrace soak`; 77 when the RTSP server's packages are not installed. The report is in --out: soak.html, soak.json, judge.json,
faults.yml. With --machine there are also faults that all of the machine feels: give it a machine, or namespaces, of its own.
With --clips the cameras play clips of clip.py, and no
RTSP server has to be installed; with --gpu the graph's stages run on a GPU.
Faults of cameras are commands of this script:  soak.py tell SOCKET begin|end KIND TARGET [DETAIL]
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests/needs"), os.path.join(ROOT, "target/tools/python")]

import memory  # noqa: E402
from fleet import Missing, camera_arguments, fleet, free_port  # noqa: E402
from needs import skip_without  # noqa: E402

# not where that would take the machine's memory
FILL = "test $(df --output=avail /dev/shm | tail -1) -lt 1048576 && { head -c 1G /dev/zero > /dev/shm/full 2>/dev/null; test -s /dev/shm/full; }"
GPU_FAULTS = os.path.join(HERE, "gpu_faults.py")
CPU_HOG = "for n in 1 2 3 4; do timeout 10 sh -c 'while :; do :; done' & done; wait"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=16)
    camera_arguments(parser, fps=10, codecs="h264,h264,h264,h265", b_frames="0,2,0,0", transports="tcp,tcp,udp,tcp")
    parser.add_argument("--for", dest="length", default="2h", help="as `millrace soak` has it")
    parser.add_argument("--every", default="1m", help="from one fault to the next")
    parser.add_argument("--faults", default="all", choices=("all", "outside", "gpu", "none"), help="outside: none that ends a process of the graph; gpu: those of the GPU alone")
    parser.add_argument("--gpu", metavar="LIBRARY", help="nvdec-nv12 in place of sw-nv12, and ort-infer with this ONNX Runtime for CUDA in place of cpu-infer")
    parser.add_argument("--machine", action="store_true", help="also faults that all of the machine feels")
    parser.add_argument("--out", default=os.path.join(ROOT, "target/soak/live"))
    return parser.parse_args()


def schedule(args, ids, tell):
    """The file of faults. Those that end processes come first, so that between them processes live long enough for a slope."""
    one = lambda n: ids[n % len(ids)]  # noqa: E731
    ends = [{"kill": "each"}, {"segv": "each"}, {"kill": "dora"}]
    stops = [{"stop": "each", "for": "5s"}]

    def fault(name, kind, target, seconds=0, detail=None):
        words = " ".join(f"'{word}'" for word in [kind, target] + ([json.dumps(detail)] if detail is not None else []))
        hit = ids if target == "all" else [target] if target in ids else []
        made = {"name": name.format(target), "run": f"{tell} begin {words}"} | ({"cameras": hit} if hit else {})
        return made | ({"undo": f"{tell} end {words}", "for": f"{seconds}s"} if seconds else {})

    # first what a process keeps room for from then on: a step late in its life would look like growth
    sizes = [] if args.clips else [("larger", {"width": 640, "height": 360}), ("smaller", {"width": 320, "height": 180})]
    outside = [
        *(fault(f"{{}} becomes {how}", "media", one(9), 0, size) for how, size in sizes),
        fault("20 subscribers of the page never read", "deaf", "page", 20), fault("4 clients of the page send all the time", "flood", "page", 10),
        fault("200 connections to the page say nothing", "idle", "page", 20), fault("clients of the page come and go", "visits", "page", 20),
        fault("{} is gone for 5 s", "gone", one(0), 5), fault("{} is gone for 60 s", "gone", one(1), 60),
        fault("{} answers 401", "status", one(2), 8, 401), fault("{} answers 404", "status", one(3), 8, 404), fault("{} answers 503", "status", one(4), 8, 503),
        fault("{} accepts connections and is silent", "silent", one(5), 12), fault("{} stalls", "stall", one(6), 10), fault("the process of {} is stopped", "freeze", one(7), 10),
        fault("{} ends its connection", "cut", one(8)), fault("all cameras end their connections", "cut", "all"),
        fault("{} leaves the cameras file and comes back", "remove", one(10), 5),
    ]  # fmt: skip
    if args.clips:  # by UDP
        outside.append(fault("packets of {} are lost, late and come twice", "network", one(2), 10, {"loss": 0.01, "twice": 0.05, "late": 0.05, "late_ms": 30}))
    machine = [
        {"name": "4 processes want all of the processor for 10 s", "run": CPU_HOG},
        {"name": "/dev/shm is full", "run": FILL, "undo": "rm -f /dev/shm/full", "for": "10s"},
    ]  # fmt: skip
    if memory.is_there():
        machine.append(fault("no memory is left for the nodes, while all cameras connect again", "memory", "nodes", 10))
    gpu = [
        fault("another process has all memory of the GPU, while all cameras connect again", "gpu-memory", "all", 10),
        {"name": "a kernel of another process writes to no address", "run": f"{sys.executable} {GPU_FAULTS} fault"},
    ]
    # under CUDA's MPS that ends the contexts of all: it comes last
    faults = {"all": ends + outside + stops, "outside": outside, "gpu": [], "none": []}[args.faults]
    faults += machine if args.machine else []
    faults += gpu if args.gpu and args.faults != "none" else []
    return {"first": args.every, "every": args.every, "faults": faults}


class Tell(threading.Thread):
    """Does to cameras and to the page what a command of the file of faults asks for."""

    def __init__(self, path, cameras, port, folder, judge):
        super().__init__(daemon=True)
        self.cameras, self.port, self.folder, self.judge = {c.id: c for c in cameras}, port, folder, judge
        self.clients, self.limit, self.taker = {}, None, None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rw") as lines:
                try:
                    self.do(*json.loads(lines.readline()))
                    lines.write("done\n")
                except Exception as error:  # it is the command's answer, and fails the fault
                    lines.write(f"{error!r}\n")

    def do(self, when, kind, target, detail=None):
        import faults
        import graph
        from clients import Clients

        detail = None if detail is None else json.loads(detail)
        if target == "page":
            if when == "begin":
                self.clients[kind] = Clients(self.port, kind)
            elif kind in self.clients:
                client = self.clients.pop(kind)
                client.close()
                self.judge.visits += client.visits
        elif kind == "memory":
            if when == "begin":
                self.limit = memory.Limit(graph.PROGRAMS)
                # to connect again needs memory
                self.do("begin", "cut", "all")
            else:
                self.limit.close()
        elif kind == "gpu-memory":
            if when == "begin":
                self.taker = subprocess.Popen([sys.executable, GPU_FAULTS, "memory", "60"], stdout=subprocess.PIPE, text=True)
                if "taken" not in (line := self.taker.stdout.readline()):
                    raise RuntimeError(line or "the GPU's memory was not to be had")
                self.do("begin", "cut", "all")
            else:
                self.taker.kill()
                self.taker.wait()
        elif kind == "remove":
            graph.cameras_file(self.folder, [c for id, c in self.cameras.items() if when == "end" or id != target])
        else:
            at_once = kind in ("cut", "media")
            for camera in self.cameras.values() if target == "all" else [self.cameras[target]]:
                if at_once:
                    faults.begin(faults.Fault(kind, target, detail=detail), camera)
                (faults.end if at_once or when == "end" else faults.begin)(faults.Fault(kind, target, detail=detail), camera)


def tell(path, *words):
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rw") as lines:
        client.connect(path)
        lines.write(json.dumps(words) + "\n")
        lines.flush()
        answer = lines.readline().strip()
    if answer != "done":
        sys.exit(answer)


def soak(args, folder):
    import graph
    from running import Running
    from watch import Page

    cameras = fleet(args, folder)
    port, path = free_port(), os.path.join(folder, "tell")
    decoder, detector = ("nvdec-nv12", "ort-infer") if args.gpu else ("sw-nv12", "cpu-infer")
    nodes = graph.one(graph.cameras_file(folder, cameras), port, detector, args.gpu, free_port(), graph.model("model"), True, decoder)
    file = graph.write(folder, nodes, {})
    os.makedirs(args.out, exist_ok=True)
    faults, judged = os.path.join(args.out, "faults.yml"), os.path.join(args.out, "judge.json")
    ids = [c.id for c in cameras]
    with open(faults, "w") as out:
        json.dump(schedule(args, ids, f"{sys.executable} {os.path.join(HERE, 'soak.py')} tell {path}"), out, indent=1)
    page = Page(port, cameras)
    judge = Running(cameras, judged, page.problems)
    page.seen = judge
    process = teller = None
    try:
        try:
            for camera in cameras:
                camera.start()
        except Missing as missing:
            skip_without("gstreamer", missing)
            return 77
        teller = Tell(path, cameras, port, folder, judge)
        teller.start()
        command = [os.path.join(graph.PROGRAMS, "millrace"), "soak", file, "--no-build", "--for", args.length, "--out", args.out, "--judge", judged]
        process = subprocess.Popen(command + (["--faults", faults] if args.faults != "none" or args.machine else []), cwd=ROOT)
        page.start()
        judge.start()
        return process.wait()
    finally:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()
        if teller is not None and teller.taker is not None:
            teller.taker.kill()
        page.over.set()
        if judge.is_alive():
            judge.over.set()
            judge.join()
        for camera in cameras:
            camera.close()


def main():
    if sys.argv[1:2] == ["tell"]:
        return tell(*sys.argv[2:])
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    folder = tempfile.mkdtemp(prefix="millrace-soak-")
    try:
        return soak(args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
