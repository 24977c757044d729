"""Clients of a page that behave badly."""

import base64
import os
import socket
import threading

HELLO = "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n"
# a masked text frame of 1,000 bytes (RFC 6455 5.2) whose text is no command of the page
NOISE = b"\x81\xfe" + (1000).to_bytes(2, "big") + bytes(4) + b"x" * 1000


def connect(port):
    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    client.sendall(HELLO.format(base64.b64encode(os.urandom(16)).decode()).encode())
    return client


class Clients:
    """`deaf`: 20 subscribers that never read. `flood`: four that send all the time. `idle`: 200 connections that say nothing.
    `visits`: one after the other subscribes, reads a message and goes, in two threads."""

    def __init__(self, port, kind):
        self.port, self.over, self.visits = port, threading.Event(), 0
        work = {"flood": [self.flood] * 4, "visits": [self.visit] * 2}.get(kind, [])
        self.threads = [threading.Thread(target=target, daemon=True) for target in work]
        self.held = []
        if kind == "deaf":
            self.held = [connect(port) for _ in range(20)]
        if kind == "idle":
            self.held = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(200)]
        for thread in self.threads:
            thread.start()

    def flood(self):
        while not self.over.is_set():
            try:
                with connect(self.port) as client:
                    while not self.over.wait(0.001):
                        client.sendall(NOISE)
            except OSError:
                self.over.wait(0.05)

    def visit(self):
        while not self.over.is_set():
            try:
                with connect(self.port) as client:
                    client.recv(1000)
                self.visits += 1
            except OSError:
                self.over.wait(0.05)

    def close(self):
        self.over.set()
        for thread in self.threads:
            thread.join(6)
        for client in self.held:
            client.close()
