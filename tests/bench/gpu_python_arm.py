#!/usr/bin/env python3
"""What one would write by hand for a GPU, in one process: PyNvVideoCodec decodes, torch converts and letterboxes,
onnxruntime's CUDA provider detects on the tensor where it lies. The other arm of the GPU suite's comparison of rates.

Everything is queued in one stream; a frame leaves the GPU as the few boxes over the threshold. The last line of the
output is a JSON object with the rate and the CPU time of a frame, without the start.
"""
import argparse
import json
import pathlib
import sys
import time

KINDS = {
    # model width, height; RGB; scale of a sample; anchored in the centre; least score; IoU of the suppression
    "demo": dict(w=320, h=192, rgb=True, scale=1 / 255, centre=True, score=0.35, iou=0.5),
    "yolox": dict(w=416, h=416, rgb=False, scale=1.0, centre=False, score=0.3, iou=0.45),
}
# weights of red and blue in luma
MATRICES = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}
PAD = 114
BUFFERED = 8


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS, help="which model: its size, colours, letterbox and head")
    parser.add_argument("model", type=pathlib.Path, help="the ONNX file")
    parser.add_argument("clip", type=pathlib.Path, help="a video that PyNvVideoCodec opens, 8 bits, 4:2:0")
    parser.add_argument("out", type=pathlib.Path, help="where the detections go, a JSON line for each frame")
    parser.add_argument("--device", type=int, default=0, help="number of the GPU (%(default)s)")
    parser.add_argument("--matrix", choices=MATRICES, help="of the colours (709 from 720 lines on, else 601)")
    parser.add_argument("--full-range", action="store_true", help="luma from 0 to 255 in place of 16 to 235")
    parser.add_argument("--frames", type=int, help="stop after so many (all)")
    parser.add_argument("--json", type=pathlib.Path, help="where the figures go as well")
    return parser.parse_args()


class Letterbox:
    """NV12 planes on the GPU -> the model's tensor, written in place: the padding once, the picture for each frame."""

    def __init__(self, torch, kind, width, height, matrix, full_range, device):
        self.torch, self.kind = torch, kind
        self.scale = min(kind["w"] / width, kind["h"] / height)
        self.w, self.h = int(width * self.scale), int(height * self.scale)
        centre = kind["centre"]
        self.left = (kind["w"] - self.w) // 2 if centre else 0
        self.top = (kind["h"] - self.h) // 2 if centre else 0
        shape = (1, 3, kind["h"], kind["w"])
        self.tensor = torch.full(shape, PAD * kind["scale"], dtype=torch.float32, device=device)
        red, blue = MATRICES[matrix or ("709" if height >= 720 else "601")]
        green = 1 - red - blue
        black, luma, chroma = (0, 1.0, 1.0) if full_range else (16, 255 / 219, 255 / 224)
        # rows: red, green, blue; columns: luma, both chromas
        rows = [
            [luma, 0.0, 2 * (1 - red) * chroma],
            [luma, -2 * (1 - blue) * blue / green * chroma, -2 * (1 - red) * red / green * chroma],
            [luma, 2 * (1 - blue) * chroma, 0.0],
        ]
        order = rows if kind["rgb"] else rows[::-1]
        self.matrix = torch.tensor(order, dtype=torch.float32, device=device)
        self.zero = torch.tensor([black, 128.0, 128.0], dtype=torch.float32, device=device).view(3, 1)

    def __call__(self, luma, chroma):
        """Bilinear, half-pixel centres, no antialiasing: the geometry of OpenCV's INTER_LINEAR."""
        torch = self.torch
        resize = torch.nn.functional.interpolate
        size = dict(size=(self.h, self.w), mode="bilinear", align_corners=False, antialias=False)
        y = resize(luma[None, None].float(), **size)
        uv = resize(chroma.permute(2, 0, 1)[None].float(), **size)
        samples = torch.cat([y, uv], 1).view(3, -1) - self.zero
        picture = (self.matrix @ samples).clamp_(0, 255).mul_(self.kind["scale"]).view(3, self.h, self.w)
        self.tensor[0, :, self.top : self.top + self.h, self.left : self.left + self.w] = picture

    def back(self, boxes):
        """From the model's pixels to the source's; numpy."""
        return (boxes - [self.left, self.top, self.left, self.top]) / self.scale


