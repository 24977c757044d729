#!/usr/bin/env python3
"""Plants a fault of each kind and sees that the verdict finds it, and that it finds nothing where nothing is.

    python3 -m unittest tests/live/test_verdict.py
"""

import os
import sys
import unittest
from collections import namedtuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pattern  # noqa: E402
import verdict  # noqa: E402
from fleet import History  # noqa: E402
from pattern import Stamp  # noqa: E402

Seen = namedtuple("Seen", "ns seq stamp error capture_ns sender_ns")
UNIX = 1_700_000_000_000_000_000
STEP = 40_000_000


def played(frames=100, camera=1):
    """A camera that sent `frames` pictures in one connection, and what a reader of all of them saw."""
    history, seen = History(), []
    history.add("play", 1, 1, 1)
    for n in range(frames):
        made = 1_000_000_000 + n * STEP
        history.add("made", 1, n, made)
        history.add("sent", 1, n, made + 2_000_000)
        seen.append(Seen(made + 10_000_000, n, Stamp(camera, 1, n, made // 1_000_000 & 0xFFFF), None, UNIX + made + 2_500_000, UNIX + made))
    return history, seen


class Verdict(unittest.TestCase):
    def judge(self, history, seen, drops=(), **more):
        return verdict.judge(1, history, seen, dict(drops), **more)

    def assert_found(self, result, words):
        self.assertTrue(any(words in problem for problem in result["problems"]), result["problems"])

    def test_nothing_is_found_where_nothing_is(self):
        history, seen = played()
        result = self.judge(history, seen, received=100)
        self.assertEqual(result["problems"], [])
        self.assertEqual(result["delivered"], 100)
        self.assertEqual(result["age_from_made_ms"], {"min": 10.0, "p50": 10.0, "p95": 10.0, "p99": 10.0, "max": 10.0})
        self.assertEqual(result["age_from_sent_ms"]["p50"], 8.0)
        self.assertEqual(result["largest_gap_ms"], 40.0)

    def test_a_loss_without_a_name(self):
        history, seen = played()
        del seen[50]
        self.assert_found(self.judge(history, seen), "1 pictures are missing without a name")
        self.assert_found(self.judge(history, seen, received=100), "1 unaccounted for")
        named = self.judge(history, seen, {"late": 1}, received=100)
        self.assertEqual(named["problems"], [])
        self.assertEqual(named["missing_runs"], {"inside": [[[1, 50], [1, 50], 1]]})

    def test_a_picture_that_was_received_is_named_also_where_a_process_was_stopped(self):
        history, seen = played()
        outage = [(history.sent[1, 50], history.sent[1, 60])]
        lost = seen[:50] + seen[55:]
        # three of them were never read from the socket of the stopped decoder; two were, and have a name
        named = self.judge(history, lost, {"process_paused": 2}, received=97, outages=outage, unread=True)
        self.assertEqual((named["problems"], named["unaccounted"]), ([], 0))
        self.assert_found(self.judge(history, lost, {"process_paused": 1}, received=97, outages=outage, unread=True), "1 unaccounted for")
        self.assert_found(self.judge(history, lost, {"process_paused": 2}, received=97, outages=outage), "3 pictures are missing without a name")
        # what a killed process had counted is gone with it
        self.assertEqual(self.judge(history, lost, received=97, outages=outage, killed=True)["problems"], [])

    def test_a_loss_that_did_not_happen(self):
        history, seen = played()
        self.assert_found(self.judge(history, seen, {"late": 3}), "3 losses are counted that did not happen")

    def test_a_picture_again(self):
        history, seen = played()
        seen.insert(60, seen[59])
        self.assert_found(self.judge(history, seen), "1 pictures repeated")

    def test_pictures_in_another_order(self):
        history, seen = played()
        seen[10], seen[11] = seen[11], seen[10]
        self.assert_found(self.judge(history, seen), "1 pictures backwards")

    def test_another_cameras_picture(self):
        history, seen = played()
        seen[10] = seen[10]._replace(stamp=Stamp(2, 1, 10, seen[10].stamp.ms))
        self.assert_found(self.judge(history, seen), "1 pictures mixed")

    def test_a_picture_that_was_never_made(self):
        history, seen = played()
        seen[10] = seen[10]._replace(stamp=Stamp(1, 1, 1000, 0))
        self.assert_found(self.judge(history, seen), "1 pictures strangers")

    def test_a_picture_that_cannot_be_read(self):
        history, seen = played()
        seen[10] = seen[10]._replace(stamp=None, error="the two copies differ")
        self.assert_found(self.judge(history, seen), "1 pictures unreadable")

    def test_an_old_picture(self):
        history, seen = played()
        seen[99] = seen[99]._replace(ns=seen[99].ns + 1_100_000_000)
        self.assert_found(self.judge(history, seen), "1 pictures older than 1000 ms")
        end = seen[99].ns
        self.assertEqual(verdict.largest_gap_ms(seen, history, seen[0].ns, end), 1140.0)

    def test_a_picture_that_its_camera_kept_waiting_is_not_old(self):
        history, seen = played()
        for frame in range(51, 100):
            history.sent[1, frame] += 1_500_000_000
        # the last one before the pause leaves the decoder with the next that is sent
        later = [m._replace(ns=m.ns + 1_500_000_000) for m in seen[50:]]
        self.assertNotIn("older", str(self.judge(history, seen[:50] + later)["problems"]))
        # and so does one that was sent a little earlier
        later[0] = later[0]._replace(ns=seen[49].ns + 1_600_000_000)
        self.assertNotIn("older", str(self.judge(history, seen[:49] + [seen[49]._replace(ns=later[0].ns)] + later)["problems"]))
        later[0] = later[0]._replace(ns=later[0].ns + 2_100_000_000)
        self.assert_found(self.judge(history, seen[:50] + later), "1 pictures older than 1000 ms")

    def test_times_in_the_messages(self):
        history, seen = played()
        right = self.judge(history, seen, unix_offset_ns=UNIX)
        self.assertEqual((right["problems"], right["arrival_after_sent_ms"]["max"], right["sender_after_made_ms"]["p50"]), ([], 0.5, 0.0))
        behind = [m._replace(capture_ns=m.capture_ns + 30_000_000) for m in seen]  # stamped behind a queue
        self.assert_found(self.judge(history, behind, unix_offset_ns=UNIX), "capture_ns is not when pictures arrived")
        before = [seen[0]._replace(capture_ns=seen[0].capture_ns - 10_000_000), *seen[1:]]
        self.assert_found(self.judge(history, before, unix_offset_ns=UNIX), "capture_ns is not when pictures arrived")
        wrong = [m._replace(sender_ns=m.sender_ns + 200_000_000) for m in seen]
        self.assert_found(self.judge(history, wrong, unix_offset_ns=UNIX), "sender_ns is not when pictures were made")

    def test_a_gap_that_is_the_cameras_own_does_not_count(self):
        history, seen = played()
        late = 300_000_000
        for n in range(50, 100):
            history.sent[1, n] += late
            seen[n] = seen[n]._replace(ns=seen[n].ns + late)
        self.assertEqual(verdict.largest_gap_ms(seen, history, seen[0].ns, seen[-1].ns), 40.0)
        del seen[70:75]  # and one of five pictures that were lost is one, whatever the camera did
        self.assertEqual(verdict.largest_gap_ms(seen, history, seen[0].ns, seen[-1].ns), 240.0)

    def test_where_pictures_are_missing(self):
        history, seen = played()
        history.add("gone", 1, 1, 1_000_000_000 + 100 * STEP)
        where = self.judge(history, seen[5:50] + seen[51:98])["missing"]
        self.assertEqual({k: where[k] for k in ("before_join", "inside", "at_cut", "all")}, {"before_join": 5, "inside": 1, "at_cut": 2, "all": 8})
        # those that were cut off need no name; those before the first key picture do
        self.assertEqual(self.judge(history, seen[5:98], {"waiting_for_key": 5})["problems"], [])
        # a second connection: what is missing behind the first one's end does not hide in it
        for n in range(100, 120):
            history.add("made", 1, n, 1_000_000_000 + n * STEP)
            history.add("sent", 1, n, 1_002_000_000 + n * STEP)
        history.add("play", 1, 2, 1_000_000_000 + 100 * STEP)
        self.assertEqual(self.judge(history, seen)["missing"]["before_join"], 20)

    def test_what_a_stopped_process_lost_has_a_name(self):
        history, seen = played()
        outage = [(history.sent[1, 50], history.sent[1, 60])]
        lost = seen[:50] + seen[55:]
        self.assert_found(self.judge(history, lost, outages=outage), "5 pictures are missing without a name")
        self.assertEqual(self.judge(history, lost, {"gone": 5}, outages=outage)["problems"], [])
        self.assertEqual(self.judge(history, lost, outages=outage, killed=True)["problems"], [])

    def test_what_a_decoder_held_when_the_cameras_were_stopped(self):
        history, seen = played()
        end = history.sent[1, 99] + 1
        where = self.judge(history, seen[:40] + seen[41:98], {"late": 3}, end_ns=end)["missing"]
        self.assertEqual({k: where[k] for k in ("inside", "at_cut")}, {"inside": 1, "at_cut": 2})

    def test_healing_and_what_is_shown_from_before(self):
        history, seen = played()
        fault, cure = seen[50].ns, seen[60].ns
        after = [m._replace(ns=m.ns + 500_000_000) for m in seen[60:]]
        self.assertEqual(verdict.healed_ms(history, seen[:51] + after, cure), 540.0)
        held = seen[49]._replace(ns=cure + 1)
        self.assertEqual(verdict.shown_from_before_ms(history, seen[:49] + [held] + after, fault, cure), [448])
        self.assertEqual(verdict.shown_from_before_ms(history, seen[:51] + after, fault, cure), [])


class Hops(unittest.TestCase):
    nodes = [
        {"id": "decode", "inputs": {"tick": "dora/timer/secs/5"}, "outputs": ["frame"]},
        {"id": "to-rgb", "inputs": {"frame.a": "decode/frame"}, "outputs": ["tensor"]},
        {"id": "page", "inputs": {"tensor": "to-rgb/tensor"}},
    ]

    @staticmethod
    def reports(taken=98, out=97, shown=97, stranger=()):
        report = lambda node, counters, drops: {  # noqa: E731
            "node": node,
            "counters": [{"name": n, "port": p, "source": "a", "value": v} for n, p, v in counters],
            "drops": [{"cause": c, "port": p, "source": s, "value": v} for c, p, s, v in drops],
        }
        return [
            report("decode", [("out", "frame", 60)], []),
            report("decode", [("out", "frame", 40)], []),  # a second process of it
            report("to-rgb", [("in", "frame", taken), ("out", "tensor", out)], [("late", "frame", "a", 2), ("convert", "", "a", 1), *stranger]),
            report("page", [("in", "tensor", shown)], []),
        ]

    def problems(self, **wrong):
        return verdict.hops(self.nodes, self.reports(**wrong), ["a"])[1]

    def test_the_path_to_a_sink(self):
        nodes = [*self.nodes, {"id": "zenoh", "inputs": {"tensor": "to-rgb/tensor"}}]
        self.assertEqual(verdict.path_to(nodes, ["page"]), {"page", "to-rgb", "decode"})

    def test_what_adds_up(self):
        self.assertEqual(self.problems(), [])

    def test_what_does_not(self):
        self.assertIn("a: 100 were published for to-rgb/frame, which took 97 and counted 2 as lost", self.problems(taken=97))
        self.assertIn("a: to-rgb took 98, published 96 and counted 1 as lost", self.problems(out=96))
        self.assertEqual(["a: 97 were published for page/tensor, which took 96 and counted 0 as lost"], self.problems(shown=96))
        self.assertEqual(["3 losses of to-rgb by 'gone' name no camera"], self.problems(stranger=[("gone", "", "", 3)]))


class Pattern(unittest.TestCase):
    @staticmethod
    def boxes(stamp, scale=1.25, offset=(0.0, 3.0)):
        """What the probe model makes of a stamp, in a source that is so much larger than the model's input."""
        cells = pattern.cells_of(stamp)
        digits = [int("".join(str(int(b)) for b in cells[n : n + 6]), 2) for n in range(0, pattern.CELLS, 6)] + [0] * 4
        names = ("x1", "y1", "x2", "y2")
        made = []
        for n in range(pattern.WORD_BOXES + 1):
            box = {name: (pattern.ORIGIN[k] + digits[4 * n + k]) * scale + offset[k % 2] for k, name in enumerate(names)}
            made.append({**box, "class_id": n, "score": 1.0})
        return made

    def test_what_was_written_is_read(self):
        for stamp in (Stamp(0, 0, 0, 0), Stamp(255, 255, (1 << 24) - 1, 65535), Stamp(7, 3, 123456, 54321)):
            self.assertEqual(pattern.read(self.boxes(stamp)), stamp)
            self.assertEqual(pattern.read(self.boxes(stamp, 7.5, (-3.0, 11.0))), stamp)

    def test_a_wrong_cell_is_found(self):
        boxes = self.boxes(Stamp(7, 3, 123456, 54321))
        boxes[2]["x1"] += 1.25
        with self.assertRaisesRegex(pattern.Unreadable, "two copies differ"):
            pattern.read(boxes)

    def test_two_wrong_cells_that_agree_are_found(self):
        stamp = Stamp(7, 3, 123456, 54321)
        whole = pattern.word_of
        other = whole(stamp)[:-1] + bytes([whole(stamp)[-1] ^ 1])
        pattern.word_of = lambda _: other
        try:
            boxes = self.boxes(stamp)
        finally:
            pattern.word_of = whole
        with self.assertRaisesRegex(pattern.Unreadable, "check sum"):
            pattern.read(boxes)

    def test_a_picture_without_cells_is_found(self):
        with self.assertRaises(pattern.Unreadable):
            pattern.read([])

    def test_the_pattern_fits_pictures_between_4_3_and_16_9(self):
        for width, height in ((160, 90), (320, 180), (640, 480), (1920, 1080), (3840, 2160)):
            self.assertEqual(len(pattern.draw_i420(Stamp(1, 2, 3, 4), width, height)), width * height * 3 // 2)
        with self.assertRaises(ValueError):
            pattern.layout(100, 100)


if __name__ == "__main__":
    unittest.main()
