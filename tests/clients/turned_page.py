#!/usr/bin/env python3
"""Draws a small picture on ws-publisher's page as a stream of each orientation, and reads back what the page shows.

The page's files are served from their folder, without a server behind them: its camera is given pictures by hand.
"""

import functools
import http.server
import threading
from pathlib import Path

from browser import Browser

PAGE = Path(__file__).parents[2] / "nodes/ws-publisher/page"

# The letter F, as it is stored and as it is shown, drawn by hand.
SHOWN = {
    "none": ["##", "#.", "#.", "..", ".x"],
    "90": ["..###", "x...#"],
    "180": ["x.", "..", ".#", ".#", "##"],
    "270": ["#...x", "###.."],
    "mirror": ["##", ".#", ".#", "..", "x."],
    "mirror_90": ["x...#", "..###"],
    "mirror_180": [".x", "..", "#.", "#.", "##"],
    "mirror_270": ["###..", "#...x"],
}
GREYS = {"#": 250, "x": 120, ".": 10}
SQUARE = 8  # pixels of a letter's point

DRAW = """(async () => {
  const { Camera } = await import("./camera.js");
  const rows = %s, greys = %s, square = %d;
  const stored = new OffscreenCanvas(rows[0].length * square, rows.length * square), to = stored.getContext("2d");
  rows.forEach((row, y) => [...row].forEach((point, x) => {
    to.fillStyle = `rgb(${greys[point]} ${greys[point]} ${greys[point]})`;
    to.fillRect(x * square, y * square, square, square);
  }));
  const camera = new Camera("gate", () => {});
  camera.video = { orientation: %s };
  camera.draw(0, stored.transferToImageBitmap(), rows[0].length * square, rows.length * square, null);
  const { width, height } = camera.canvas, out = [];
  for (let y = square / 2; y < height; y += square) {
    const row = [];
    for (let x = square / 2; x < width; x += square) row.push(camera.context.getImageData(x, y, 1, 1).data[0]);
    out.push(row);
  }
  return { rows: out, overlay: [camera.overlay.width, camera.overlay.height] };
})()"""


def point(grey):
    return min(GREYS, key=lambda name: abs(GREYS[name] - grey))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=PAGE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Browser(800, 600) as browser:
        browser.open(f"http://127.0.0.1:{server.server_port}/index.html")
        browser.wait("window.millrace !== undefined", 10, "the page")
        for orientation, shown in SHOWN.items():
            drawn = browser.run(DRAW % (SHOWN["none"], GREYS, SQUARE, repr(orientation)))
            got = ["".join(point(grey) for grey in row) for row in drawn["rows"]]
            assert got == shown, f"{orientation}: {got}, not {shown}"
            size = [len(shown[0]) * SQUARE, len(shown) * SQUARE]
            assert drawn["overlay"] == size, f"{orientation}: the boxes' canvas is {drawn['overlay']}, not {size}"
    print(f"{len(SHOWN)} orientations are shown upright")


main()