def planes(torch, frame):
    """Luma [H, W] and chroma [H/2, W/2, 2] of a decoded frame, where they lie."""
    whole = torch.from_dlpack(frame)
    if whole.dtype == torch.uint8 and whole.dim() >= 2:
        rows, width = whole.shape[0], whole.shape[1]
        if rows % 3 == 0 and width % 2 == 0 and whole.numel() == rows * width:
            flat, height = whole.reshape(rows, width), rows // 3 * 2
            return flat[:height], flat[height:].reshape(height // 2, width // 2, 2)
    sys.exit(f"a frame of {whole.dtype} {tuple(whole.shape)} is no NV12 picture: this arm takes 8 bits, 4:2:0")


def centre_head(torch, raw, cells):
    """[1, 4 + C, H, W] of distances and probabilities -> boxes, scores, classes."""
    distances = raw[0, :4].reshape(4, -1)
    boxes = torch.cat([cells - distances[:2], cells + distances[2:]]).T
    scores, classes = raw[0, 4:].reshape(raw.shape[1] - 4, -1).max(0)
    return boxes, scores, classes


def centre_cells(torch, kind, device):
    y, x = torch.meshgrid(
        torch.arange(kind["h"] // 8, device=device), torch.arange(kind["w"] // 8, device=device), indexing="ij"
    )
    return (torch.stack([x, y]).reshape(2, -1).float() + 0.5) * 8


def yolox_head(torch, raw, cells):
    """[1, N, 5 + C] -> boxes, scores, classes."""
    at, stride = cells
    middle = (raw[0, :, :2] + at) * stride
    half = torch.exp(raw[0, :, 2:4]) * stride / 2
    scores, classes = raw[0, :, 5:].max(1)
    return torch.cat([middle - half, middle + half], 1), scores * raw[0, :, 4], classes


def yolox_cells(torch, kind, device):
    """Of strides 8, 16 and 32."""
    rows = [
        (x, y, stride) for stride in (8, 16, 32) for y in range(kind["h"] // stride) for x in range(kind["w"] // stride)
    ]
    cells = torch.tensor(rows, dtype=torch.float32, device=device)
    return cells[:, :2], cells[:, 2:]


HEADS = {"demo": (centre_head, centre_cells), "yolox": (yolox_head, yolox_cells)}


def suppress(np, boxes, scores, classes, least):
    """Greedy suppression within each class; indices of what stays, by falling score."""
    order, kept = np.argsort(-scores), []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        inter = np.clip(high - low, 0, None).prod(1)
        overlap = inter / (area[best] + area[order] - inter)
        order = order[(overlap <= least) | (classes[order] != classes[best])]
    return kept


class Detector:
    """The session, bound once to the tensor and to an output on the GPU, in torch's stream."""

    def __init__(self, torch, onnxruntime, np, model, tensor, stream, device):
        provider = "CUDAExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            sys.exit(f"this onnxruntime has no {provider}: install onnxruntime-gpu")
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        options = {"device_id": str(device), "user_compute_stream": str(stream.cuda_stream)}
        self.session = onnxruntime.InferenceSession(str(model), providers=[(provider, options)])
        if self.session.get_providers()[0] != provider:
            sys.exit(f"onnxruntime fell back to {self.session.get_providers()}: its own messages stand above")
        self.options = onnxruntime.RunOptions()
        # torch's work follows in the same stream: nobody has to wait in between
        self.options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        shape = outputs[0].shape
        if not all(isinstance(axis, int) for axis in shape):
            zeros = np.zeros(tuple(tensor.shape), np.float32)
            shape = self.session.run([outputs[0].name], {inputs[0].name: zeros})[0].shape
        self.raw = torch.empty(tuple(shape), dtype=torch.float32, device=tensor.device)
        self.binding = self.session.io_binding()
        self.binding.bind_input(inputs[0].name, "cuda", device, np.float32, tuple(tensor.shape), tensor.data_ptr())
        self.binding.bind_output(outputs[0].name, "cuda", device, np.float32, tuple(shape), self.raw.data_ptr())

    def __call__(self):
        self.session.run_with_iobinding(self.binding, self.options)
        return self.raw


def main():
    args = arguments()
    for path in (args.model, args.clip):
        if not path.is_file():
            sys.exit(f"{path} is no file")
    begun = time.monotonic()
    try:
        import numpy as np
        import torch  # before onnxruntime, which then finds the CUDA libraries that torch has opened

        if not torch.cuda.is_available():
            sys.exit("torch sees no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES")
        import onnxruntime
        import PyNvVideoCodec as nvc
    except ImportError as e:
        sys.exit(f"{e}: this arm takes numpy, torch (its CUDA build), onnxruntime-gpu and PyNvVideoCodec")

    kind, (head, make_cells) = KINDS[args.kind], HEADS[args.kind]
    device = torch.device("cuda", args.device)
    torch.cuda.set_device(device)
    stream = torch.cuda.Stream(device)
    with torch.inference_mode(), torch.cuda.stream(stream):
        cells = make_cells(torch, kind, device)
        decoder = nvc.ThreadedDecoder(
            str(args.clip),
            BUFFERED,
            gpu_id=args.device,
            use_device_memory=True,
            output_color_type=nvc.OutputColorType.NATIVE,
        )
        about = decoder.get_stream_metadata()
        letterbox = Letterbox(torch, kind, about.width, about.height, args.matrix, args.full_range, device)
        detect = Detector(torch, onnxruntime, np, args.model, letterbox.tensor, stream, args.device)
        for _ in range(5):
            head(torch, detect(), cells)
        stream.synchronize()

        started, cpu, frames, found = time.monotonic(), time.process_time(), 0, 0
        with open(args.out, "w") as lines:
            while batch := decoder.get_batch_frames(BUFFERED):
                for frame in batch if args.frames is None else batch[: args.frames - frames]:
                    letterbox(*planes(torch, frame))
                    boxes, scores, classes = head(torch, detect(), cells)
                    likely = scores > kind["score"]
                    # one copy to the host; it waits for all of the frame's work, so the decoder may reuse the picture
                    rows = torch.cat([boxes, scores[:, None], classes[:, None].float()], 1)[likely].cpu().numpy()
                    boxes, scores, classes = letterbox.back(rows[:, :4]), rows[:, 4], rows[:, 5].astype(int)
                    kept = suppress(np, boxes, scores, classes, kind["iou"])
                    names = ("x1", "y1", "x2", "y2")
                    listed = [
                        dict(zip(names, boxes[i].tolist()), score=float(scores[i]), class_id=int(classes[i]))
                        for i in kept
                    ]
                    lines.write(json.dumps({"schema": 1, "source": "cam", "seq": frames, "boxes": listed}) + "\n")
                    frames, found = frames + 1, found + len(kept)
                if args.frames is not None and frames >= args.frames:
                    break
        seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu
        decoder.end()
    if frames == 0:
        sys.exit(f"{args.clip} gave no frame")
    figures = {
        "kind": args.kind,
        "frames": frames,
        "boxes": found,
        "start_s": started - begun,
        "seconds": seconds,
        "frames_per_s": frames / seconds,
        # of all threads of this process
        "cpu_s_per_frame": cpu_s / frames,
        "gpu": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    text = json.dumps(figures)
    if args.json:
        args.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
