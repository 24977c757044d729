#!/usr/bin/python3
"""One RTSP camera for tests: GStreamer's own server, with pictures that carry their numbers (see pattern.py).

usage: camera.py '{"id": "cam1", "number": 1, "port": 8554, "record": "cam1.log", ...}'

Settings, as one JSON object: id, number (0 to 255, in the pictures), port, record (file, appended to), life (which run of the
camera this is), width, height, fps, codec (h264 or h265), b_frames, key_interval_s, loss (share of RTP packets that are
dropped), seed, user, password, path, join_amid (how many pictures behind a key picture a connection begins).

Prints 'ready' when it listens; 'missing: ...' and exit code 1 where GStreamer or a part of it is absent. Then reads commands
from standard input, one JSON object a line, and answers each by a line 'done':
  {"refuse": 401 | 404 | 503 | 0}  answer so from now on, and end what runs; 0 heals
  {"stall": true | false}          go on with all but the RTP packets
  {"media": {"width": ..., "codec": ..., "b_frames": ...}}  from the next connection on
  {"disconnect": true}             end all connections
The file `record` gets a line for each thing that happened, with nanoseconds of CLOCK_MONOTONIC at its end:
  made LIFE FRAME NS      a picture was drawn
  sent LIFE FRAME NS      the last RTP packet of the picture left the payloader
  hurt, hurt_last LIFE FRAME NS   an RTP packet of this picture, or its last one, was dropped on purpose
  vanished LIFE FRAME NS  all RTP packets of this picture by which it is known were dropped: instead of sent
  play LIFE CONNECTION NS, gone LIFE CONNECTION NS   a client began to play, a client's connection ended
"""

