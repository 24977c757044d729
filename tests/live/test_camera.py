#!/usr/bin/env python3
"""Checks that the cameras of these tests follow their commands, by the plainest RTSP client: a socket. The one is GStreamer's
server, the other plays a clip (replay.py): what holds for the one has to hold for the other.

    python3 tests/live/test_camera.py
"""

import os
import re
import socket
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../needs")]
import replay  # noqa: E402
from fleet import Camera, Missing  # noqa: E402
from needs import skip_without  # noqa: E402
from pattern import Stamp  # noqa: E402


def ask(connection, method, url, number, *headers):
    connection.sendall("\r\n".join([f"{method} {url} RTSP/1.0", f"CSeq: {number}", *headers, "", ""]).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        if not (part := connection.recv(65536)):
            raise ConnectionError("the server closed the connection")
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    while length and len(body) < int(length[1]):
        body += connection.recv(65536)
    return int(head.split()[1]), head.decode(), body


class Cameras:
    """What holds for both."""

    SETTINGS = {}
    # how long a connection waits at most for its first key picture
    JOIN_S = 0

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.camera = Camera(1, cls.folder.name, **cls.SETTINGS)
        try:
            cls.camera.start()
        except Missing as missing:
            skip_without("gstreamer", missing)
            raise unittest.SkipTest(f"the RTSP server's packages are missing: {missing}") from missing

    @classmethod
    def tearDownClass(cls):
        cls.camera.close()
        cls.folder.cleanup()

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.camera.port), timeout=5)
        self.addCleanup(connection.close)
        return connection

    def describe(self):
        return ask(self.connect(), "DESCRIBE", self.camera.url, 1, "Accept: application/sdp")

    def play(self):
        """Plays by TCP; the connection, with RTP packets on it."""
        for _ in range(20):
            connection = self.connect()
            status, _, sdp = ask(connection, "DESCRIBE", self.camera.url, 1, "Accept: application/sdp")
            if status != 503:  # GStreamer's answer while it ends what an earlier client had
                break
            time.sleep(0.1)
        self.assertEqual(status, 200)
        control = re.search(rb"m=video.*?a=control:(\S+)", sdp, re.S)[1].decode()
        track = control if control.startswith("rtsp:") else f"{self.camera.url}/{control}"
        status, head, _ = ask(connection, "SETUP", track, 2, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        self.assertEqual(status, 200)
        session = re.search(r"(?i)session: *([^;\r]+)", head)[1]
        status, _, _ = ask(connection, "PLAY", self.camera.url, 3, f"Session: {session}")
        self.assertEqual(status, 200)
        return connection

    @staticmethod
    def bytes_within(connection, seconds):
        """How many bytes come; -1 when the connection ends."""
        connection.settimeout(0.1)
        until, count = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            try:
                part = connection.recv(1 << 16)
            except TimeoutError:
                continue
            except ConnectionResetError:
                return -1
            if not part:
                return -1
            count += len(part)
        return count

    def test_it_describes_and_plays_numbered_pictures(self):
        before = len(self.camera.history().sent)
        connection = self.play()
        self.assertGreater(self.bytes_within(connection, self.JOIN_S + 1), 1000)
        history = self.camera.history()
        self.assertGreaterEqual(len(history.sent) - before, 15)
        self.assertTrue(set(history.sent) <= set(history.made))
        self.assertTrue(all(history.made[key] < ns for key, ns in history.sent.items()))

    def test_it_refuses_with_each_status_ends_what_runs_and_is_well_again(self):
        for status in (401, 404, 503):
            connection = self.play()
            self.camera.command(refuse=status)
            self.assertEqual(self.bytes_within(connection, 2), -1, f"{status}: the connection that played goes on")
            answered, head, _ = self.describe()
            self.assertEqual(answered, status)
            self.assertEqual("WWW-Authenticate" in head, status == 401)
            self.camera.command(refuse=0)
            self.assertEqual(self.describe()[0], 200)

    def test_it_stalls_with_its_connection_open(self):
        connection = self.play()
        self.assertGreater(self.bytes_within(connection, self.JOIN_S + 0.5), 1000)
        self.camera.command(stall=True)
        self.bytes_within(connection, 0.3)
        # sender reports may still come: 28 bytes and 4 around them
        self.assertIn(self.bytes_within(connection, 1), range(0, 200))
        self.camera.command(stall=False)
        self.assertGreater(self.bytes_within(connection, 1.5), 1000)

    def test_it_falls_silent_and_is_gone(self):
        self.camera.fall_silent()
        with self.assertRaises(TimeoutError):
            connection = self.connect()
            connection.settimeout(0.5)
            ask(connection, "OPTIONS", self.camera.url, 1)
        self.camera.speak()
        self.assertEqual(self.describe()[0], 200)
        self.camera.kill()
        with self.assertRaises(ConnectionRefusedError):
            self.connect()
        self.camera.start()
        self.assertEqual(self.describe()[0], 200)

class TheServer(Cameras, unittest.TestCase):
    def test_it_has_another_codec_at_the_next_connection(self):
        self.addCleanup(lambda: (self.camera.command(media={"codec": "h264"}), self.camera.command(disconnect=True)))
        self.camera.command(media={"codec": "h265"})
        self.camera.command(disconnect=True)
        time.sleep(0.3)
        self.assertIn(b"H265", self.describe()[2])


class TheClip(Cameras, unittest.TestCase):
    """A clip of a second with two B-frames, made by clip.py."""

    SETTINGS = {"clip": os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe/cam1.clip")}
    JOIN_S = 1

    def test_a_picture_is_known_again_from_its_place_in_the_clip(self):
        self.play()
        time.sleep(1.2)
        history = self.camera.history()
        # what arrives 30 ms after it was sent says its place modulo the clip's length
        for (life, frame), sent_ns in history.sent.items():
            known = self.camera.numbered(Stamp(1, 0, frame % len(self.camera.clip.pictures), 0), sent_ns + 30_000_000)
            self.assertEqual((known.life, known.frame), (life, frame))
            self.assertEqual(known.ms, history.made[(life, frame)] // 1_000_000 & 0xFFFF)
        # one that is older by a whole clip is taken for a later one, which then comes twice
        (life, frame), sent_ns = list(history.sent.items())[0]
        old = self.camera.numbered(Stamp(1, 0, frame % len(self.camera.clip.pictures), 0), sent_ns + 1_030_000_000)
        self.assertEqual(old.frame, frame + len(self.camera.clip.pictures))

    def test_its_filler_data_makes_pictures_larger_and_changes_nothing_else(self):
        file = self.SETTINGS["clip"]
        plain, large = replay.PacketClip(file, 0), replay.PacketClip(file, 9_000)
        for (number, key, small), (number_too, key_too, padded) in zip(plain.packets, large.packets):
            self.assertEqual((number, key), (number_too, key_too))
            self.assertEqual(padded[: len(small)], small)
            self.assertIn(sum(map(len, padded)), range(9_000, 9_100))

    def test_a_network_loses_packets_doubles_them_and_holds_them_back(self):
        def packets(**network):
            sent = []
            client = replay.Client(None, network)
            client.udp = [type("Socket", (), {"is_closing": lambda _: False, "sendto": lambda _, packet: sent.append(packet)})()] * 2
            for n in range(2_000):
                client.picture([b"%d" % n], 0)
            return sent

        self.assertEqual(len(set(packets())), 2_000)
        self.assertIn(len(packets(loss=0.1)), range(1_700, 1_900))
        twice = packets(twice=0.1)
        self.assertIn(len(twice), range(2_100, 2_300))
        self.assertEqual(len(set(twice)), 2_000)


if __name__ == "__main__":
    unittest.main()
