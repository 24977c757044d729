#!/usr/bin/env python3
"""Writes real.json: architectures as their own libraries build and export them, with seeded random weights, the raw outputs that
ONNX Runtime computes for a picture of noise, and what the library's own post-processing finds in them. The second oracle of
tests/heads.rs, beside make_heads.py.

usage: make_real.py FOLDER real.json

FOLDER keeps the exported .onnx files, to try `millrace model add` on. Needs torch, torchvision, transformers (4.46), ultralytics
(8.4), onnx and onnxruntime. Ultralytics is under the AGPL: it is used here as a tool, and nothing of it is in the result.
"""
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch

SIDE, SOURCE, SCORE, IOU, LOOK = 32, (160, 120), 0.4, 0.5, 4
LABELS = ["ash", "birch", "cedar"]
# a picture of 160x120 in an input of 32x32: a fifth as large, 4 rows of padding above and below
LETTERBOX = {"scale": [5, 5], "offset": [0, -20], "source": SOURCE}
STRETCH = {"scale": [SOURCE[0] / SIDE, SOURCE[1] / SIDE], "offset": [0, 0], "source": SOURCE}


def picture(seed):
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)


def settle(network, seed):
    """Random weights whose activations neither vanish nor explode: the statistics of each normalization are those of noise."""
    network.train()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 0.2
    with torch.no_grad():
        for i in range(30):
            network(torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(100 * seed + i)))
    return network.eval()


def outputs(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {k: v.numpy() if hasattr(v, "numpy") else v for k, v in inputs.items()})
    # what the file holds is what is judged
    return {o.name: np.float32(np.vectorize(round_to)(v)) for o, v in zip(session.get_outputs(), found)}


def sure(scores):
    assert np.abs(np.asarray(scores) - SCORE).min() > 2e-3, "a score too near the threshold to judge by"


def box(edges, score, class_id):
    return dict(zip(("x1", "y1", "x2", "y2"), map(float, edges)), score=float(score), class_id=int(class_id))


def rows(mask):
    """Every LOOK-th pixel of a mask; ? where the mask ends within two pixels."""
    mask = np.pad(np.asarray(mask, np.uint8), 3, mode="edge")
    near = np.stack([np.roll(mask, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)])
    text = np.where(near.min(0) != near.max(0), "?", np.where(mask > 0, "1", "0"))[3:-3, 3:-3]
    half = LOOK // 2
    return ["".join(row) for row in text[half::LOOK, half::LOOK]]