import json
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from pattern import Stamp, draw_i420  # noqa: E402
from rtp import shows  # noqa: E402

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    gi.require_version("GstVideo", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer
except (ImportError, ValueError) as error:
    print(f"missing: {error}", flush=True)
    sys.exit(1)

DEFAULTS = {
    "id": "cam", "number": 0, "port": 8554, "record": "/dev/null", "life": 0, "width": 320, "height": 180, "fps": 25,
    "codec": "h264", "b_frames": 0, "key_interval_s": 1.0, "loss": 0.0, "seed": 1, "user": "", "password": "",
    "path": "/camera", "join_amid": 0,
}  # fmt: skip


def missing_elements(codec):
    names = ["appsrc", "rtph264pay", "h264parse", "x264enc", "identity"]
    if codec == "h265":
        names += ["rtph265pay", "h265parse", "x265enc"]
    return [name for name in names if Gst.ElementFactory.find(name) is None]


def launch(s):
    """The media's pipeline. Encoders keep no more pictures than their B-frames need."""
    keys = max(1, round(s["fps"] * s["key_interval_s"]))
    if s["codec"] == "h264":
        reorder = f"bframes={s['b_frames']} b-adapt=false" if s["b_frames"] else "tune=zerolatency"
        encoder = f"x264enc speed-preset=ultrafast {reorder} rc-lookahead=0 sync-lookahead=0 threads=1 pass=quant quantizer=28 key-int-max={keys}"
        encoder += " ! video/x-h264,profile=main ! h264parse"
        pay = "rtph264pay"
    else:
        if b := s["b_frames"]:
            options = f"bframes={b}:b-adapt=0:rc-lookahead={b + 1}:frame-threads=1:scenecut=0:open-gop=0:qp=28"
            encoder = f"x265enc speed-preset=ultrafast key-int-max={keys} option-string={options} ! h265parse"
        else:
            encoder = f"x265enc speed-preset=ultrafast tune=zerolatency key-int-max={keys} option-string=qp=28:open-gop=0 ! h265parse"
        pay = "rtph265pay"
    caps = f"video/x-raw,format=I420,width={s['width']},height={s['height']},framerate={s['fps']}/1"
    source = f"appsrc name=source is-live=true format=time block=false max-bytes=0 max-buffers=0 caps={caps}"
    # a dropped packet has to be dropped alone: 'identity' splits the payloader's lists
    name = "name=pay0 pt=96 config-interval=1" if not s["loss"] else "pt=96 config-interval=1 ! identity name=pay0"
    return f"( {source} ! {encoder} name=parse ! {pay} {name} )"


class Camera:
    def __init__(self, settings):
        self.s = {**DEFAULTS, **settings}
        if unknown := settings.keys() - DEFAULTS.keys():
            raise SystemExit(f"unknown settings: {sorted(unknown)}")
        self.record_fd = os.open(self.s["record"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.began_ns = time.monotonic_ns()
        self.stalled = False
        self.refusal = 0
        self.connections = 0
        self.clients = {}
        self.random = random.Random(self.s["seed"])
        self.server = GstRtspServer.RTSPServer()
        self.server.set_address("127.0.0.1")
        self.server.set_service(str(self.s["port"]))
        self.server.connect("client-connected", self.client_connected)
        self.factory = GstRtspServer.RTSPMediaFactory()
        self.factory.set_shared(True)
        self.factory.set_launch(launch(self.s))
        self.factory.connect("media-configure", self.media_configure)
        self.open_access()
        self.server.get_mount_points().add_factory(self.s["path"], self.factory)

    def write(self, what, number, ns=None):
        os.write(self.record_fd, f"{what} {self.s['life']} {number} {ns or time.monotonic_ns()}\n".encode())

    # access

    def open_access(self):
        """As the settings say: for all, or for one user."""
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        if self.s["user"]:
            self.server.set_auth(self.auth(self.s["user"], self.s["password"]))
            self.factory.set_permissions(permissions)
        else:
            self.server.set_auth(None)
            self.factory.set_permissions(None)
        self.permissions = permissions

    @staticmethod
    def auth(user, password):
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        return auth

    def refuse(self, status):
        mounts = self.server.get_mount_points()
        if self.refusal == 404:
            mounts.add_factory(self.s["path"], self.factory)
        self.open_access()
        self.refusal = status
        if status == 401:
            self.server.set_auth(self.auth("somebody", f"else-{random.random()}"))
            self.factory.set_permissions(self.permissions)
        elif status == 404:
            mounts.remove_factory(self.s["path"])
        if status:
            self.disconnect()

    def disconnect(self):
        self.server.client_filter(lambda *_: GstRtspServer.RTSPFilterResult.REMOVE)

    # connections

    def client_connected(self, _, client):
        client.connect("pre-describe-request", self.pre_describe)
        client.connect("play-request", self.play)
        client.connect("closed", self.closed)

    def pre_describe(self, *_):
        return GstRtsp.RTSPStatusCode.SERVICE_UNAVAILABLE if self.refusal == 503 else GstRtsp.RTSPStatusCode.OK

    def play(self, client, _):
        if client not in self.clients:
            self.connections += 1
            self.clients[client] = self.connections
            self.write("play", self.connections)

    def closed(self, client):
        if (number := self.clients.pop(client, None)) is not None:
            self.write("gone", number)

    # pictures

    def media_configure(self, _, media):
        media.set_latency(0)
        media.set_rate_control(False)  # no sink waits for a clock: pictures are sent when they are encoded
        s = dict(self.s)
        element = media.get_element()
        source = element.get_by_name("source")
        feed = Feed(self, s, source, media)
        element.get_by_name("parse").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, feed.encoded)
        both = Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST
        element.get_by_name("pay0").get_static_pad("src").add_probe(both, feed.paid)
        media.connect("unprepared", feed.end)
        feed.start()

    def command(self, line):
        command = json.loads(line)
        if "refuse" in command:
            self.refuse(command["refuse"])
        if "stall" in command:
            self.stalled = command["stall"]
        if "media" in command:
            self.s.update(command["media"])
            self.factory.set_launch(launch(self.s))
        if command.get("disconnect"):
            self.disconnect()
        print("done", flush=True)


class Feed(threading.Thread):
    """Draws pictures into one media for as long as it lives. They are numbered by the camera's clock, not by the media."""

    def __init__(self, camera, settings, source, media):
        super().__init__(daemon=True)
        self.camera, self.s, self.source, self.media = camera, settings, source, media
        self.frames = {}  # number of a picture by its presentation time
        self.first_pts = None
        self.offset = None
        self.over = threading.Event()
        self.waits_for_key = False
        self.left_out = 0
        self.passed = 0  # packets of the picture that is being sent by which it is known

    def run(self):
        fps = self.s["fps"]
        step_ns = 1_000_000_000 // fps
        began = self.camera.began_ns
        frame = (time.monotonic_ns() - began) // step_ns + 1
        zero = None
        while not self.over.is_set():
            due = began + frame * step_ns
            wait = due - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            elif wait < -2 * step_ns:  # this process was stopped: a camera shows what is now
                frame += -wait // step_ns
                continue
            if self.over.is_set():
                return
            now = time.monotonic_ns()
            clock = self.source.get_clock()
            if clock is None:  # not playing yet
                frame += 1
                continue
            if zero is None:
                # presentation times are running times, evenly spaced
                zero = clock.get_time() - self.source.get_base_time() - frame * step_ns
            stamp = Stamp(self.s["number"], self.s["life"], frame, now // 1_000_000)
            buffer = Gst.Buffer.new_wrapped(draw_i420(stamp, self.s["width"], self.s["height"]))
            buffer.pts = zero + frame * step_ns
            buffer.duration = step_ns
            self.frames[buffer.pts] = frame
            if self.first_pts is None:
                self.first_pts = buffer.pts
            self.camera.write("made", frame, now)
            if self.source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return
            frame += 1
            if len(self.frames) > 500:
                self.frames.pop(next(iter(self.frames)))

    def frame_at(self, pts):
        if self.offset is None:  # encoders with B-frames move all times by a constant
            self.offset = pts - self.first_pts
        return self.frames.get(pts - self.offset)

    def encoded(self, _, info):
        self.frame_at(info.get_buffer().pts)
        if self.left_out < self.s["join_amid"]:  # the encoder begins with a key picture, other cameras do not
            self.left_out += 1
            return Gst.PadProbeReturn.DROP
        key = not info.get_buffer().has_flags(Gst.BufferFlags.DELTA_UNIT)
        # after a stall the stream goes on at a key picture: nothing in it would say that pictures are missing
        self.waits_for_key = self.camera.stalled or (self.waits_for_key and not key)
        return Gst.PadProbeReturn.DROP if self.waits_for_key else Gst.PadProbeReturn.OK

    def paid(self, _, info):
        buffers = info.get_buffer_list() if info.type & Gst.PadProbeType.BUFFER_LIST else None
        packets = [buffers.get(n) for n in range(buffers.length())] if buffers else [info.get_buffer()]
        verdict = Gst.PadProbeReturn.OK
        for packet in packets:
            frame = self.frame_at(packet.pts)
            # with loss, packets come one by one
            dropped = self.s["loss"] and self.camera.random.random() < self.s["loss"]
            if dropped:
                self.camera.write("hurt_last" if packet.has_flags(Gst.BufferFlags.MARKER) else "hurt", frame)
                verdict = Gst.PadProbeReturn.DROP
            else:
                self.passed += shows(packet.extract_dup(12, 3), self.s["codec"])  # behind the RTP header, which has no extension here
            if packet.has_flags(Gst.BufferFlags.MARKER):
                self.camera.write("sent" if self.passed else "vanished", frame)
                self.passed = 0
        return verdict

    def end(self, _):
        self.over.set()


def main():
    settings = json.loads(sys.argv[1])
    Gst.init(None)
    if missing := missing_elements(settings.get("codec", "h264")):
        print(f"missing: the GStreamer elements {', '.join(missing)}", flush=True)
        sys.exit(1)
    camera = Camera(settings)
    if camera.server.attach(None) == 0:
        print(f"cannot listen on port {camera.s['port']}", flush=True)
        sys.exit(1)
    loop = GLib.MainLoop()

    def commands():
        for line in sys.stdin:
            GLib.idle_add(lambda line=line: camera.command(line) and False)
        GLib.idle_add(loop.quit)

    threading.Thread(target=commands, daemon=True).start()
    print("ready", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
