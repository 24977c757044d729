#!/usr/bin/env python3
"""The fused kernel's job in torch, on the same GPU: 1080p NV12 to a letterboxed 640x640 f16 tensor, in batches.

usage: torch_kernels.py [--batches 1,4,16,32,64] [--json FILE]

Chroma is brought to the luma's size and the colour converted at full size, or (`resize-first`) all planes are brought to the
output's size and the colour converted there, which is less work. Each eagerly and by torch.compile. Times are of the GPU, by events, median of
30 after a warm-up; the frames rotate among enough buffers that no cache holds them.
"""
import argparse
import json
import statistics
import sys

WIDTH, HEIGHT, MODEL = 1920, 1080, 640


def letterbox(torch, rgb, size):
    """rgb in 0..255 of the placed size, to f16 in 0..1 in the middle of a grey square."""
    out = torch.full((rgb.shape[0], 3, MODEL, MODEL), 114 / 255, dtype=torch.float16, device=rgb.device)
    top, left = (MODEL - size[0]) // 2, (MODEL - size[1]) // 2
    out[:, :, top : top + size[0], left : left + size[1]] = (rgb * (1 / 255)).half()
    return out


def planes(frames):
    n = frames.shape[0]
    luma = frames[:, :HEIGHT].view(n, 1, HEIGHT, WIDTH)
    chroma = frames[:, HEIGHT:].view(n, HEIGHT // 2, WIDTH // 2, 2).permute(0, 3, 1, 2)
    return luma, chroma


def to_rgb(torch, y, cbcr, matrix):
    y = (y.float() - 16) * (255 / 219)
    cbcr = (cbcr.float() - 128) * (255 / 224)
    cb, cr = cbcr[:, :1], cbcr[:, 1:]
    red, green_b, green_r, blue = matrix
    return torch.cat([y + red * cr, y - green_b * cb - green_r * cr, y + blue * cb], 1).clamp(0, 255)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,4,16,32,64")
    parser.add_argument("--json")
    options = parser.parse_args()
    import torch
    from torch.nn.functional import interpolate

    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU")
    matrix = (1.5748, 0.187324, 0.468124, 1.8556)  # BT.709
    size = (HEIGHT * MODEL // WIDTH, MODEL)

    def full_size(frames):
        luma, chroma = planes(frames)
        chroma = interpolate(chroma.float(), size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)
        rgb = to_rgb(torch, luma, chroma, matrix)
        return letterbox(torch, interpolate(rgb, size=size, mode="bilinear", align_corners=False), size)

    def resize_first(frames):
        luma, chroma = planes(frames)
        luma = interpolate(luma.float(), size=size, mode="bilinear", align_corners=False)
        chroma = interpolate(chroma.float(), size=size, mode="bilinear", align_corners=False)
        return letterbox(torch, to_rgb(torch, luma, chroma, matrix), size)

    arms = {
        "full-size": full_size,
        "resize-first": resize_first,
        "full-size, compiled": torch.compile(full_size, dynamic=False),
        "resize-first, compiled": torch.compile(resize_first, dynamic=False),
    }
    figures = []
    for batch in map(int, options.batches.split(",")):
        bytes_each = batch * WIDTH * HEIGHT * 3 // 2
        sets = [
            torch.randint(0, 256, (batch, HEIGHT * 3 // 2, WIDTH), dtype=torch.uint8, device="cuda")
            for _ in range(max(2, -(-400_000_000 // bytes_each)))
        ]
        for name, arm in arms.items():
            for n in range(5):
                arm(sets[n % len(sets)])
            times = []
            for n in range(30):
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                arm(sets[n % len(sets)])
                end.record()
                end.synchronize()
                times.append(begin.elapsed_time(end) * 1e3 / batch)
            figure = {"arm": name, "batch": batch, "us_per_frame": statistics.median(times), "us_per_frame_min": min(times)}
            figures.append(figure)
            print(f"torch {name:24} batch {batch:3}: {figure['us_per_frame']:9.2f} us a frame", flush=True)
        del sets
        torch.cuda.empty_cache()
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"torch": torch.__version__, "figures": figures}, file, indent=1)


if __name__ == "__main__":
    main()