def of_ultralytics(folder, name, kind, seed):
    import ultralytics
    from ultralytics.utils import nms, ops
    torch.manual_seed(seed)
    os.chdir(folder)
    # the library's own description of the architecture, with fewer classes
    base = re.sub(r"(\d)n", r"\1", name) + ".yaml"
    [described] = Path(ultralytics.__file__).parent.glob(f"cfg/models/**/{base}")
    Path(base).write_text(re.sub(r"^nc: \d+", f"nc: {len(LABELS)}", described.read_text(), flags=re.M))
    model = ultralytics.YOLO(f"{name}.yaml")
    head, task = model.model.model[-1], model.task
    network = settle(model.model, seed)
    with torch.no_grad():
        if task == "classify":
            head.linear.weight *= 40
        else:
            branches = [(head.cv2, head.cv3)]
            if hasattr(head, "one2one_cv2"):
                branches.append((head.one2one_cv2, head.one2one_cv3))
            for boxes, classes in branches:
                for level in boxes:
                    bins = level[-1].bias.numel() // 4
                    level[-1].weight *= 3
                    level[-1].bias.copy_(1 + torch.rand(4 * bins) if bins == 1 else -0.7 * (torch.arange(bins).float() - 1).abs().repeat(4))
                for level in classes:
                    level[-1].weight.normal_(0, 0.7)
                    level[-1].bias.fill_(-1.0)
    network.names = dict(enumerate(LABELS))
    path = shutil.move(model.export(format="onnx", imgsz=SIDE, simplify=False, opset=12), f"{name}-{SIDE}.onnx")
    raw = outputs(path, images=picture(seed))
    case = {"head": kind, "labels": LABELS, "mapping": LETTERBOX, "outputs": raw}
    if task == "classify":
        scores = raw["output0"][0]
        best = np.argsort(-scores, kind="stable")[:5]
        sure(scores[best])
        return case | {"boxes": [{"class_id": int(i), "score": float(scores[i])} for i in best if scores[i] >= SCORE]}
    found = nms.non_max_suppression(
        torch.tensor(raw["output0"]), SCORE, IOU, nc=len(LABELS), rotated=task == "obb", end2end="end2end" in kind)[0]
    sure(raw["output0"][0, :, 4] if "end2end" in kind else raw["output0"][0, 4:4 + len(LABELS)])
    boxes = []
    size = (SOURCE[1], SOURCE[0])
    if task == "obb":
        turned = ops.scale_boxes((SIDE, SIDE), found[:, :4].clone(), size, xywh=True)
        corners = ops.xywhr2xyxyxyxy(torch.cat([turned, found[:, -1:]], 1))
        for (x, y, w, h), angle, corner, (score, class_id) in zip(turned, found[:, -1], corners, found[:, 4:6]):
            corner = corner.clamp(torch.zeros(2), torch.tensor(SOURCE).float())
            one = box([*corner.min(0)[0], *corner.max(0)[0]], score, class_id)
            if one["x2"] > one["x1"] and one["y2"] > one["y1"]:
                boxes.append(one | {"oriented": [float(v) for v in (x, y, w, h, angle)]})
        return case | {"boxes": boxes}
    edges = ops.scale_boxes((SIDE, SIDE), found[:, :4].clone(), size)
    for i, one in enumerate(found):
        boxes.append(box(edges[i], *one[4:6]))
    if task == "segment":
        masks = ops.process_mask_native(torch.tensor(raw["output1"][0]), found[:, 6:], edges, size)
        for one, mask in zip(boxes, masks):
            one["mask"] = rows(mask)
    elif task == "pose":
        points = found[:, 6:].reshape(len(found), *network.model[-1].kpt_shape)
        for one, of in zip(boxes, ops.scale_coords((SIDE, SIDE), points, size)):
            one["keypoints"] = of.tolist()
    return case | {"boxes": [b for b in boxes if b["x2"] > b["x1"] and b["y2"] > b["y1"]]}


def torchvision_classifier(folder, name, seed):
    import torchvision
    torch.manual_seed(seed)
    network = settle(getattr(torchvision.models, name)(num_classes=len(LABELS)), seed)
    with torch.no_grad():
        list(network.parameters())[-2].mul_(6)
    path = os.path.join(folder, f"{name}-{SIDE}.onnx")
    torch.onnx.export(network, picture(seed), path, input_names=["input"], output_names=["output"], opset_version=12)
    raw = outputs(path, input=picture(seed))
    scores = torch.softmax(torch.tensor(raw["output"][0]), 0)
    best = scores.topk(len(LABELS))
    sure(scores)
    found = [{"class_id": int(i), "score": float(s)} for s, i in zip(*best) if s >= SCORE]
    return {"head": "{kind: classify, output: output, scores: logits}", "labels": LABELS, "mapping": STRETCH, "outputs": raw, "boxes": found}


