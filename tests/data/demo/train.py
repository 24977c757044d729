#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the demo detector on drawn streets and exports it to ONNX. For maintainers; CI never runs it.

    python3 train.py --out OUT                                   # a GPU and 16 cores: about ten minutes
    python3 train.py --measure model/model.onnx                  # only the held-out figures of a model; needs no torch
    python3 train.py --out OUT --worlds 4 --train-s 20 --held-out 2 --workers 2   # a smoke test on a CPU

Each training seed gives one street. Eight to twelve moments of it are drawn at a random hour, given noise, coded with
H.264 at a random quality, decoded again, and resized to the model's input twice: as the product letterboxes them, and
with a random zoom and shift. Training seeds start at 100000, held-out seeds at 900000; the shipped clip has seed 7.
"""
import argparse
import io
import json
import multiprocessing as mp
import os
import random
import time

import cv2
import numpy as np

import evaluate
import infer_reference as ref
import scenes

TRAIN_SEED, HELD_OUT_SEED = 100_000, 900_000
MAX_BOXES = 64
CLASSES = len(scenes.LABELS)


# --- data -------------------------------------------------------------------------------------------------------------
def coded(frames, crf, preset, bframes):
    """Frames through H.264 and back, as RGB."""
    import av
    from fractions import Fraction
    buf = io.BytesIO()
    with av.open(buf, "w", format="mp4") as out:
        s = out.add_stream("libx264", rate=25)
        s.width, s.height, s.pix_fmt = scenes.WIDTH, scenes.HEIGHT, "yuv420p"
        s.codec_context.thread_count = 1
        s.codec_context.options = {"preset": preset, "crf": str(crf), "x264-params": f"keyint=12:bframes={bframes}:threads=1:lookahead-threads=1"}
        for n, planes in enumerate(frames):
            f = scenes.to_frame(planes)
            f.pts, f.time_base = n, Fraction(1, 25)
            out.mux(s.encode(f))
        out.mux(s.encode(None))
    buf.seek(0)
    with av.open(buf) as clip:
        clip.streams.video[0].thread_type = "NONE"
        return [scenes.to_rgb(*scenes.planes_of(f)) for f in clip.decode(video=0)]


def to_model(boxes, sx, sy, dx, dy):
    """Truth boxes to rows (x1, y1, x2, y2, class, ignore) in model pixels, clipped to the picture's visible part."""
    out = np.zeros((MAX_BOXES, 6), np.float32)
    out[:, 4] = -1
    n = 0
    for b in boxes:
        full = (b["x1"] * sx + dx, b["y1"] * sy + dy, b["x2"] * sx + dx, b["y2"] * sy + dy)
        c = (max(0, full[0]), max(0, full[1]), min(ref.INPUT_W, full[2]), min(ref.INPUT_H, full[3]))
        if c[2] - c[0] < 1.5 or c[3] - c[1] < 3 or n == MAX_BOXES:
            continue
        inside = (c[2] - c[0]) * (c[3] - c[1]) / ((full[2] - full[0]) * (full[3] - full[1]))
        small = c[2] - c[0] < 3 or c[3] - c[1] < 6
        out[n] = (*c, b["class_id"], float(b["ignore"] or small or inside * b["visible"] < scenes.MIN_VISIBLE))
        n += 1
    return out


