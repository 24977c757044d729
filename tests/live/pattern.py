"""The numbers in the pictures: which camera, which frame, and when it was made.

A picture carries a word of 72 bits twice, as black and white cells: once as it is and once inverted. The cells are large
enough to survive encoding and resizing. The grid is in the middle of the picture, in the largest area that every picture
between 4:3 and 16:9 has in common once it is fitted into the probe model's input.

The probe model (probe/model.onnx) turns the cells into boxes: the four edges of each box are digits of 6 bits. `read` reads
the word from the boxes of a detections message, or says why it cannot be read. Nothing here comes from Millrace.
"""

import zlib
from dataclasses import dataclass

# the probe model's input, in pixels
MODEL_WIDTH, MODEL_HEIGHT = 256, 144
COLUMNS, ROWS = 16, 9
CELL_WIDTH, CELL_HEIGHT = 12, 16
LEFT = (MODEL_WIDTH - COLUMNS * CELL_WIDTH) // 2
BLACK, WHITE, GREY = 16, 235, 126

BITS = 72
CELLS = COLUMNS * ROWS
assert CELLS == 2 * BITS
DIGIT_BITS = 6
DIGITS = CELLS // DIGIT_BITS
WORD_BOXES = DIGITS // 4  # classes 0 to 5; class 6 is the reference box
REFERENCE = WORD_BOXES
# where the digit 0 of each edge is, in model pixels: x1, y1, x2, y2
ORIGIN = (40, 4, 120, 72)


@dataclass(frozen=True)
class Stamp:
    """What a picture says of itself."""

    camera: int  # 0 to 255
    life: int  # which run of the camera: 0 to 255
    frame: int  # number of the picture in that run: 24 bits
    ms: int  # when it was made: milliseconds of CLOCK_MONOTONIC, modulo 65536


class Unreadable(ValueError):
    """A picture without a valid word."""


def word_of(stamp):
    body = bytes([stamp.camera, stamp.life]) + stamp.frame.to_bytes(3, "big") + (stamp.ms & 0xFFFF).to_bytes(2, "big")
    return body + (zlib.crc32(body) & 0xFFFF).to_bytes(2, "big")


def cells_of(stamp):
    """The cells by rows, True for white."""
    word = int.from_bytes(word_of(stamp), "big")
    first = [bool(word >> (BITS - 1 - n) & 1) for n in range(BITS)]
    return first + [not bit for bit in first]


def layout(width, height):
    """Edges of the columns and rows of cells in a picture of this size, in pixels."""
    scale = min(MODEL_WIDTH / width, MODEL_HEIGHT / height)
    x = [round((LEFT + n * CELL_WIDTH - MODEL_WIDTH / 2) / scale + width / 2) for n in range(COLUMNS + 1)]
    y = [round((n * CELL_HEIGHT - MODEL_HEIGHT / 2) / scale + height / 2) for n in range(ROWS + 1)]
    if x[0] < 0 or x[-1] > width or y[0] < 0 or y[-1] > height:
        raise ValueError(f"a picture of {width}x{height} has no room for the pattern: its sides have to be between 4:3 and 16:9")
    return x, y


def draw_i420(stamp, width, height):
    """The picture as planar 4:2:0 in bytes, without padding. Width and height are even."""
    x, y = layout(width, height)
    cells = cells_of(stamp)
    grey = bytes([GREY]) * width
    shade = bytes([BLACK]), bytes([WHITE])
    rows = [grey * y[0]]
    for r in range(ROWS):
        line = b"".join(shade[cells[r * COLUMNS + c]] * (x[c + 1] - x[c]) for c in range(COLUMNS))
        line = grey[: x[0]] + line + grey[: width - x[-1]]
        rows.append(line * (y[r + 1] - y[r]))
    rows.append(grey * (height - y[-1]))
    return b"".join(rows) + b"\x80" * (width * height // 2)


def read(boxes):
    """The stamp that the probe model's boxes carry, as the 'boxes' of a detections message have them."""
    found = {}
    for box in boxes:
        if box["class_id"] in found:
            raise Unreadable(f"two boxes of class {box['class_id']}")
        found[box["class_id"]] = box
    if set(found) != set(range(WORD_BOXES + 1)):
        raise Unreadable(f"boxes of the classes {sorted(found)}")
    edges = ("x1", "y1", "x2", "y2")
    # the reference box says where the model's pixels are in the source
    reference = [found[REFERENCE][edge] for edge in edges]
    step = [(reference[2 + axis] - reference[axis]) / (ORIGIN[2 + axis] - ORIGIN[axis]) for axis in (0, 1)]
    if min(step) <= 0:
        raise Unreadable(f"the reference box is {reference}")
    bits = []
    for box in range(WORD_BOXES):
        for n, edge in enumerate(edges):
            exact = (found[box][edge] - reference[n]) / step[n % 2]
            digit = round(exact)
            if abs(exact - digit) > 0.1 or not 0 <= digit < 1 << DIGIT_BITS:
                raise Unreadable(f"{edge} of box {box} is the digit {exact:.3f}")
            bits += [digit >> (DIGIT_BITS - 1 - n) & 1 for n in range(DIGIT_BITS)]
    first, second = bits[:BITS], [1 - bit for bit in bits[BITS:]]
    if first != second:
        wrong = sum(a != b for a, b in zip(first, second))
        raise Unreadable(f"the two copies differ in {wrong} of {BITS} bits")
    word = int("".join(map(str, first)), 2).to_bytes(BITS // 8, "big")
    stamp = Stamp(word[0], word[1], int.from_bytes(word[2:5], "big"), int.from_bytes(word[5:7], "big"))
    if word != word_of(stamp):
        raise Unreadable(f"the check sum of {stamp} is wrong")
    return stamp
