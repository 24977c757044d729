#!/usr/bin/env python3
"""Plants faults in a run over hours, and sees that the judge which forgets finds them, also where they cross its spans.

    python3 -m unittest tests/live/test_running.py
"""

import json
import os
import sys
import tempfile
import unittest
from types import SimpleNamespace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../../target/tools/python")]
import running  # noqa: E402
from pattern import Stamp  # noqa: E402
from test_verdict import STEP, Seen  # noqa: E402

START = 1_000_000_000
LATER = 10_000_000


class JudgedInSpans(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.camera = SimpleNamespace(id="cam1", number=1, record=os.path.join(self.folder.name, "cam1.record"))
        self.judge = running.Running([self.camera], os.path.join(self.folder.name, "judge.json"), [])
        self.at = 0

    def span(self, *changes, frames=100):
        """The camera sends, all of it arrives but for the changes, and the span is judged."""
        messages = []
        with open(self.camera.record, "a") as record:
            for n in range(self.at, self.at + frames):
                made = START + n * STEP
                record.write(f"made 1 {n} {made}\nsent 1 {n} {made + 2_000_000}\n")
                messages.append(self.message(n))
        for change in changes:
            change(messages)
        for message in messages:
            self.judge.append(message)
        self.at += frames
        self.judge.judge(START + self.at * STEP + LATER)

    def message(self, n, camera=1, late_ns=LATER, source="cam1"):
        made = START + n * STEP
        return SimpleNamespace(source=source, **Seen(made + late_ns, n, Stamp(camera, 1, n, made // 1_000_000 & 0xFFFF), None, 0, 0)._asdict())

    def sums(self):
        return {name: n for name, n in self.judge.sums["cam1"].items() if n and name not in ("delivered", "oldest_ms")}

    def test_nothing_is_found_where_nothing_is(self):
        for _ in range(50):
            self.span()
        self.assertEqual(self.judge.problems(), [])
        self.assertEqual((self.judge.sums["cam1"]["delivered"], self.judge.records["cam1"].sent), (5000, 5000))
        self.judge.write()
        with open(self.judge.file) as file:
            written = json.load(file)
        self.assertEqual(written["problems"], [])
        self.assertEqual(sum(written["delivered"].values()), 5000)

    def test_what_cameras_wrote_down_is_forgotten(self):
        for _ in range(100):
            self.span()
        self.assertLess(len(self.judge.records["cam1"].history.made), 3300)  # 120 s of 25 pictures, and a span

    def test_a_picture_is_not_shown_again_in_the_next_span(self):
        self.span()
        self.span(lambda messages: messages.insert(0, self.message(99)))
        self.assertEqual(self.sums(), {"backwards": 1})

    def test_each_kind_of_wrong_picture(self):
        self.span()
        self.span(lambda messages: messages.insert(9, messages[8]))
        self.assertEqual(self.sums(), {"repeated": 1})
        self.span(lambda messages: messages.__setitem__(slice(3, 5), messages[4:2:-1]))
        self.assertEqual(self.sums(), {"repeated": 1, "backwards": 1})
        self.span(lambda messages: messages.__setitem__(7, self.message(self.at + 7, camera=2)))
        self.assertEqual(self.sums(), {"repeated": 1, "backwards": 1, "mixed": 1})
        old = self.message(self.at + 99, late_ns=2_000_000_000)
        self.span(lambda messages: messages.__setitem__(99, old))
        self.span()
        self.assertEqual(self.sums(), {"repeated": 1, "backwards": 1, "mixed": 1, "stale": 1})
        self.assertIn("mixed", self.judge.problems()[0])

    def test_a_camera_that_is_none(self):
        self.span(lambda messages: messages.append(self.message(1, source="cam9")))
        self.assertTrue(any("'cam9'" in problem for problem in self.judge.problems()), self.judge.problems())

    def test_a_camera_of_which_nothing_came(self):
        self.span(lambda messages: messages.clear())
        self.assertEqual(self.judge.problems(), ["cam1: nothing was delivered"])


if __name__ == "__main__":
    unittest.main()
