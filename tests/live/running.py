"""The judge of a run over hours: what arrived is held against what was sent, span by span, and forgotten."""

import json
import os
import threading
import time
from collections import defaultdict

import verdict
from fleet import History

SPAN_S = 10
# a span is judged once all that could belong to it has arrived and is written down
LAG_NS = 5_000_000_000
# what cameras wrote down is kept for so long behind the span that is judged
KEPT_NS = 120_000_000_000
# how old a result may be when it is shown: twice MAX_AGE_MS (docs/graphs.md); transport, decoder and reordering come on top
STALE_MS = 2 * 750 + 250
WRONG = ("repeated", "backwards", "mixed", "unreadable", "strangers")


class Record:
    """What one camera writes down, read as it grows."""

    def __init__(self, camera):
        self.camera, self.at, self.rest = camera, 0, b""
        self.history = History()
        self.sent = 0

    def read(self):
        if not os.path.exists(self.camera.record):
            return
        with open(self.camera.record, "rb") as file:
            file.seek(self.at)
            grown = file.read()
        self.at += len(grown)
        *lines, self.rest = (self.rest + grown).split(b"\n")
        for line in lines:
            words = line.decode().split()
            self.sent += words[0] == "sent"
            self.history.add(*words)

    def forget(self, before_ns):
        for kept in (self.history.made, self.history.sent):
            for key in [key for key, ns in kept.items() if ns < before_ns]:
                del kept[key]


class Running(threading.Thread):
    """Judges the messages of one client every ten seconds, and writes the sums down as JSON.

    Pictures that are wrong count over the whole time: of another camera, twice, out of order, unreadable, or older than
    `stale_ms` when they arrive. What is missing is not judged here: the graph's own counters say where it went.
    """

    def __init__(self, cameras, file, problems, stale_ms=STALE_MS):
        super().__init__(daemon=True)
        self.cameras, self.file, self.stale_ms = cameras, file, stale_ms
        self.client_problems = problems  # of the client itself: a list that grows
        self.records = {c.id: Record(c) for c in cameras}
        self.waiting = defaultdict(list)  # messages by camera
        self.last = {}  # the last picture of each camera that was judged
        self.sums = {c.id: {"delivered": 0, "stale": 0, "oldest_ms": 0, **dict.fromkeys(WRONG, 0)} for c in cameras}
        self.examples = []
        self.visits = 0  # clients of the page that came and went
        self.spans = []  # [end of the span in s since the start, pictures delivered, largest age from sending in ms]
        self.began_ns = time.monotonic_ns()
        self.lock = threading.Lock()
        self.over = threading.Event()

    def append(self, message):
        """A message has arrived."""
        with self.lock:
            self.waiting[message.source].append(message)

    def run(self):
        while not self.over.wait(SPAN_S):
            self.judge(time.monotonic_ns() - LAG_NS)
            self.write()
        self.judge(time.monotonic_ns())
        self.write()

    def judge(self, until_ns):
        delivered, oldest = 0, 0
        with self.lock:
            arrived = {c: [m for m in messages if m.ns <= until_ns] for c, messages in self.waiting.items()}
            for camera, messages in arrived.items():
                del self.waiting[camera][: len(messages)]
        for camera in self.cameras:
            record = self.records[camera.id]
            record.read()
            found = self.span(camera, record.history, arrived.pop(camera.id, []))
            delivered, oldest = delivered + found["delivered"], max(oldest, found["age_from_sent_ms"].get("max", 0))
            record.forget(until_ns - KEPT_NS)
        for camera in arrived:
            self.example(f"pictures of '{camera}' arrived, and there is no such camera")
        self.spans.append([round((until_ns - self.began_ns) / 1e9), delivered, round(oldest)])

    def span(self, camera, history, messages):
        """One camera in one span. A picture that is not behind the last one of the spans before is out of order."""
        found = verdict.judge(camera.number, history, messages, {}, stale_ms=self.stale_ms)
        sums = self.sums[camera.id]
        keys = [(m.stamp.life, m.stamp.frame) for m in messages if m.stamp and m.stamp.camera == camera.number]
        if late := [key for key in keys if key <= self.last.get(camera.id, (0, 0))]:
            sums["backwards"] += len(late)
            self.example(f"{camera.id}: {late[:3]} came behind {self.last[camera.id]}")
        self.last[camera.id] = max([self.last.get(camera.id, (0, 0)), *keys])
        for name in WRONG:
            sums[name] += found[name]
            if found[name]:
                self.example(f"{camera.id}: {name}: {found['examples'][name]}")
        sums["delivered"] += found["delivered"]
        sums["stale"] += len(found["stale"])
        sums["oldest_ms"] = max(sums["oldest_ms"], found["age_from_sent_ms"].get("max", 0))
        if found["stale"]:
            self.example(f"{camera.id}: older than {self.stale_ms} ms: {found['stale'][:3]}")
        return found

    def example(self, text):
        if len(self.examples) < 100:
            self.examples.append(f"{(time.monotonic_ns() - self.began_ns) / 1e9:.0f} s: {text}")

    def problems(self):
        found = []
        for camera, sums in self.sums.items():
            wrong = {name: sums[name] for name in (*WRONG, "stale") if sums[name]}
            if wrong:
                found.append(f"{camera}: {wrong}")
            if not sums["delivered"]:
                found.append(f"{camera}: nothing was delivered")
        return found + self.examples[:20] + [f"the client: {text}" for text in self.client_problems[:5]]

    def write(self):
        half = [span for span in self.spans if span[0] <= self.spans[-1][0] / 2]
        first, second = sum(s[1] for s in half), sum(s[1] for s in self.spans[len(half) :])
        result = {
            "problems": self.problems(),
            "cameras": {id: {"sent": self.records[id].sent, **sums} for id, sums in self.sums.items()},
            "sent": sum(r.sent for r in self.records.values()),
            "delivered": {"first half": first, "second half": second},
            "visits": self.visits, "examples": self.examples, "spans": self.spans,
        }  # fmt: skip
        with open(self.file + ".new", "w") as file:
            json.dump(result, file, indent=1)
        os.replace(self.file + ".new", self.file)
