#!/usr/bin/env python3
"""Makes the JPEG and PNG pictures of this folder with Pillow, and with FFmpeg what is in them.

Needs ffmpeg (made with 5.1.9) and Pillow (13.0.0). A picture's `.yuv` holds the planes that FFmpeg decodes, in its own
subsampling; that of a PNG its RGB. The pictures are in the repository: run this only to change them.
"""

import random
import subprocess
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent


def picture(width, height):
    """Gradients, edges in colour, and some noise."""
    rng = random.Random(7)
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            noise = rng.randrange(12)
            image.putpixel((x, y), (4 * x % 256, 5 * y % 256, (3 * x + 2 * y + noise) % 256))
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 8, 36, 34), fill=(230, 40, 30))
    draw.rectangle((30, 20, 55, 40), outline=(20, 220, 60), width=3)
    return image


def planes(name, pix_fmt):
    command = ["ffmpeg", "-v", "error", "-y", "-i", HERE / name, "-pix_fmt", pix_fmt, "-f", "rawvideo", HERE / f"{name}.yuv"]
    subprocess.run(command, check=True)


def main():
    even, odd = picture(64, 48), picture(63, 47)
    for name, image, pix_fmt, options in [
        ("420.jpg", even, "yuvj420p", {"subsampling": "4:2:0"}),
        ("422.jpg", even, "yuvj422p", {"subsampling": "4:2:2"}),
        ("444.jpg", even, "yuvj444p", {"subsampling": "4:4:4"}),
        ("grey.jpg", even.convert("L"), "gray", {}),
        ("progressive.jpg", even, "yuvj420p", {"subsampling": "4:2:0", "progressive": True}),
        ("odd_420.jpg", odd, "yuvj420p", {"subsampling": "4:2:0"}),
        ("odd_444_progressive.jpg", odd, "yuvj444p", {"subsampling": "4:4:4", "progressive": True}),
    ]:
        image.save(HERE / name, quality=92, **options)
        planes(name, pix_fmt)
    even.save(HERE / "rgb.jpg", quality=92, keep_rgb=True, subsampling="4:4:4")
    even.convert("CMYK").save(HERE / "cmyk.jpg", quality=92)
    exif = Image.Exif()
    exif[0x0112] = 6
    even.save(HERE / "exif_90.jpg", quality=92, subsampling="4:2:0", exif=exif)
    for name, image in [
        ("rgb.png", even),
        ("odd.png", odd),
        ("palette.png", even.quantize(200)),
        ("grey_alpha.png", even.convert("LA")),
        ("rgba.png", even.convert("RGBA")),
    ]:
        image.save(HERE / name)
        (HERE / f"{name}.yuv").write_bytes(image.convert("RGB").tobytes())


main()
