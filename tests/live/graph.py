"""The graphs that are tested: what an operator would write, in two shapes."""

import json
import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# the programs that are tested: those of an installation, or of another build
PROGRAMS = os.environ.get("MILLRACE_PROGRAMS", os.path.join(ROOT, "target/release"))


def model(name):
    """The probe's description: 'model', or 'model-slow' for a detector that is too slow."""
    return os.path.join(ROOT, f"tests/live/probe/{name}.yml")


def node(id, program, inputs, outputs=(), **env):
    made = {"id": id, "path": os.path.join(PROGRAMS, program), "inputs": inputs}
    if outputs:
        made["outputs"] = list(outputs)
    made.update(restart_policy="on-failure", max_restarts=20, restart_window=600, restart_delay=0.5)
    if env:
        made["env"] = env
    return made


def engine(id, detector, tensor, library, model):
    env = {"LIBRARY": library} if detector == "ort-infer" else {}
    return node(id, detector, {"tensor": tensor}, ["detections"], MODEL=model, **env)


def chains(cameras, ports, detector, library, zenoh, model):
    """A chain of nodes for each camera, with a page each: all that there is without fan-in."""
    nodes = []
    for n, (camera, port) in enumerate(zip(cameras, ports), 1):
        env = {"SOURCE": camera.url, "CAMERA": camera.id, "RTSP_TRANSPORT": camera.transport}
        nodes += [
            node(f"decode{n}", "sw-nv12", {"tick": "dora/timer/secs/5"}, ["frame"], **env),
            node(f"to-rgb{n}", "nv12-to-rgb", {"frame": f"decode{n}/frame"}, ["tensor"], MODEL=model),
            engine(f"detect{n}", detector, f"to-rgb{n}/tensor", library, model),
            node(f"page{n}", "ws-publisher", {"detections": f"detect{n}/detections"}, PORT=port),
        ]
        if zenoh:
            nodes.append(node(f"zenoh{n}", "zenoh-publisher", {"detections": f"detect{n}/detections"}, GRAPH="live", LISTEN="tcp/127.0.0.1:0"))
    return nodes


def fan_in(cameras, port, detector, library, zenoh, model):
    """A decoder process for each camera, all in front of one converter."""
    nodes = []
    for n, camera in enumerate(cameras, 1):
        env = {"SOURCE": camera.url, "CAMERA": camera.id, "RTSP_TRANSPORT": camera.transport}
        nodes.append(node(f"decode{n}", "sw-nv12", {"tick": "dora/timer/secs/5"}, ["frame"], **env))
    return nodes + behind({f"frame.{camera.id}": f"decode{n}/frame" for n, camera in enumerate(cameras, 1)}, port, detector, library, zenoh, model)


def one(cameras_file, port, detector, library, zenoh, model):
    """One graph of five processes for all cameras."""
    decode = node("decode", "sw-nv12", {"tick": "dora/timer/secs/5"}, ["frame"], CAMERAS=cameras_file)
    return [decode, *behind({"frame": "decode/frame"}, port, detector, library, zenoh, model)]


def behind(frames, port, detector, library, zenoh, model):
    """What all cameras share behind their decoders."""
    nodes = [
        node("to-rgb", "nv12-to-rgb", frames, ["tensor"], MODEL=model),
        engine("detect", detector, "to-rgb/tensor", library, model),
        node("page", "ws-publisher", {"detections": "detect/detections"}, PORT=port),
    ]
    if zenoh:
        nodes.append(node("zenoh", "zenoh-publisher", {"detections": "detect/detections"}, GRAPH="live", LISTEN="tcp/127.0.0.1:0"))
    return nodes


def cameras_file(folder, cameras):
    """The cameras as data. JSON is YAML."""
    path = os.path.join(folder, "cameras.yml")
    listed = [{"id": c.id, "url": c.url, "transport": c.transport} for c in cameras]
    with open(path, "w") as file:
        json.dump({"cameras": listed}, file, indent=1)
    os.chmod(path, 0o600)
    return path


def write(folder, nodes, env):
    path = os.path.join(folder, "graph.yml")
    with open(path, "w") as file:
        json.dump({"exit_when_nodes_finish": True, "env": {"FLOW": "live", **env}, "nodes": nodes}, file, indent=1)
    return path
