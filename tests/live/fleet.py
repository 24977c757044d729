"""The cameras of a run: a process each, what they wrote down, and what can be done to them."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

from clip import Clip
from pattern import Stamp

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"  # Debian's: the GStreamer bindings are not on PyPI


class Missing(RuntimeError):
    """The RTSP server's packages are not installed."""


def camera_arguments(parser, fps=25, codecs="h264", b_frames="0", transports="tcp"):
    """Options that say which cameras there are; `fleet` makes them."""
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--fps", type=int, default=fps)
    parser.add_argument("--codecs", default=codecs, help="h264, h265; a list goes round the cameras")
    parser.add_argument("--b-frames", default=b_frames, help="a list goes round the cameras: 0,2")
    parser.add_argument("--transports", default=transports, help="tcp, udp; a list goes round the cameras")
    parser.add_argument("--clips", help="folder of clip.py's clips, which the cameras play; they have their own size, rate and codec")
    parser.add_argument("--picture-bytes", type=int, default=0, help="with --clips: filler data makes each picture as large as this")


def fleet(args, folder, **more):
    """The cameras of these arguments, not started. `more` has settings of all, or for each a function of its number."""
    width, height = (int(n) for n in args.size.split("x"))
    codecs, b_frames, transports = args.codecs.split(","), [int(n) for n in args.b_frames.split(",")], args.transports.split(",")
    made = []
    for n in range(args.cameras):
        settings = {name: value(n) if callable(value) else value for name, value in more.items()}
        settings["transport"] = transports[n % len(transports)]
        if args.clips:
            settings.update(clip=os.path.abspath(os.path.join(args.clips, f"cam{n + 1}.clip")), picture_bytes=args.picture_bytes)
        else:
            settings.update(width=width, height=height, fps=args.fps, codec=codecs[n % len(codecs)], b_frames=b_frames[n % len(b_frames)], seed=n)
        made.append(Camera(n + 1, folder, **settings))
    return made


GIVEN = set()


def free_port():
    """A port that nobody listens on and that was not given before, below those that the system gives to outgoing connections:
    it has to stay free while its server is away."""
    while True:
        port = random.randrange(20_000, 32_000)
        if port in GIVEN:
            continue
        GIVEN.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Camera:
    """One camera: a server process that can be killed, stopped and started, always on the same port."""

    def __init__(self, number, folder, **settings):
        self.number = number
        self.id = settings.pop("id", f"cam{number}")
        self.record = os.path.join(folder, f"{self.id}.record")
        self.transport = settings.pop("transport", "tcp")
        for left in (self.record, self.record + ".err"):  # by a run before this one in the same folder
            if os.path.exists(left):
                os.unlink(left)
        self.settings = {"fps": 25, "user": "", "password": "", "path": "/camera", **settings}
        self.clip = Clip(self.settings["clip"]) if self.settings.get("clip") else None
        self.port = free_port()
        self.life = 0
        self.starts = []  # when its process was started, by life
        self.process = None
        self.silence = None
        self.kills = []  # when its process was killed, by life: (life, ns)

    @property
    def url(self):
        s = self.settings
        user = f"{s['user']}:{s['password']}@" if s["user"] else ""
        return f"rtsp://{user}127.0.0.1:{self.port}{s['path']}"

    def start(self):
        self.life += 1
        settings = {
            "id": self.id, "number": self.number, "port": self.port, "record": self.record, "life": self.life, **self.settings,
        }  # fmt: skip
        program = [sys.executable, "replay.py"] if self.clip else [PYTHON, "camera.py"]
        if not os.path.exists(program[0]):
            raise Missing(f"{program[0]} is absent")
        self.starts.append(time.monotonic_ns())
        with open(self.record + ".err", "ab") as errors:
            self.process = subprocess.Popen(
                [program[0], os.path.join(HERE, program[1]), json.dumps(settings)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        line = self.process.stdout.readline().strip()
        if line.startswith("missing: "):
            self.process.wait()
            self.process = None
            raise Missing(line.removeprefix("missing: "))
        if line != "ready":
            raise RuntimeError(f"{self.id}: {line!r} instead of 'ready'; see {self.record}.err")

    def command(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        if (line := self.process.stdout.readline().strip()) != "done":
            raise RuntimeError(f"{self.id}: {line!r} instead of 'done' to {command}; see {self.record}.err")

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.kills.append((self.life, time.monotonic_ns()))
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def fall_silent(self):
        """In the server's place something that accepts connections and says nothing."""
        self.kill()
        self.silence = Silence(self.port)

    def speak(self):
        self.silence.close()
        self.silence = None
        self.start()

    def close(self):
        if self.silence is not None:
            self.silence.close()
        self.kill()

    def numbered(self, stamp, ns):
        """What a picture says that arrived at `ns`. One of a clip says only where in the clip it is: it is taken for the newest of
        these, so one that is older by a whole clip counts as shown twice."""
        if self.clip is None or stamp.camera != self.number:
            return stamp
        frame = self.clip.newest(stamp.frame, ns)
        made_ns = self.clip.made_ns(frame)
        life = sum(start <= made_ns for start in self.starts)
        return Stamp(stamp.camera, life, frame, made_ns // 1_000_000 & 0xFFFF)

    def history(self):
        """What the server wrote down."""
        history = History()
        if os.path.exists(self.record):
            with open(self.record) as lines:
                for line in lines:
                    if line.endswith("\n"):
                        history.add(*line.split())
        for life, ns in self.kills:
            history.ended(life, ns)
        return history


class History:
    """What one camera did. Pictures are (life, frame)."""

    def __init__(self):
        self.made, self.sent, self.hurt, self.vanished = {}, {}, set(), set()
        self.connections = []  # [life, from_ns, to_ns or None]

    def add(self, what, life, number, ns):
        ns = int(ns)
        key = None if number == "None" else (int(life), int(number))
        if what == "made":
            self.made[key] = ns
        elif what == "sent" and key is not None:
            self.sent[key] = ns
        elif what in ("hurt", "hurt_last"):
            self.hurt.add(key)
        elif what == "vanished":
            self.vanished.add(key)
        elif what == "play":
            self.connections.append([int(life), ns, None, int(number)])
        elif what == "gone":
            for connection in self.connections:
                if connection[0] == int(life) and connection[3] == int(number):
                    connection[2] = ns

    def since(self, stamp):
        """The same without the pictures before this one."""
        first = (stamp.life, stamp.frame) if stamp else None
        later = History()
        later.made, later.hurt, later.vanished, later.connections = self.made, self.hurt, self.vanished, self.connections
        later.sent = {key: ns for key, ns in self.sent.items() if first is not None and key >= first}
        return later

    def ended(self, life, ns):
        for connection in self.connections:
            if connection[0] == life and connection[2] is None:
                connection[2] = ns


class Silence:
    """Accepts connections on a port, reads what comes and never answers."""

    def __init__(self, port):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(16)
        self.held = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                self.held.append(self.listener.accept()[0])
            except OSError:
                return

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.held:
            connection.close()
