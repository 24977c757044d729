"""The cameras of a run: a process each, what they wrote down, and what can be done to them."""

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"  # Debian's: the GStreamer bindings are not on PyPI


class Missing(RuntimeError):
    """The RTSP server's packages are not installed."""


def free_port():
    """A port that nobody listens on, below those that the system gives to outgoing connections: it has to stay free
    while its server is away."""
    while True:
        port = random.randrange(20_000, 32_000)
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
        self.port = free_port()
        self.life = 0
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
        if not os.path.exists(PYTHON):
            raise Missing(f"{PYTHON} is absent")
        with open(self.record + ".err", "ab") as errors:
            self.process = subprocess.Popen(
                [PYTHON, os.path.join(HERE, "camera.py"), json.dumps(settings)],
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