def street(job):
    """Worker: one seed to (images uint8 (n, 3, 192, 320), boxes (n, MAX_BOXES, 6), truth of the letterboxed ones)."""
    seed, moments, exact_only = job
    cv2.setNumThreads(1)
    rng = random.Random(seed * 31 + 5)
    world = scenes.World(seed, busy=0.7 + 0.9 * rng.random())
    render = scenes.Renderer(world)
    hour = rng.choice([0.0, 3.0, rng.random() * 3, rng.random() * 3])
    gain = 0.3 + 1.3 * rng.random()
    planes, truth = [], []
    for _ in range(moments):
        for _ in range(6 + int(rng.random() * 30)):
            world.advance(1.0 / scenes.FPS)
        hour = min(3.0, hour + rng.random() * 0.08)
        rgb, boxes = render.draw(hour)
        planes.append(scenes.to_yuv420(render.add_noise(rgb, hour, gain)))
        truth.append(boxes)
    frames = coded(planes, 17 + int(rng.random() * 18), rng.choice(["veryfast", "faster"]), rng.choice([0, 2]))
    images, rows = [], []
    scale, _, _, left, top = ref.letterbox(scenes.WIDTH, scenes.HEIGHT)
    for rgb, boxes in zip(frames, truth):
        images.append(np.rint(ref.prepare(rgb) * 255).astype(np.uint8))
        rows.append(to_model(boxes, scale, scale, left, top))
        if exact_only:
            continue
        zoom = scale * 0.75 * 2.3 ** rng.random()
        sx, sy = zoom * (0.92 + 0.16 * rng.random()), zoom
        dx = (ref.INPUT_W - sx * scenes.WIDTH) * rng.random()
        dy = (ref.INPUT_H - sy * scenes.HEIGHT) * (0.35 + 0.65 * rng.random())
        m = np.float32([[1 / sx, 0, (0.5 - dx) / sx - 0.5], [0, 1 / sy, (0.5 - dy) / sy - 0.5]])  # model index to source index
        warped = cv2.warpAffine(rgb, m, (ref.INPUT_W, ref.INPUT_H), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                                borderMode=cv2.BORDER_CONSTANT, borderValue=(114, 114, 114))
        images.append(np.rint(warped).astype(np.uint8).transpose(2, 0, 1))
        rows.append(to_model(boxes, sx, sy, dx, dy))
    return np.ascontiguousarray(np.stack(images)), np.stack(rows), truth


