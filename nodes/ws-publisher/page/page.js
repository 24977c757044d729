// The connection: one WebSocket, its messages handed to the cameras they belong to, and a way back when it breaks.
import { Camera } from "./camera.js";

const SCHEMA = 1;
const HEADER_BYTES = 16;
const KIND_H264 = 1, KIND_JPEG = 2;
const RETRY_FIRST_MS = 500, RETRY_MOST_MS = 10000;
// figures come once a second: where nothing has come for longer, the server hangs or the network has gone
const SILENT_MS = 2500;

const $ = id => document.getElementById(id);
const cameras = new Map();          // by source
const byIndex = new Map();          // by the number in binary headers; of this connection
// what tests and the curious read from the console
const state = { connection: "connecting", health: "connecting", connects: 0, lost: 0, hello: null, stats: null, cameras: {} };
window.millrace = state;

let retryMs = RETRY_FIRST_MS;
let lastMessageMs = 0;
let wantJpeg = !("VideoDecoder" in window);

function show(kind, text) {
  state.connection = kind;
  pill(kind === "live" || kind === "silent" ? "waiting" : kind, text);
}

// Green only where every camera is live.
function pill(kind, text) {
  state.health = kind;
  $("state").dataset.state = kind;
  if ($("state").textContent !== text) $("state").textContent = text;
}

function showHealth(cameras) {
  cameras = cameras.filter(c => !isRemoved(c));
  $("total-cameras").textContent = cameras.length;
  const expected = cameras.filter(c => c.state !== "ended"), live = expected.filter(c => c.state === "live").length;
  if (!cameras.length) pill("waiting", "no camera yet");
  else if (!expected.length) pill("ended", "all cameras have ended");
  else if (live === expected.length) pill("live", "live");
  else if (live === 0) pill("bad", expected.length === 1 ? `camera ${expected[0].state}` : "no camera is live");
  else pill("waiting", `${live} of ${cameras.length} live${expected.length < cameras.length ? `, ${cameras.length - expected.length} ended` : ""}`);
}

// Its tile says so for a while; it counts no more.
function isRemoved(camera) {
  return camera.state === "ended" && camera.last_error === "removed";
}

function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text ?? "";
}

function camera(source) {
  let found = cameras.get(source);
  if (!found) {
    found = new Camera(source, () => { wantJpeg = true; socket?.close(4000, "H.264 is not supported here"); });
    cameras.set(source, found);
    state.cameras[source] = found.state;
    // by name, so that cameras keep their places from one visit to the next
    const after = [...cameras.keys()].sort().find(s => s > source);
    $("cameras").insertBefore(found.card, after ? cameras.get(after).card : null);
    layOut();
  }
  return found;
}

function layOut() {
  $("cameras").classList.toggle("single", cameras.size === 1);
  $("empty").hidden = cameras.size > 0;
}

const handlers = {
  hello(m) {
    if (m.schema !== SCHEMA) {
      notice(`This page reads version ${SCHEMA} of the messages, the server sends version ${m.schema}: reload the page.`);
    }
    state.hello = m;
    document.title = m.title;
    $("title").textContent = m.title;
    for (const c of m.cameras) camera(c.source);
  },
  detections(m) { camera(m.source).onDetections(m); },
  video(m) {
    const c = camera(m.source);
    byIndex.set(m.index, c);
    c.onVideo(m);
  },
  gap(m) {
    state.lost += m.detections + m.packets;
    $("total-lost").textContent = state.lost;
    if (m.packets) camera(m.source).onGap();
  },
  stats(m) {
    state.stats = m;
    showHealth(m.cameras);
    const known = new Set(m.cameras.map(c => c.source));
    for (const [source, gone] of cameras) {
      if (known.has(source)) continue;
      gone.remove();
      cameras.delete(source);
      delete state.cameras[source];
      layOut();
    }
    let fps = 0, frames = 0;
    for (const c of m.cameras) {
      camera(c.source).onStats(c);
      fps += c.fps;
      frames += c.frames;
    }
    $("total-fps").textContent = fps.toFixed(1);
    $("total-frames").textContent = frames.toLocaleString("en");
    $("total-clients").textContent = m.clients;
  },
  end(m) { state.ended = m.reason; },
};

function onMessage(event) {
  lastMessageMs = performance.now();
  if (state.connection === "silent") show("live", "connected");
  if (typeof event.data === "string") {
    const message = JSON.parse(event.data);
    // an unknown type is a newer server's addition, and of no concern here
    if (Object.hasOwn(handlers, message.type)) handlers[message.type](message);
    return;
  }
  const view = new DataView(event.data);
  if (view.byteLength < HEADER_BYTES || view.getUint8(0) !== SCHEMA) return;
  const found = byIndex.get(view.getUint8(3));
  if (!found) return;
  // to the nearest double, as JSON.parse does: the two are compared
  const pts_ns = Number(view.getBigInt64(8, true));
  const data = new Uint8Array(event.data, HEADER_BYTES);
  switch (view.getUint8(1)) {
    case KIND_H264: found.onPacket(pts_ns, (view.getUint8(2) & 1) === 1, data); break;
    case KIND_JPEG: found.onJpeg(pts_ns, data); break;
  }
}

let socket = null;

function connect() {
  show("connecting", "connecting");
  const url = new URL(wantJpeg ? "ws?video=jpeg" : "ws?video=1", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    lastMessageMs = performance.now();
    retryMs = RETRY_FIRST_MS;
    state.connects += 1;
    state.ended = null;
    show("live", "connected");
    notice(wantJpeg && !("VideoDecoder" in window)
      ? "This browser cannot decode video in a page (WebCodecs needs a recent browser, and https or 127.0.0.1): JPEG pictures are shown where the graph connects 'frame', boxes alone elsewhere."
      : null);
  };
  socket.onmessage = onMessage;
  socket.onclose = event => {
    byIndex.clear();
    for (const c of cameras.values()) c.onDisconnect();
    if (event.code === 1013) notice(`The server is full: ${event.reason}.`);
    const wait = event.code === 4000 ? 0 : retryMs * (0.75 + Math.random() / 2);
    retryMs = Math.min(retryMs * 1.7, RETRY_MOST_MS);
    show(state.ended ? "ended" : "waiting", state.ended ? state.ended : "no connection, trying again");
    setTimeout(connect, wait);
  };
}

// An open connection says nothing of the server: one that hangs leaves it open.
setInterval(() => {
  const silentMs = performance.now() - lastMessageMs;
  if (socket?.readyState !== WebSocket.OPEN || silentMs < SILENT_MS) return;
  if (state.connection !== "silent") for (const c of cameras.values()) c.onSilence();
  show("silent", `no data for ${Math.floor(silentMs / 1000)} s`);
}, 500);

connect();
