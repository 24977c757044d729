#!/usr/bin/env python3
"""A zenoh router with TLS and access control, by graphs/zenoh/router.json5, and what each kind of subscriber gets of a graph behind it.

    python zenoh_tls.py --tcp PORT      # where the graph's zenoh-publisher connects to; made certificates need openssl

Prints 'the router listens' when a graph may be started, and ends with 0 when a viewer with a certificate reads detections, states and tokens,
and nobody else reads or writes anything.
"""

import argparse
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import zenoh

CONFIG = pathlib.Path(__file__).parents[2] / "graphs/zenoh/router.json5"
KEYS, FRAMES, LIMIT_S = "millrace/**", 20, 60


def certificates(folder):
    """An authority, and certificates that it signed; and another authority with one."""

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for authority, names in (("ca", ("router", "viewer", "stranger")), ("other", ("forged",))):
        extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        openssl("req", "-x509", *key, "-keyout", f"{authority}.key", "-out", f"{authority}.pem", "-days", "2", "-subj", f"/CN={authority}", *extensions)
        for name in names:
            # the forged one has the viewer's name
            openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={'viewer' if name == 'forged' else name}")
            (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", f"{name}.pem")


def config(values):
    made = zenoh.Config()
    for key, value in {"scouting/multicast/enabled": False, **values}.items():
        made.insert_json5(key, json.dumps(value))
    return made


def router(folder, tcp, tls):
    """The shipped configuration, with other ports and another folder."""
    text = CONFIG.read_text()
    for old, new in (("tcp/127.0.0.1:7447", f"tcp/127.0.0.1:{tcp}"), ("tls/0.0.0.0:7448", f"tls/127.0.0.1:{tls}"), ("/etc/millrace/zenoh", str(folder))):
        assert old in text, f"{CONFIG} has no {old}"
        text = "\n".join(line if line.strip().startswith("//") else line.replace(old, new) for line in text.splitlines())
    return zenoh.open(zenoh.Config.from_json5(text))


def subscriber(folder, tls, name):
    path = "transport/link/tls/"
    values = {"mode": "client", "connect/endpoints": [f"tls/127.0.0.1:{tls}"], "connect/timeout_ms": 3000, path + "root_ca_certificate": str(folder / "ca.pem")}
    if name:
        values |= {path + "connect_certificate": str(folder / f"{name}.pem"), path + "connect_private_key": str(folder / f"{name}.key"), path + "enable_mtls": True}
    return zenoh.open(config(values))


def received(session):
    found = []
    subscription = session.declare_subscriber(KEYS, lambda sample: found.append((str(sample.key_expr), sample.payload.to_bytes())))
    return found, subscription


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tcp", type=int, required=True)
    args = parser.parse_args()
    zenoh.init_log_from_env_or("error")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        folder = pathlib.Path(folder)
        free.bind(("127.0.0.1", 0))
        tls = free.getsockname()[1]
        free.close()
        certificates(folder)
        running = router(folder, args.tcp, tls)
        print("the router listens", flush=True)
        viewer, stranger, writer = (subscriber(folder, tls, name) for name in ("viewer", "stranger", "viewer"))
        of_viewer, keep_viewer = received(viewer)
        of_stranger, keep_stranger = received(stranger)
        on_machine = zenoh.open(config({"mode": "client", "connect/endpoints": [f"tcp/127.0.0.1:{args.tcp}"]}))
        of_machine, keep_machine = received(on_machine)
        until = time.monotonic() + LIMIT_S
        while sum(key.endswith("/detections") for key, _ in of_viewer) < FRAMES and time.monotonic() < until:
            # neither may write
            writer.put("millrace/demo/forged/detections", b"forged")
            time.sleep(0.05)
        seen = [key for key, _ in of_viewer if key.endswith("/detections")]
        states = [reply.ok.payload.to_string() for reply in viewer.get("millrace/*/*/state")]
        tokens = [str(reply.ok.key_expr) for reply in viewer.liveliness().get("millrace/*/*/alive")]
        faults = []
        if len(seen) < FRAMES:
            faults.append(f"the viewer has {len(seen)} detections of {FRAMES}")
        if not states or not tokens:
            faults.append(f"the viewer has states {states} and tokens {tokens}")
        if of_stranger:
            faults.append(f"a certificate with another name reads {of_stranger[0][0]}")
        if not of_machine:
            faults.append("a subscriber on this machine has nothing")
        if any(payload == b"forged" for _, payload in of_viewer + of_machine):
            faults.append("a viewer has written detections")
        for name in (None, "forged"):
            try:
                subscriber(folder, tls, name).close()
                faults.append(f"a subscriber with {'no certificate' if name is None else 'a certificate of another authority'} is let in")
            except zenoh.ZError as error:
                print(f"refused, as it has to be: {str(error).splitlines()[0][:120]}")
        for held in (keep_viewer, keep_stranger, keep_machine):
            held.undeclare()
        for session in (viewer, stranger, writer, on_machine, running):
            session.close()
    for fault in faults:
        print(f"FAULT: {fault}")
    print(f"{len(seen)} detections, {len(states)} states, {len(tokens)} tokens for the viewer; {len(of_stranger)} messages for a stranger")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