def rtdetr(folder, seed):
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrImageProcessor, RTDetrResNetConfig
    torch.manual_seed(seed)
    backbone = RTDetrResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type="basic",
                                  out_features=["stage2", "stage3", "stage4"])
    config = RTDetrConfig(
        backbone_config=backbone, use_timm_backbone=False, encoder_hidden_dim=32, encoder_in_channels=[32, 48, 64], d_model=32,
        decoder_in_channels=[32, 32, 32], decoder_layers=2, num_queries=20, encoder_ffn_dim=64, decoder_ffn_dim=64,
        encoder_attention_heads=4, decoder_attention_heads=4, num_labels=len(LABELS), anchor_image_size=[SIDE, SIDE], num_denoising=0)
    network = settle(RTDetrForObjectDetection(config), seed)
    with torch.no_grad():
        for part in [*network.model.decoder.class_embed, network.model.enc_score_head]:
            part.weight.normal_(0, 0.5)
            part.bias.fill_(-1.0)

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, pixels):
            found = self.network(pixels, return_dict=True)
            return found.logits, found.pred_boxes

    path = os.path.join(folder, f"rtdetr-{SIDE}.onnx")
    torch.onnx.export(Plain().eval(), picture(seed), path, input_names=["pixel_values"], output_names=["logits", "pred_boxes"], opset_version=16)
    raw = outputs(path, pixel_values=picture(seed))
    found = type("Found", (), {"logits": torch.tensor(raw["logits"]), "pred_boxes": torch.tensor(raw["pred_boxes"])})
    sure(torch.sigmoid(found.logits).numpy())
    [chosen] = RTDetrImageProcessor().post_process_object_detection(found, threshold=SCORE, target_sizes=[(SOURCE[1], SOURCE[0])])
    order = chosen["scores"].argsort(descending=True)
    edges = chosen["boxes"][order].clamp(torch.zeros(4), torch.tensor([*SOURCE, *SOURCE]).float())
    boxes = [box(*one) for one in zip(edges, chosen["scores"][order], chosen["labels"][order])]
    head = "{kind: rtdetr, boxes: pred_boxes, logits: logits}"
    return {"head": head, "labels": LABELS, "mapping": STRETCH, "outputs": raw, "boxes": boxes}


def round_to(v, digits=5):
    return float(f"{v:.{digits}g}")


def main(folder, path):
    folder, path = os.path.abspath(folder), os.path.abspath(path)
    makers = {
        "yolov8 of Ultralytics": lambda seed: of_ultralytics(folder, "yolov8n", "{kind: yolov8, output: output0}", seed),
        "yolov8-seg of Ultralytics": lambda seed: of_ultralytics(folder, "yolov8n-seg", "{kind: yolov8, output: output0, masks: output1}", seed),
        "yolov8-pose of Ultralytics": lambda seed: of_ultralytics(folder, "yolov8n-pose", "{kind: yolov8, output: output0, keypoints: 17}", seed),
        "yolo11-obb of Ultralytics": lambda seed: of_ultralytics(folder, "yolo11n-obb", "{kind: yolov8, output: output0, oriented: true}", seed),
        "yolo26 of Ultralytics": lambda seed: of_ultralytics(folder, "yolo26n", "{kind: end2end, output: output0}", seed),
        "yolo26-seg of Ultralytics": lambda seed: of_ultralytics(folder, "yolo26n-seg", "{kind: end2end, output: output0, masks: output1}", seed),
        "yolo26-pose of Ultralytics": lambda seed: of_ultralytics(folder, "yolo26n-pose", "{kind: end2end, output: output0, keypoints: 17}", seed),
        "yolo26-obb of Ultralytics": lambda seed: of_ultralytics(folder, "yolo26n-obb", "{kind: end2end, output: output0, oriented: true}", seed),
        "resnet18 of torchvision": lambda seed: torchvision_classifier(folder, "resnet18", seed),
        "mobilenet_v3_small of torchvision": lambda seed: torchvision_classifier(folder, "mobilenet_v3_small", seed),
        "RT-DETR of transformers": lambda seed: rtdetr(folder, seed),
    }
    cases = []
    for name, make in makers.items():
        for seed in range(1, 30):
            try:
                case = make(seed)
                assert len(case["boxes"]) >= (1 if "classify" in case["head"] else 3), "too little is found"
                break
            except AssertionError as why:
                print(f"{name}, seed {seed}: {why}", file=sys.stderr)
        else:
            raise SystemExit(f"{name}: no seed will do")
        print(name, seed, len(case["boxes"]), file=sys.stderr)
        case["outputs"] = [{"name": k, "shape": v.shape, "data": [round_to(x) for x in v.ravel().tolist()]} for k, v in case["outputs"].items()]
        cases.append({"name": name, **case})
    whole = {"input": {"width_px": SIDE, "height_px": SIDE}, "score": SCORE, "iou": IOU, "look": LOOK, "cases": cases}
    with open(path, "w") as out:
        json.dump(whole, out, separators=(",", ":"))
        out.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
