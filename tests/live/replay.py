#!/usr/bin/env python3
"""One RTSP camera for tests that plays a clip of clip.py again and again: for machines on which no RTSP server can be installed,
and for more cameras than a machine can encode. Python's standard library is all that it needs.

usage: replay.py '{"id": "cam1", "clip": "clips/cam1.clip", "port": 8554, "record": "cam1.log", ...}'

Settings, commands and the record are those of camera.py, but for the size, codec, loss and user, which it has not; and
picture_bytes: filler data makes each picture as large as this, as a camera's with a constant bit rate.
Pictures are numbered by CLOCK_MONOTONIC and the clip's frame rate; the number that a picture carries is that modulo the clip's
length. `made` has the time that follows from the number, early enough for pictures that are sent before their turn. It and `sent`
are written when the picture goes to a client.
"""

import asyncio
import base64
import json
import os
import random
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from clip import Clip  # noqa: E402
from rtp import nal_units, payloads, shows  # noqa: E402

DEFAULTS = {"port": 8554, "record": "/dev/null", "life": 0, "picture_bytes": 0}
CLOCK_HZ, PAYLOAD_TYPE = 90_000, 96
REPORT_S = 1.0
# a client that leaves so much unread is disconnected
UNREAD_BYTES = 32 << 20
# from the Unix epoch to NTP's (RFC 5905, 6)
NTP_EPOCH_S = 2_208_988_800


class PacketClip(Clip):
    """`packets` in decoding order: (number in presentation order, whether it is a key picture, RTP payloads)."""

    def __init__(self, file, picture_bytes):
        super().__init__(file)
        self.packets, self.parameter_sets, at = [], [], 0
        for number, key, size in self.pictures:
            units = nal_units(self.data[at : at + size])
            at += size
            if key and not self.parameter_sets:
                self.parameter_sets = [unit for unit in units if self.is_parameter_set(unit)]
            if (missing := picture_bytes - sum(map(len, units))) > 3:
                units.append(({"h264": b"\x0c", "h265": b"\x4c\x01"}[self.codec] + b"\xff" * missing)[:missing] + b"\x80")
            self.packets.append((number, key, [payload for unit in units for payload in payloads(unit, self.codec)]))

    def is_parameter_set(self, unit):
        return unit[0] & 31 in (7, 8) if self.codec == "h264" else unit[0] >> 1 & 63 in (32, 33, 34)

    def sdp(self):
        """RFC 6184 8.2.1 and RFC 7798 7.2."""
        sets = [base64.b64encode(unit).decode() for unit in self.parameter_sets]
        if self.codec == "h264":
            form = f"packetization-mode=1;sprop-parameter-sets={','.join(sets)}"
        else:
            form = ";".join(f"sprop-{name}={text}" for name, text in zip(("vps", "sps", "pps"), sets))
        name = self.codec.upper()
        return (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=clip\r\nt=0 0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n"
            f"a=rtpmap:96 {name}/{CLOCK_HZ}\r\na=fmtp:96 {form}\r\na=control:stream=0\r\n"
        )


