// Draws what a model found in one frame: boxes, upright or turned, outlines, key points, and classes of the whole picture.

// The lines between the 17 key points of a person that COCO numbers, which models of people's poses give.
const PERSON = [[15, 13], [13, 11], [16, 14], [14, 12], [11, 12], [5, 11], [6, 12], [5, 6], [5, 7], [6, 8], [7, 9], [8, 10],
  [1, 2], [0, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 6]];
const SEEN = 0.5;                   // least confidence of a key point that is drawn

export const colour = id => `hsl(${(id * 137.508 + 152) % 360} 72% 62%)`;

// `own`: found in this very picture, and not in one before.
export function drawFound(context, canvas, found, own) {
  const sx = canvas.width / (found.width_px || canvas.width), sy = canvas.height / (found.height_px || canvas.height);
  // as thick on a small card as on a large one
  const unit = canvas.width / Math.max(canvas.clientWidth, 200);
  const text = (canvas.clientWidth < 700 ? 10.5 : 12) * unit, pad = 3.5 * unit;
  const pen = { context, canvas, sx, sy, unit, line: 2 * unit, text, pad, tall: text + pad };
  context.save();
  context.globalAlpha = own ? 1 : 0.45;
  context.setLineDash(own ? [] : [6 * unit, 5 * unit]);
  context.lineWidth = pen.line;
  context.font = `600 ${text}px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif`;
  context.textBaseline = "middle";
  // the surest box is drawn last, on top
  for (const box of [...found.boxes].reverse()) {
    context.strokeStyle = context.fillStyle = colour(box.class_id);
    if (box.mask) drawMask(pen, box.mask);
    drawEdges(pen, box);
    if (box.keypoints) drawKeypoints(pen, box);
    if (own) drawLabel(pen, box);
  }
  if (found.classes) drawClasses(pen, found.classes);
  context.restore();
}

function drawMask({ context, sx, sy, unit, line }, rings) {
  const outline = new Path2D();
  for (const ring of rings) {
    outline.moveTo(ring[0] * sx, ring[1] * sy);
    for (let i = 2; i + 1 < ring.length; i += 2) outline.lineTo(ring[i] * sx, ring[i + 1] * sy);
    outline.closePath();
  }
  const alpha = context.globalAlpha;
  context.globalAlpha = 0.35 * alpha;
  context.fill(outline, "evenodd");
  context.globalAlpha = alpha;
  context.lineWidth = unit;
  context.stroke(outline);
  context.lineWidth = line;
}

function drawEdges({ context, sx, sy }, { x1, y1, x2, y2, oriented }) {
  if (!oriented) {
    context.strokeRect(x1 * sx, y1 * sy, (x2 - x1) * sx, (y2 - y1) * sy);
    return;
  }
  const { x, y, width, height, angle_rad } = oriented, cos = Math.cos(angle_rad), sin = Math.sin(angle_rad);
  context.beginPath();
  for (const [u, v] of [[-1, -1], [1, -1], [1, 1], [-1, 1]]) {
    const right = u * width / 2, down = v * height / 2;
    context.lineTo((x + right * cos - down * sin) * sx, (y + right * sin + down * cos) * sy);
  }
  context.closePath();
  context.stroke();
}

function drawKeypoints({ context, sx, sy, unit }, { keypoints, label }) {
  const seen = p => p && (p.score ?? 1) >= SEEN;
  if (label === "person" && keypoints.length === 17) {
    context.beginPath();
    for (const [a, b] of PERSON.map(line => line.map(n => keypoints[n]))) {
      if (!seen(a) || !seen(b)) continue;
      context.moveTo(a.x * sx, a.y * sy);
      context.lineTo(b.x * sx, b.y * sy);
    }
    context.stroke();
  }
  for (const p of keypoints.filter(seen)) {
    context.beginPath();
    context.arc(p.x * sx, p.y * sy, 3 * unit, 0, 2 * Math.PI);
    context.fill();
  }
}

function drawLabel(pen, box) {
  const { context, canvas, sx, sy, pad, tall, line } = pen;
  const x = box.x1 * sx, y = box.y1 * sy, w = (box.x2 - box.x1) * sx;
  const name = `${box.label}${box.track_id === undefined ? "" : ` #${box.track_id}`}`;
  let label = `${name} ${Math.round(box.score * 100)}%`;
  // over a narrow box the name alone: neighbours stay readable
  if (context.measureText(label).width + 2 * pad > 2 * w) label = name;
  const wide = context.measureText(label).width + 2 * pad;
  drawText(pen, label, Math.max(0, Math.min(x - line / 2, canvas.width - wide)), y - tall >= 0 ? y - tall : Math.min(y, canvas.height - tall));
}

// In the top left corner, below the camera's name.
function drawClasses(pen, classes) {
  let y = 44 * pen.unit;
  for (const { class_id, label, score } of classes) {
    pen.context.fillStyle = colour(class_id);
    drawText(pen, `${label} ${Math.round(score * 100)}%`, 10 * pen.unit, y);
    y += pen.tall + 2 * pen.unit;
  }
}

// Dark on the colour that is set.
function drawText({ context, unit, pad, tall }, label, left, top) {
  context.fillRect(left, top, context.measureText(label).width + 2 * pad, tall);
  context.fillStyle = "#06090c";
  context.fillText(label, left + pad, top + tall / 2 + unit / 2);
}