# --- the network --------------------------------------------------------------------------------------------------------
def network():
    import torch
    from torch import nn
    import torch.nn.functional as F

    class Conv(nn.Sequential):
        def __init__(self, a, b, k=1, stride=1, groups=1, act=True):
            super().__init__(nn.Conv2d(a, b, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(b), *([nn.ReLU()] if act else []))

    class Block(nn.Module):
        """Depthwise, then pointwise; with a shortcut where the shape stays."""

        def __init__(self, a, b, k=3, stride=1):
            super().__init__()
            self.body = nn.Sequential(Conv(a, a, k, stride, a), Conv(a, b))
            self.short = a == b and stride == 1

        def forward(self, x):
            return x + self.body(x) if self.short else self.body(x)

    class Net(nn.Module):
        def __init__(self, w=64):
            super().__init__()
            self.s4 = nn.Sequential(Conv(3, 24, 3, 2), Block(24, 40, 3, 2), Block(40, 40), Block(40, 40))
            self.s8 = nn.Sequential(Block(40, w, 5, 2), Block(w, w), Block(w, w), Block(w, w))
            self.s16 = nn.Sequential(Block(w, 96, 5, 2), Block(96, 96, 5), Block(96, 96, 5))
            self.s32 = nn.Sequential(Block(96, 128, 5, 2), Block(128, 128, 5), Block(128, 128, 5))
            self.l8, self.l16, self.l32 = Conv(w, w, act=False), Conv(96, w, act=False), Conv(128, w, act=False)
            self.m16, self.m8 = Block(w, w, 5), nn.Sequential(Block(w, w, 5), Block(w, w, 3))
            self.box = nn.Sequential(Block(w, w, 5), Block(w, w, 3), nn.Conv2d(w, 4, 1))
            self.heat = nn.Sequential(Block(w, w, 3), Block(w, w, 3), nn.Conv2d(w, CLASSES, 1))
            nn.init.constant_(self.heat[-1].bias, -4.0)
            nn.init.constant_(self.box[-1].bias, 1.0)

        def raw(self, x):
            a = self.s8(self.s4(x))
            b = self.s16(a)
            c = self.s32(b)
            b = self.m16(F.relu(self.l16(b) + F.interpolate(self.l32(c), scale_factor=2.0, mode="nearest")))
            a = self.m8(F.relu(self.l8(a) + F.interpolate(b, scale_factor=2.0, mode="nearest")))
            return self.box(a), self.heat(a)

        def forward(self, images):
            box, heat = self.raw(images)
            return torch.cat([F.softplus(box) * float(ref.STRIDE), torch.sigmoid(heat)], 1)

    return Net()


def targets(rows):
    """rows (B, M, 6) to heat (B, C, H, W), weight of the heat loss, box (B, 4, H, W) distances and box weight (B, H, W)."""
    import torch
    h, w = ref.INPUT_H // ref.STRIDE, ref.INPUT_W // ref.STRIDE
    dev = rows.device
    gy = (torch.arange(h, device=dev) + 0.5) * ref.STRIDE
    gx = (torch.arange(w, device=dev) + 0.5) * ref.STRIDE
    x1, y1, x2, y2, cls, ign = rows.unbind(2)
    bw, bh = (x2 - x1).clamp(min=1e-3), (y2 - y1).clamp(min=1e-3)
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    sx, sy = (0.15 * bw).clamp(min=2.8), (0.15 * bh).clamp(min=2.8)
    ex = ((gx - cx[..., None]) / sx[..., None]) ** 2  # B M W
    ey = ((gy - cy[..., None]) / sy[..., None]) ** 2  # B M H
    g = torch.exp(-0.5 * (ey[..., :, None] + ex[..., None, :]))  # B M H W
    iy = (cy / ref.STRIDE).long().clamp(0, h - 1)
    ix = (cx / ref.STRIDE).long().clamp(0, w - 1)
    b, m = rows.shape[:2]
    peak = torch.zeros_like(g, dtype=torch.bool)
    peak.view(b, m, -1).scatter_(2, (iy * w + ix)[..., None], True)
    g = torch.where(peak, torch.ones_like(g), g)
    real = (cls >= 0)[..., None, None]
    counted = real & (ign < 0.5)[..., None, None]
    heat = torch.stack([(g * (counted & (cls == c)[..., None, None])).amax(1) for c in range(CLASSES)], 1)
    masked = torch.stack([(g * (real & (ign > 0.5)[..., None, None] & (cls == c)[..., None, None])).amax(1) for c in range(CLASSES)], 1)
    weight = ((masked < 0.1) | (heat > 0.3)).float()
    strength, owner = (g * counted).max(1)  # B H W
    take = lambda v: torch.gather(v, 1, owner.view(b, -1)).view(b, h, w)
    dist = torch.stack([gx[None, None, :] - take(x1), gy[None, :, None] - take(y1), take(x2) - gx[None, None, :], take(y2) - gy[None, :, None]], 1)
    return heat, weight, dist, torch.where(strength > 0.25, strength, torch.zeros_like(strength))


def loss_of(box, heat, rows):
    import torch
    import torch.nn.functional as F
    want, weight, dist, strength = targets(rows)
    heat = heat.float()
    p = torch.sigmoid(heat).clamp(1e-5, 1 - 1e-5)
    pos = want >= 0.999
    per = torch.where(pos, -((1 - p) ** 2) * torch.log(p), -((1 - want) ** 4) * p ** 2 * torch.log(1 - p)) * weight
    heat_loss = per.sum() / pos.sum().clamp(min=1)
    d = F.softplus(box.float()) * ref.STRIDE
    t = dist.clamp(min=0)
    inter = (torch.minimum(d[:, 0], t[:, 0]) + torch.minimum(d[:, 2], t[:, 2])) * (torch.minimum(d[:, 1], t[:, 1]) + torch.minimum(d[:, 3], t[:, 3]))
    hull = (torch.maximum(d[:, 0], t[:, 0]) + torch.maximum(d[:, 2], t[:, 2])) * (torch.maximum(d[:, 1], t[:, 1]) + torch.maximum(d[:, 3], t[:, 3]))
    union = (d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) + (t[:, 0] + t[:, 2]) * (t[:, 1] + t[:, 3]) - inter
    giou = 1 - inter / union.clamp(min=1e-3) + (hull - union) / hull.clamp(min=1e-3)
    box_loss = (giou * strength).sum() / strength.sum().clamp(min=1)
    return heat_loss, box_loss


def vary(images, rows, gen):
    """Mirror, exposure, contrast, colour balance, gamma and grain, drawn anew for every picture of the batch."""
    import torch
    n, dev = images.shape[0], images.device
    u = lambda *s: torch.rand(*s, device=dev, generator=gen)
    x = images.float() / 255
    flip = u(n) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    f = rows.clone()
    f[..., 0], f[..., 2] = ref.INPUT_W - rows[..., 2], ref.INPUT_W - rows[..., 0]
    rows = torch.where(flip[:, None, None], f, rows)
    gamma = torch.exp((u(n, 1, 1, 1) - 0.5) * 0.5)
    x = x.clamp(min=1e-4) ** gamma
    x = (x - 0.45) * (0.8 + 0.4 * u(n, 1, 1, 1)) + 0.45 + (u(n, 1, 1, 1) - 0.5) * 0.12
    x = x * (1 + (u(n, 3, 1, 1) - 0.5) * 0.16)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (0.6 + 0.7 * u(n, 1, 1, 1))
    x = x + torch.randn(x.shape, device=dev, generator=gen) * (0.02 * u(n, 1, 1, 1))
    return x.clamp(0, 1), rows


# --- measuring ------------------------------------------------------------------------------------------------------------
def boxes_of(head, threshold=0.35, limit=0.5):
    boxes, scores, classes = ref.decode(head, threshold, limit)
    boxes = ref.to_source(boxes, scenes.WIDTH, scenes.HEIGHT)
    return [{"x1": b[0], "y1": b[1], "x2": b[2], "y2": b[3], "score": s, "class_id": int(c)} for b, s, c in zip(boxes.tolist(), scores.tolist(), classes.tolist())]


def measure(path, held, thresholds=(0.05, 0.25, 0.3, 0.35, 0.4)):
    """Prints the figures of an ONNX model on the held-out streets; gives the number of frames."""
    import onnxruntime as ort
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    heads, truth, n = {}, {}, 0
    for x, t in held:
        out = session.run(None, {"images": x.astype(np.float32) / 255})[0]
        for head, boxes in zip(out, t):
            truth[n], heads[n] = boxes, head
            n += 1
    for threshold in thresholds:
        print(f"held-out streets, score threshold {threshold}")
        evaluate.show(evaluate.evaluate(truth, {k: boxes_of(h, threshold) for k, h in heads.items()}, threshold), threshold, 0.5)
    return n


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", help="folder for model.onnx, weights.pt and training.json")
    ap.add_argument("--measure", metavar="ONNX", help="train nothing; measure this model on the held-out streets")
    ap.add_argument("--worlds", type=int, default=4000, help="training streets")
    ap.add_argument("--moments", type=int, default=10, help="frames of each")
    ap.add_argument("--held-out", type=int, default=100, help="held-out streets")
    ap.add_argument("--gen-s", type=float, default=140, help="stop drawing training streets after this long")
    ap.add_argument("--train-s", type=float, default=340, help="train this long")
    ap.add_argument("--batch", type=int, default=256)
    ap.add_argument("--lr", type=float, default=4e-3)
    ap.add_argument("--workers", type=int, default=os.cpu_count())
    args = ap.parse_args()
    if bool(args.out) == bool(args.measure):
        ap.error("give --out or --measure")
    began = time.time()
    log = lambda text: print(f"[{time.time() - began:6.1f} s] {text}", flush=True)

    images, rows, held = [], [], []
    with mp.get_context("spawn").Pool(args.workers) as pool:
        jobs = [(HELD_OUT_SEED + i, 6, True) for i in range(args.held_out)]
        for x, _, truth in pool.imap(street, jobs):
            held.append((x, truth))
        log(f"{args.held_out} held-out streets drawn")
        if args.measure:
            measure(args.measure, held)
            return
        os.makedirs(args.out, exist_ok=True)
        limit = time.time() + args.gen_s
        jobs = ((TRAIN_SEED + i, args.moments, False) for i in range(args.worlds))
        # in order, so that which seeds were used is known: 100000 .. 100000 + drawn - 1
        for x, r, _ in pool.imap(street, jobs):
            images.append(x)
            rows.append(r)
            if time.time() > limit:
                break
        pool.terminate()
    drawn = len(images)
    images, rows = np.concatenate(images), np.concatenate(rows)
    log(f"{drawn} training streets drawn, {len(images)} pictures")

    import torch
    torch.manual_seed(1)
    gpu = torch.cuda.is_available()
    dev = torch.device("cuda" if gpu else "cpu")
    torch.backends.cudnn.benchmark = True
    gen = torch.Generator(device=dev)
    gen.manual_seed(2)
    images, rows = torch.from_numpy(images).to(dev), torch.from_numpy(rows).to(dev)
    net = network().to(dev).to(memory_format=torch.channels_last)
    params = sum(p.numel() for p in net.parameters())
    log(f"{params} parameters, device {torch.cuda.get_device_name(0) if gpu else 'cpu'}, torch {torch.__version__}")
    decay = [p for p in net.parameters() if p.ndim > 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0}], lr=args.lr)

    def follow(kept, now, n):  # a running mean of the weights that forgets its first steps sooner
        torch._foreach_lerp_(kept, now, 1 - min(0.998, (1 + float(n)) / (10 + float(n))))

    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=follow)
    start, step, shown, sums = time.time(), 0, time.time(), [0.0, 0.0, 0]
    net.train()
    while True:
        done = (time.time() - start) / args.train_s
        if done >= 1:
            break
        if step % 4 == 0:
            lr = args.lr * min(1.0, (step + 1) / 300) * (0.5 * (1 + np.cos(np.pi * done)) * 0.99 + 0.01)
            for group in opt.param_groups:
                group["lr"] = lr
        pick = torch.randint(len(images), (args.batch,), device=dev, generator=gen)
        x, r = vary(images[pick], rows[pick], gen)
        with torch.autocast(dev.type, torch.bfloat16, enabled=gpu):
            box, heat = net.raw(x.contiguous(memory_format=torch.channels_last))
        hl, bl = loss_of(box, heat, r)
        opt.zero_grad(set_to_none=True)
        (hl + 2.0 * bl).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        opt.step()
        average.update_parameters(net)
        step += 1
        if time.time() - shown > 20:
            log(f"step {step}, {step * args.batch / len(images):.1f} epochs, heat {hl.item():.4f}, box {bl.item():.4f}")
            shown = time.time()
    trained = time.time() - start
    log(f"trained {trained:.0f} s, {step} steps of {args.batch}, {step * args.batch / len(images):.1f} epochs")

    net = average.module.float().eval().cpu().to(memory_format=torch.contiguous_format)
    path = os.path.join(args.out, "model.onnx")
    torch.onnx.export(net, torch.zeros(1, 3, ref.INPUT_H, ref.INPUT_W), path, input_names=["images"], output_names=["detections"],
                      dynamic_axes={"images": {0: "N"}, "detections": {0: "N"}}, opset_version=17, dynamo=False)
    torch.save(net.state_dict(), os.path.join(args.out, "weights.pt"))
    import onnxruntime as ort
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    probe = torch.rand(2, 3, ref.INPUT_H, ref.INPUT_W)
    with torch.no_grad():
        worst = float(np.abs(session.run(None, {"images": probe.numpy()})[0] - net(probe).numpy()).max())
    log(f"ONNX against torch, largest difference: {worst:.2e}")
    n = measure(path, held)
    with open(os.path.join(args.out, "training.json"), "w") as f:
        json.dump({"streets": drawn, "first_seed": TRAIN_SEED, "pictures": len(images), "held_out_streets": args.held_out, "held_out_frames": n,
                   "parameters": params, "steps": step, "batch": args.batch, "train_s": round(trained, 1), "total_s": round(time.time() - began, 1),
                   "torch": torch.__version__, "device": torch.cuda.get_device_name(0) if gpu else "cpu", "onnx_against_torch": worst}, f, indent=1)
    log("done")


if __name__ == "__main__":
    main()
