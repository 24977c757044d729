#!/usr/bin/env python3
"""Writes real.json: architectures as their own libraries build and export them, with seeded random weights, the raw outputs that
ONNX Runtime computes for a picture of noise, and what the library's own post-processing finds in them. The second oracle of
tests/heads.rs, beside make_heads.py.

usage: make_real.py FOLDER real.json

FOLDER keeps the exported .onnx files, to try `millrace model add` on. Needs, from PyPI: torch 2.7.1, torchvision 0.22.1,
ultralytics 8.4.190, transformers 5.24.0, rfdetr 1.11.2, pydfine 0.2.1, timm 1.0.31, onnx 1.23.2, onnxruntime 1.32.0 (the
versions that were used). Ultralytics is under the AGPL: it is used here as a tool, and nothing of it is in the result.
"""
import json
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch

# LOOK: every fifth pixel of a mask. None of these is at a cell's centre, where a part may be thinner than a pixel
SIDE, SOURCE, SCORE, IOU, LOOK = 32, (160, 120), 0.4, 0.5, 5
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


def rows(mask, sums):
    """Every LOOK-th pixel of a mask. ? where it ends within a quarter of a prototype's cell, which is 20 pixels wide, since an
    outline is of straight lines, one in each cell; and between four cells of which those across from each other are alike,
    since it may join either two. `sums` are those of the prototypes' cells in the picture."""
    mask = np.pad(np.asarray(mask, np.uint8), 6, mode="edge")
    near = np.stack([np.roll(mask, (dy, dx), (0, 1)) for dy in range(-5, 6) for dx in range(-5, 6)])
    seen = np.where(near.min(0) != near.max(0), "?", np.where(mask > 0, "1", "0"))[6:-6, 6:-6]
    cell_px = SOURCE[0] // sums.shape[1]
    above = np.pad(np.asarray(sums) > 0, 1, mode="edge")
    text = []
    for y in range(LOOK // 2, SOURCE[1], LOOK):
        text.append("")
        for x in range(LOOK // 2, SOURCE[0], LOOK):
            row, column = (int((at + 0.5) / cell_px + 0.5) for at in (y, x))
            (a, b), (c, d) = above[row:row + 2, column:column + 2]
            text[-1] += "?" if a == d != b == c else seen[y, x]
    return text


# without options YOLO26 is exported with the boxes of all cells, as the others are
ULTRALYTICS = [
    ("yolov8n", "kind: yolov8, output: output0", {}),
    ("yolov8n-seg", "kind: yolov8, output: output0, masks: output1", {}),
    ("yolov8n-pose", "kind: yolov8, output: output0, keypoints: 17", {}),
    ("yolo11n-obb", "kind: yolov8, output: output0, oriented: true", {}),
    ("yolov8n-cls", "kind: classify, output: output0", {}),
    ("yolo26n", "kind: yolov8, output: output0", {}),
    ("yolo26n", "kind: end2end, output: output0", {"nms": False}),
    ("yolo26n-seg", "kind: end2end, output: output0, masks: output1", {"nms": False}),
    ("yolo26n-pose", "kind: end2end, output: output0, keypoints: 17", {"nms": False}),
    ("yolo26n-obb", "kind: end2end, output: output0, oriented: true", {"nms": False}),
    ("yolo11n", "kind: end2end, output: output0", {"nms": True, "conf": 0.1}),
]


def of_ultralytics(folder, name, kind, seed, **options):
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
    exported = model.export(format="onnx", imgsz=SIDE, simplify=False, opset=12, **options)
    path = shutil.move(exported, f"{name}{'-e2e' if 'end2end' in kind else ''}-{SIDE}.onnx")
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
        sums = torch.einsum("nc,crs->nrs", found[:, 6:], torch.tensor(raw["output1"][0]))
        # a row of cells above the picture and one below it are of the padding
        for one, mask, of in zip(boxes, masks, sums[:, 1:-1]):
            one["mask"] = rows(mask, of)
    elif task == "pose":
        points = found[:, 6:].reshape(len(found), *network.model[-1].kpt_shape)
        for one, of in zip(boxes, ops.scale_coords((SIDE, SIDE), points, size)):
            one["keypoints"] = of.tolist()
    return case | {"boxes": [b for b in boxes if b["x2"] > b["x1"] and b["y2"] > b["y1"]]}


def export(network, path, example, **names):
    torch.onnx.export(network, example, path, opset_version=16, dynamo=False, **names)


def classifier(folder, name, seed):
    torch.manual_seed(seed)
    library, name = name.split(".")
    if library == "timm":
        import timm
        network = timm.create_model(name, num_classes=len(LABELS))
    else:
        import torchvision
        network = getattr(torchvision.models, name)(num_classes=len(LABELS))
    network = settle(network, seed)
    with torch.no_grad():
        list(network.parameters())[-2].mul_(6)
    path = os.path.join(folder, f"{name}-{SIDE}.onnx")
    export(network, path, picture(seed), input_names=["input"], output_names=["output"])
    raw = outputs(path, input=picture(seed))
    scores = torch.softmax(torch.tensor(raw["output"][0]), 0)
    best = scores.topk(len(LABELS))
    sure(scores)
    found = [{"class_id": int(i), "score": float(s)} for s, i in zip(*best) if s >= SCORE]
    return {"head": "{kind: classify, output: output, scores: logits}", "labels": LABELS, "mapping": STRETCH, "outputs": raw, "boxes": found}


def lively(network):
    """Scores of a random network are all alike: those of its class heads are spread."""
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, torch.nn.Linear) and part.out_features in (len(LABELS), len(LABELS) + 1):
                part.weight.normal_(0, 1.5 / part.in_features ** 0.5)
                part.bias.fill_(-0.7)


def of_detr(raw, results, labels, head):
    """A case of what a library found in the source, with the classes that it may name."""
    boxes = []
    for score, label, edges in zip(results["scores"], results["labels"], results["boxes"]):
        if score >= SCORE:
            low, high = edges[:2].clamp(min=0), torch.minimum(edges[2:], torch.tensor(SOURCE).float())
            boxes.append(box([*low.clamp(max=torch.tensor(SOURCE).float()), *high.clamp(min=0)], score, label))
    boxes = [b for b in boxes if b["x2"] > b["x1"] and b["y2"] > b["y1"]]
    return {"head": head, "labels": labels, "mapping": STRETCH, "outputs": raw, "boxes": boxes}


def dfine_of_transformers(folder, seed):
    from transformers import DFineConfig, DFineForObjectDetection, RTDetrImageProcessor
    from transformers.models.d_fine.modeling_d_fine import DFineObjectDetectionOutput
    torch.manual_seed(seed)
    config = DFineConfig(num_labels=len(LABELS), num_queries=12, decoder_layers=2, encoder_hidden_dim=64, d_model=64,
                         decoder_in_channels=[64] * 3, encoder_ffn_dim=128, decoder_ffn_dim=128, num_denoising=0)
    network = DFineForObjectDetection(config).eval()
    lively(network)

    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            found = self.network(images)
            return found.logits, found.pred_boxes
    path = os.path.join(folder, f"dfine-transformers-{SIDE}.onnx")
    export(Bare().eval(), path, picture(seed), input_names=["pixel_values"], output_names=["logits", "pred_boxes"])
    raw = outputs(path, pixel_values=picture(seed))
    sure(torch.tensor(raw["logits"]).sigmoid())
    given = DFineObjectDetectionOutput(logits=torch.tensor(raw["logits"]), pred_boxes=torch.tensor(raw["pred_boxes"]))
    size = [(SOURCE[1], SOURCE[0])]
    [results] = RTDetrImageProcessor().post_process_object_detection(given, threshold=SCORE, target_sizes=size)
    return of_detr(raw, results, LABELS, "{kind: rtdetr, boxes: pred_boxes, logits: logits, top_k: 12}")


def dfine_of_its_authors(folder, seed):
    """The authors' network and post-processing as pydfine carries them, with the second input."""
    from dfine.backends.native.dfine import DFINE
    from dfine.backends.native.postprocessor import DFINEPostProcessor
    from dfine.config import DFINEConfig
    from dfine.export.onnx import export_onnx
    torch.manual_seed(seed)
    config = DFINEConfig.preset("n", num_classes=len(LABELS), imgsz=2 * SIDE, num_queries=12, num_top_queries=12,
                                backbone_pretrained=False)
    network = DFINE.from_config(config).eval()
    lively(network)
    path = os.path.join(folder, f"dfine-{2 * SIDE}.onnx")
    export_onnx(network, DFINEPostProcessor.from_config(config), path, imgsz=2 * SIDE)
    image = torch.nn.functional.interpolate(picture(seed), size=2 * SIDE)
    # for the size of its own input, which the head gives it, and for the source's
    raw, in_source = ({**outputs(path, images=image, orig_target_sizes=np.int64([size]))} for size in ((2 * SIDE,) * 2, SOURCE))
    sure(raw["scores"])
    results = {k: torch.tensor(v[0]) for k, v in in_source.items()}
    case = of_detr(raw, results, LABELS, "{kind: dfine}")
    scale = [SOURCE[0] / SIDE / 2, SOURCE[1] / SIDE / 2]
    return case | {"input": {"width_px": 2 * SIDE, "height_px": 2 * SIDE}, "mapping": STRETCH | {"scale": scale}}


def rfdetr(folder, seed):
    from rfdetr import RFDETRNano
    from rfdetr.models.postprocess import PostProcess
    torch.manual_seed(seed)
    detector = RFDETRNano(pretrain_weights=None, num_classes=len(LABELS), resolution=2 * SIDE, num_queries=12,
                          num_select=12, group_detr=1, device="cpu")
    lively(detector.model.model)
    exported = detector.export(output_dir=folder, verbose=False)
    path = shutil.move(exported, os.path.join(folder, f"rfdetr-{2 * SIDE}.onnx"))
    raw = outputs(path, input=torch.nn.functional.interpolate(picture(seed), size=2 * SIDE))
    sure(torch.tensor(raw["labels"]).sigmoid())
    given = {"pred_logits": torch.tensor(raw["labels"]), "pred_boxes": torch.tensor(raw["dets"])}
    [results] = PostProcess(num_select=12)(given, torch.tensor([[SOURCE[1], SOURCE[0]]]))
    # one more class than it was made for: none
    return of_detr(raw, results, [*LABELS, "none"], "{kind: rtdetr, boxes: dets, logits: labels, top_k: 12}")


def round_to(v, digits=5):
    return float(f"{v:.{digits}g}")


def main(folder, path):
    folder, path = os.path.abspath(folder), os.path.abspath(path)
    makers = {
        **{f"{name} of Ultralytics, {head}": partial(of_ultralytics, folder, name, "{%s}" % head, **options)
           for name, head, options in ULTRALYTICS},
        "resnet18 of torchvision": partial(classifier, folder, "torchvision.resnet18"),
        "mobilenetv3 of timm": partial(classifier, folder, "timm.mobilenetv3_small_050"),
        "D-FINE of transformers": partial(dfine_of_transformers, folder),
        "D-FINE of its authors": partial(dfine_of_its_authors, folder),
        "RF-DETR": partial(rfdetr, folder),
    }
    cases = []
    wanted = os.environ.get("ONLY", "")
    for name, make in ((name, make) for name, make in makers.items() if wanted in name):
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