class Client:
    """A connection: what it asked for, and what is sent to it."""

    def __init__(self, writer, network):
        self.network = network
        self.writer, self.number, self.channel, self.udp = writer, None, 0, None
        self.ssrc, self.sequence, self.packets, self.octets = random.getrandbits(32), random.getrandbits(16), 0, 0
        self.reported = 0.0
        self.waits_for_key = True

    def send(self, packet, control=False):
        """Whether the packet leaves this machine."""
        if not self.udp:
            self.writer.write(struct.pack(">cBH", b"$", self.channel + control, len(packet)) + packet)
            return True
        fate, network = random.random(), self.network
        lost, late = network.get("loss", 0), network.get("late", 0)
        if fate < lost:
            return False
        if fate < lost + late:
            asyncio.get_running_loop().call_later(network["late_ms"] / 1000, self.send_now, packet, control)
        else:
            self.send_now(packet, control)
        if random.random() < network.get("twice", 0):
            self.send_now(packet, control)
        return True

    def send_now(self, packet, control):
        if not (transport := self.udp[1 if control else 0]).is_closing():
            transport.sendto(packet)

    def picture(self, payloads, rtp_time):
        """The payloads that leave this machine."""
        left = []
        for n, payload in enumerate(payloads):
            marker = (n == len(payloads) - 1) << 7
            if self.send(struct.pack(">BBHII", 0x80, marker | PAYLOAD_TYPE, self.sequence, rtp_time, self.ssrc) + payload):
                left.append(payload)
            self.sequence = self.sequence + 1 & 0xFFFF
            self.packets, self.octets = self.packets + 1, self.octets + len(payload)
        return left

    def report(self, rtp_time):
        """A sender report (RFC 3550 6.4.1): this picture's RTP time is now."""
        now = time.time() + NTP_EPOCH_S
        body = struct.pack(">IIIIII", self.ssrc, int(now), int(now % 1 * 2**32), rtp_time, self.packets & 0xFFFFFFFF, self.octets & 0xFFFFFFFF)
        self.send(struct.pack(">BBH", 0x80, 200, len(body) // 4) + body, control=True)
        self.reported = time.monotonic()


class Camera:
    def __init__(self, settings):
        self.s = {**DEFAULTS, **settings}
        self.clip = PacketClip(self.s["clip"], self.s["picture_bytes"])
        self.record_fd = os.open(self.s["record"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.refusal, self.stalled, self.connections = 0, False, 0
        self.open, self.playing, self.network = set(), set(), {}

    def write(self, what, number, ns=None):
        os.write(self.record_fd, f"{what} {self.s['life']} {number} {ns or time.monotonic_ns()}\n".encode())

    # connections

    async def connected(self, reader, writer):
        client = Client(writer, self.network)
        self.open.add(client)
        try:
            while not writer.is_closing():
                first = await reader.readexactly(1)
                if first == b"$":  # a receiver report
                    _, length = struct.unpack(">BH", await reader.readexactly(3))
                    await reader.readexactly(length)
                    continue
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
                if not await self.answer(client, head):
                    break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass
        finally:
            self.close(client)

    def close(self, client):
        self.open.discard(client)
        if client in self.playing:
            self.playing.discard(client)
            self.write("gone", client.number)
        for transport in client.udp or ():
            transport.close()
        client.writer.close()

    async def answer(self, client, head):
        request, *lines = head.split("\r\n")
        method, url, _ = request.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        status, extra, body = await self.respond(client, method, url, headers)
        reason = {200: "OK", 401: "Unauthorized", 404: "Not Found", 461: "Unsupported Transport", 501: "Not Implemented", 503: "Service Unavailable"}[status]
        answer = [f"RTSP/1.0 {status} {reason}", f"CSeq: {headers.get('cseq', 0)}", *extra]
        if body:
            answer += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        client.writer.write("\r\n".join([*answer, "", body]).encode())
        if method == "PLAY" and status == 200 and client.number is None:
            self.connections += 1
            client.number = self.connections
            self.playing.add(client)
            self.write("play", client.number)
        return method != "TEARDOWN"

    async def respond(self, client, method, url, headers):
        if self.refusal and method != "OPTIONS":
            return self.refusal, ['WWW-Authenticate: Basic realm="camera"'] if self.refusal == 401 else [], ""
        if method == "OPTIONS":
            return 200, ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"], ""
        if method == "DESCRIBE":
            return 200, [f"Content-Base: {url}/"], self.clip.sdp()
        if method == "SETUP":
            return await self.set_up(client, headers.get("transport", ""))
        known = method in ("PLAY", "GET_PARAMETER", "TEARDOWN")
        return (200 if known else 501), ["Session: 1;timeout=60"], ""

    async def set_up(self, client, transport):
        fields = dict(field.partition("=")[::2] for field in transport.split(",")[0].split(";"))
        if "interleaved" in fields:
            client.channel = int(fields["interleaved"].split("-")[0])
            return 200, [f"Transport: RTP/AVP/TCP;unicast;interleaved={client.channel}-{client.channel + 1}", "Session: 1;timeout=60"], ""
        if "client_port" not in fields:
            return 461, [], ""
        ports = [int(port) for port in fields["client_port"].split("-")]
        host = client.writer.get_extra_info("peername")[0]
        loop = asyncio.get_running_loop()
        client.udp = [(await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0), remote_addr=(host, port)))[0] for port in ports]
        own = "-".join(str(transport.get_extra_info("sockname")[1]) for transport in client.udp)
        return 200, [f"Transport: RTP/AVP;unicast;client_port={fields['client_port']};server_port={own}", "Session: 1;timeout=60"], ""

    # pictures

    async def play(self):
        step_ns, length = self.clip.step_ns, len(self.clip.packets)
        tick = time.monotonic_ns() // step_ns + 1
        while True:
            wait_ns = tick * step_ns - time.monotonic_ns()
            if wait_ns < -2 * step_ns:  # this process was stopped: a camera shows what is now, from a key picture on
                tick += -wait_ns // step_ns
                for client in self.playing:
                    client.waits_for_key = True
                continue
            await asyncio.sleep(max(0, wait_ns / 1e9))
            number, key, payloads = self.clip.packets[tick % length]
            self.send(tick - tick % length + number, key, payloads)
            tick += 1

    def send(self, frame, key, payloads):
        rtp_time = frame * CLOCK_HZ // self.clip.fps & 0xFFFFFFFF
        ready = []
        for client in self.playing:
            # behind a stall it goes on at a key picture: nothing in the stream would say that pictures are missing
            client.waits_for_key = self.stalled or (client.waits_for_key and not key)
            if not client.waits_for_key:
                ready.append(client)
        if not ready:
            return
        self.write("made", frame, self.clip.made_ns(frame))
        what, sent_ns = "sent", time.monotonic_ns()  # a client may have read it before this process goes on
        for client in ready:
            if time.monotonic() - client.reported > REPORT_S:
                client.report(rtp_time)
            left = client.picture(payloads, rtp_time)
            if len(left) < len(payloads):
                self.write("hurt" if left and left[-1] is payloads[-1] else "hurt_last", frame)
                what = "sent" if any(shows(payload, self.clip.codec) for payload in left) else "vanished"
            if client.writer.transport.get_write_buffer_size() > UNREAD_BYTES:
                client.writer.transport.abort()
        self.write(what, frame, sent_ns)

    def command(self, line):
        command = json.loads(line)
        if "media" in command:
            print("a clip has one size and codec", flush=True)
            return
        if "refuse" in command:
            self.refusal = command["refuse"]
        self.stalled = command.get("stall", self.stalled)
        if "network" in command:
            self.network.clear()
            self.network.update(command["network"])
        if command.get("disconnect") or self.refusal:
            for client in list(self.open):
                self.close(client)
        print("done", flush=True)


async def serve(settings):
    camera = Camera(settings)
    await asyncio.start_server(camera.connected, "127.0.0.1", camera.s["port"])
    print("ready", flush=True)
    playing = asyncio.create_task(camera.play())
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        if playing.done():
            playing.result()
        camera.command(line)


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
