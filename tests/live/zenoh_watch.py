"""Reads detections from zenoh, as any subscriber would: a second sink beside the page."""

import json
import time
import urllib.parse

import zenoh

from watch import seen, ws_client


class Zenoh:
    """A subscriber that is connected to the publisher's port, and connects again when it goes away."""

    def __init__(self, port, cameras):
        self.port, self.cameras = port, {c.id: c for c in cameras}
        self.seen = []
        self.problems = []
        self.states = {}  # camera: [(ns, state)], whenever it changed
        self.session = None

    def start(self):
        config = zenoh.Config()
        config.insert_json5("mode", '"peer"')
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("scouting/gossip/enabled", "false")
        config.insert_json5("listen/endpoints", "[]")
        config.insert_json5("connect/endpoints", json.dumps([f"tcp/127.0.0.1:{self.port}"]))
        config.insert_json5("connect/timeout_ms", "-1")
        config.insert_json5("connect/exit_on_failure", "false")
        config.insert_json5("connect/retry", '{ period_init_ms: 100, period_max_ms: 200, period_increase_factor: 1.0 }')
        self.session = zenoh.open(config)
        self.session.declare_subscriber("millrace/live/*/detections", self.detections)
        self.session.declare_subscriber("millrace/live/*/state", self.state)

    def detections(self, sample):
        ns = time.monotonic_ns()
        if str(sample.encoding) != "application/json":
            return
        try:
            message = ws_client.check_text(sample.payload.to_bytes().decode())
        except (ws_client.SchemaError, ValueError) as error:
            self.problems.append(str(error))
            return
        camera = urllib.parse.unquote(str(sample.key_expr).split("/")[2])
        if camera != message["source"]:
            self.problems.append(f"a message of {message['source']} came on the key of {camera}")
        self.seen.append(seen(ns, message, self.cameras))

    def state(self, sample):
        ns = time.monotonic_ns()
        try:
            message = ws_client.check_text(sample.payload.to_bytes().decode())
        except (ws_client.SchemaError, ValueError) as error:
            self.problems.append(str(error))
            return
        states = self.states.setdefault(message["source"], [])
        if not states or states[-1][1] != message["state"]:
            states.append((ns, message["state"]))

    def close(self):
        if self.session is not None:
            self.session.close()
