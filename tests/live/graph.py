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
    # nodes are ended far more often than in operation, where the delay may grow: graphs/cameras.yml
    made.update(restart_policy="on-failure", restart_delay=0.5, max_restart_delay=2, restart_window=300)
    if env:
        made["env"] = env
    return made


def engine(id, detector, tensor, library, model, on_gpu=False):
    env = {"LIBRARY": library} if detector == "ort-infer" else {}
    if on_gpu:
        env.update(PROVIDER="cuda", BATCH="32")
    return node(id, detector, {"tensor": tensor}, ["detections"], MODEL=model, **env)


def zenoh_env(port):
    return {"GRAPH": "live", "LISTEN": f"tcp/127.0.0.1:{port}", "SCOUTING": "false", "ENCODINGS": "json"}


def chains(cameras, ports, detector, library, zenoh, model, pictures):
    """A chain of nodes for each camera, with a page each: all that there is without fan-in."""
    nodes = []
    for n, (camera, port) in enumerate(zip(cameras, ports), 1):
        env = {"SOURCE": camera.url, "CAMERA": camera.id, "RTSP_TRANSPORT": camera.transport}
        nodes += [
            node(f"decode{n}", "sw-nv12", {"tick": "dora/timer/secs/5"}, outputs(pictures), **env),
            node(f"to-rgb{n}", "nv12-to-rgb", {"frame": f"decode{n}/frame"}, ["tensor"], MODEL=model),
            engine(f"detect{n}", detector, f"to-rgb{n}/tensor", library, model),
            page(f"page{n}", f"detect{n}", {f".{n}": f"decode{n}"} if pictures else {}, port),
        ]
        if zenoh:
            nodes.append(node(f"zenoh{n}", "zenoh-publisher", {"detections": f"detect{n}/detections"}, **zenoh_env(0)))
    return nodes


def fan_in(cameras, port, detector, library, zenoh, model, pictures):
    """A decoder process for each camera, all in front of one converter."""
    nodes = []
    for n, camera in enumerate(cameras, 1):
        env = {"SOURCE": camera.url, "CAMERA": camera.id, "RTSP_TRANSPORT": camera.transport}
        nodes.append(node(f"decode{n}", "sw-nv12", {"tick": "dora/timer/secs/5"}, outputs(pictures), **env))
    decoders = {f".{camera.id}": f"decode{n}" for n, camera in enumerate(cameras, 1)}
    return nodes + behind(decoders, port, detector, library, zenoh, model, pictures)


def one(cameras_file, port, detector, library, zenoh, model, pictures, decoder="sw-nv12"):
    """One graph of five processes for all cameras."""
    decode = node("decode", decoder, {"tick": "dora/timer/secs/5"}, outputs(pictures), CAMERAS=cameras_file)
    return [decode, *behind({"": "decode"}, port, detector, library, zenoh, model, pictures, on_gpu=decoder == "nvdec-nv12")]


def behind(decoders, port, detector, library, zenoh, model, pictures, on_gpu=False):
    """What all cameras share behind their decoders, which are given as {what is behind the input's name: decoder}."""
    nodes = [
        node("to-rgb", "nv12-to-rgb", {f"frame{name}": f"{decoder}/frame" for name, decoder in decoders.items()}, ["tensor"], MODEL=model),
        engine("detect", detector, "to-rgb/tensor", library, model, on_gpu),
        page("page", "detect", decoders if pictures else {}, port, on_gpu),
    ]
    if zenoh:
        nodes.append(node("zenoh", "zenoh-publisher", {"detections": "detect/detections"}, **zenoh_env(zenoh)))
    return nodes


def outputs(pictures):
    return ["frame", "packet"] if pictures else ["frame"]


def page(id, detector, decoders, port, on_gpu=False):
    """The page, which shows pictures where it is given decoders. Frames on a GPU cannot become JPEG."""
    inputs = {"detections": f"{detector}/detections"}
    for name, decoder in decoders.items():
        inputs[f"packet{name}"] = f"{decoder}/packet"
        if not on_gpu:
            inputs[f"frame{name}"] = f"{decoder}/frame"
    return node(id, "ws-publisher", inputs, PORT=port)


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
