// One camera: pictures and boxes come apart, and are joined by presentation time before anything is drawn.
import { colour, drawFound } from "./found.js";

const HELD_MOST = 12;               // decoded pictures that wait for their boxes
const WAIT_MS = 300;                // for how long they wait, more where boxes have been seen to take longer
const WAIT_MOST_MS = 2500;
const BOXES_MOST = 600;             // boxes that wait for their picture
const KEEP_BOXES_MS = 1000;         // how long old boxes stay on pictures that are drawn without their own
const HISTORY = 240;                // drawn pictures that window.millrace remembers
const BEHIND_MOST = 120;            // pictures given to the decoder and not yet out
const SILENT_MS = 3000;

const span = s => s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
const micros = pts_ns => Math.round(pts_ns / 1000);

export class Camera {
  constructor(source, onUnsupported) {
    this.source = source;
    this.onUnsupported = onUnsupported;
    this.card = document.getElementById("camera").content.firstElementChild.cloneNode(true);
    this.canvas = this.card.querySelector("canvas.picture");
    this.context = this.canvas.getContext("2d", { alpha: false });
    // boxes have a canvas of their own: those of a camera that is not live any more are taken off its last picture
    this.overlay = this.card.querySelector("canvas.boxes");
    this.overlayContext = this.overlay.getContext("2d");
    this.badge = this.card.querySelector(".badge");
    this.why = this.card.querySelector(".why");
    this.about = this.card.querySelector(".about");
    this.live = true;
    this.card.querySelector(".name").textContent = source;
    this.format = this.card.querySelector(".format");
    this.figures = Object.fromEntries([...this.card.querySelectorAll("[data-of]")].map(e => [e.dataset.of, e]));
    this.legend = new Map();
    this.state = { codec: null, detections: 0, packets: 0, decoded: 0, exact: 0, late: 0, skipped: 0, boxes_only: 0, errors: 0, lag_ms: 0, drawn: [], state: null };
    this.resize(960, 540);
    this.drawGround();
    this.forget();
  }

  forget() {
    this.boxes = new Map();         // microseconds -> detections
    this.newest = -Infinity;        // the latest of them
    this.held?.forEach(p => p.image.close());
    this.held = [];                 // {ts, image, at}, in presentation order
    this.arrivals = new Map();      // microseconds -> when the encoded picture came
    this.delayed = [];              // encoded pictures that wait before the decoder
    this.lastBoxes = null;
    this.lag = 0;
    // pictures may be on their way: boxes are not drawn alone at once
    this.pictureAt = performance.now();
    clearTimeout(this.feedTimer);
    clearTimeout(this.pumpTimer);
    this.feedTimer = this.pumpTimer = null;
  }

  onDisconnect() {
    this.closeDecoder();
    this.forget();
    this.video = null;
    this.onSilence();
  }

  // What is shown is old: it is dimmed until a picture or a box comes.
  onSilence() {
    this.clearBoxes();
    this.card.classList.add("silent");
  }

  onVideo(message) {
    this.video = message;
    this.state.codec = message.codec;
    this.format.textContent = `${message.codec === "jpeg" ? "JPEG" : "H.264"} ${message.width_px}×${message.height_px}`;
    this.format.title = message.codec;
    this.closeDecoder();
    this.delayed = [];
    this.replay = this.replayIn = message.replay_packets;
    if (message.codec !== "jpeg") this.openDecoder();
  }

  onGap() {
    // what was lost leaves the decoder without its references; the next packet is a key frame
    this.delayed = [];
    this.replay = 0;
  }

  openDecoder() {
    // Annex-B: no description, the parameter sets stand in front of each key frame
    const config = { codec: this.video.codec, optimizeForLatency: true };
    const decoder = new VideoDecoder({
      output: frame => this.onPicture(frame.timestamp, frame, frame.displayWidth, frame.displayHeight),
      error: error => {
        this.state.errors += 1;
        console.warn(`${this.source}: ${error.message}; going on at the next key frame`);
        if (this.decoder === decoder) this.decoder = null;
        if (error.name === "NotSupportedError") this.onUnsupported();
      },
    });
    decoder.configure(config);
    this.decoder = decoder;
    this.needKey = true;
  }

  closeDecoder() {
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    this.decoder = null;
  }

  onPacket(pts_ns, key, data) {
    this.state.packets += 1;
    const now = performance.now();
    const ts = micros(pts_ns);
    const replayed = this.replayIn > 0;
    if (replayed) this.replayIn -= 1;
    else this.remember(this.arrivals, ts, now);
    // boxes that come much later than their picture would need many decoded pictures held; encoded ones are small
    const due = replayed ? now : now + Math.max(0, this.lag - WAIT_MS / 2);
    this.delayed.push({ due, key, chunk: new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp: ts, data }) });
    this.feed();
  }

  feed() {
    clearTimeout(this.feedTimer);
    this.feedTimer = null;
    const now = performance.now();
    while (this.delayed.length && (this.delayed[0].due <= now || this.delayed.length > BEHIND_MOST)) {
      const { key, chunk } = this.delayed.shift();
      if (!this.decoder && key && this.video && this.video.codec !== "jpeg") this.openDecoder();
      if (!this.decoder || (this.needKey && !key)) continue;
      if (this.decoder.decodeQueueSize > BEHIND_MOST && !(this.replay > 0)) {
        // this machine is too slow for the stream: skip to the next key frame
        this.needKey = true;
        this.state.skipped += 1;
        continue;
      }
      this.needKey = false;
      this.decoder.decode(chunk);
    }
    if (this.delayed.length) this.feedTimer = setTimeout(() => this.feed(), this.delayed[0].due - now);
  }

  async onJpeg(pts_ns, data) {
    this.state.packets += 1;
    this.remember(this.arrivals, micros(pts_ns), performance.now());
    try {
      const image = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
      this.onPicture(micros(pts_ns), image, image.width, image.height);
    } catch (error) {
      this.state.errors += 1;
      console.warn(`${this.source}: a JPEG picture could not be decoded: ${error}`);
    }
  }

  // Its card is taken off the page.
  remove() {
    this.closeDecoder();
    this.forget();
    this.card.remove();
  }

  // A decoded picture, in presentation order.
  onPicture(ts, image, width, height) {
    this.state.decoded += 1;
    if (this.replay > 0) {
      // the way from the last key frame to now: only its end is worth showing
      this.replay -= 1;
      if (this.replay === 0) this.draw(ts, image, width, height, null);
      image.close();
      return;
    }
    this.held.push({ ts, image, width, height, at: performance.now() });
    this.pump();
  }

  onDetections(found) {
    this.state.detections += 1;
    const ts = micros(found.pts_ns), now = performance.now();
    const came = this.arrivals.get(ts);
    if (came !== undefined) this.lag = Math.min(Math.max(now - came, this.lag * 0.98), WAIT_MOST_MS);
    this.state.lag_ms = Math.round(this.lag);
    // a stream that begins again counts from zero
    if (ts < this.newest - 1e6) this.boxes.clear();
    this.newest = ts;
    this.remember(this.boxes, ts, found);
    if (this.hasPicture()) this.pump();
    else this.drawBoxesAlone(found);
  }

  // Draws every held picture whose boxes are there, or of which it is known that they will not come (in time).
  pump() {
    clearTimeout(this.pumpTimer);
    this.pumpTimer = null;
    const wait = Math.min(Math.max(WAIT_MS, this.lag * 1.5), WAIT_MOST_MS);
    while (this.held.length) {
      const { ts, image, width, height, at } = this.held[0];
      const found = this.boxes.get(ts);
      const age = performance.now() - at;
      if (found) {
        this.draw(ts, image, width, height, found);
        this.state.exact += 1;
      } else if (ts < this.newest && this.newest - ts < 10e6) {
        // boxes of a later picture are there already: the detector passed this one over
        this.state.skipped += 1;
      } else if (age >= wait || this.held.length > HELD_MOST) {
        this.draw(ts, image, width, height, null);
        this.state.late += 1;
        this.figures.late.textContent = this.state.late.toLocaleString("en");
      } else {
        this.pumpTimer = setTimeout(() => this.pump(), wait - age);
        return;
      }
      this.held.shift();
      image.close();
    }
  }

  hasPicture() {
    return this.held.length > 0 || performance.now() - this.pictureAt < (this.video ? SILENT_MS : SILENT_MS / 3);
  }

  draw(ts, image, width, height, found) {
    this.pictureAt = performance.now();
    this.drawUpright(image, width, height);
    this.clearBoxes();
    if (!this.live) found = null;
    if (found) {
      this.drawBoxes(found, true);
      this.lastBoxes = { found, at: this.pictureAt };
    } else if (this.lastBoxes && this.pictureAt - this.lastBoxes.at < KEEP_BOXES_MS) {
      this.drawBoxes(this.lastBoxes.found, false);
    }
    this.record(ts, found);
  }

  // H.264 comes as it is stored: mirrored and turned as its stream says, it is as the boxes see it.
  drawUpright(image, width, height) {
    // 'none', '90', 'mirror', 'mirror_90', ...: mirrored first, then turned clockwise
    const orientation = this.video?.orientation ?? "none";
    const mirror = orientation.startsWith("mirror"), degrees = Number(orientation.replace(/\D/g, ""));
    const sideways = degrees % 180 !== 0;
    this.resize(sideways ? height : width, sideways ? width : height);
    const { context, canvas } = this;
    context.save();
    context.translate(canvas.width / 2, canvas.height / 2);
    context.rotate(degrees * Math.PI / 180);
    context.scale(mirror ? -1 : 1, 1);
    context.drawImage(image, -width / 2, -height / 2, width, height);
    context.restore();
  }

  drawBoxesAlone(found) {
    if (!this.live) return;
    this.resize(found.width_px || 960, found.height_px || 540);
    this.drawGround();
    this.clearBoxes();
    this.drawBoxes(found, true);
    this.state.boxes_only += 1;
    if (this.state.boxes_only === 50 && !this.state.decoded) {
      this.format.textContent = "boxes alone";
      this.format.title = "The graph hands ws-publisher neither the packets ('packet') nor the frames ('frame') of this camera.";
    }
    this.record(micros(found.pts_ns), found);
  }

  clearBoxes() {
    this.overlayContext.clearRect(0, 0, this.overlay.width, this.overlay.height);
  }

  // What is shown where there is no picture.
  drawGround() {
    const { context, canvas } = this, step = canvas.width / 16;
    context.fillStyle = "#0a0e13";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.strokeStyle = "#161d25";
    context.lineWidth = 1;
    context.beginPath();
    for (let x = step; x < canvas.width; x += step) { context.moveTo(x, 0); context.lineTo(x, canvas.height); }
    for (let y = step; y < canvas.height; y += step) { context.moveTo(0, y); context.lineTo(canvas.width, y); }
    context.stroke();
  }

  drawBoxes(found, own) {
    drawFound(this.overlayContext, this.overlay, found, own);
    if (own) this.count(found);
  }

  count(found) {
    const now = new Map();
    for (const { class_id, label } of found.boxes) {
      now.set(class_id, { label, n: (now.get(class_id)?.n ?? 0) + 1 });
    }
    for (const [id, { label }] of now) {
      if (this.legend.has(id) || this.legend.size >= 24) continue;
      const item = document.createElement("li");
      const dot = document.createElement("i"), n = document.createElement("b");
      dot.style.background = colour(id);
      item.append(dot, label, n);
      this.legend.set(id, { item, n });
      this.card.querySelector(".legend").append(item);
    }
    for (const [id, { item, n }] of this.legend) {
      const many = now.get(id)?.n ?? 0;
      if (n.textContent !== String(many)) {
        n.textContent = many;
        item.dataset.count = many;
      }
    }
  }

  onStats(stats) {
    const set = (name, text, unit) => {
      this.figures[name].textContent = text;
      if (!unit) return;
      const small = document.createElement("small");
      small.textContent = unit;
      this.figures[name].append(small);
    };
    this.onState(stats);
    this.about.hidden = !stats.about;
    this.about.textContent = stats.about ? `${stats.model}: ${stats.about}` : "";
    const ms = value => value === undefined ? ["–"] : [value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en"), "ms"];
    set("fps", stats.fps.toFixed(1));
    set("p50", ...ms(stats.age_p50_ms));
    set("p95", ...ms(stats.age_p95_ms));
    set("p99", ...ms(stats.age_p99_ms));
    set("frames", stats.frames.toLocaleString("en"));
    set("missing", stats.missing.toLocaleString("en"));
    this.figures.missing.classList.toggle("some", stats.missing > 0);
    this.card.classList.remove("silent");
  }

  // What the camera is doing: one that is not live looks dead, and says why.
  onState({ state, since_ns, last_error, tries, fps, frames }) {
    const live = state === "live", unseen = live && fps === 0 && frames > 0;
    if (this.live && !live) {
      this.clearBoxes();
      this.boxes.clear();
      this.lastBoxes = null;
      this.count({ boxes: [] });
    }
    this.live = live;
    this.state.state = state;
    this.card.dataset.state = unseen ? "unseen" : state;
    this.badge.textContent = unseen ? "no detections" : state;
    const since = new Date(since_ns / 1e6), for_s = Math.max(0, Math.round((Date.now() - since) / 1000));
    const time = since.toLocaleTimeString("en-GB");
    const parts = [`${state} since ${time} (${span(for_s)})`];
    if (tries > 1) parts.push(`attempt ${tries}`);
    this.why.querySelector("b").textContent = parts.join(", ");
    this.why.querySelector("span").textContent = last_error ?? "";
    this.why.hidden = live;
    this.canvas.setAttribute("aria-label", `camera ${this.source}: ${live ? state : `${parts.join(", ")} ${last_error ?? ""}`}`);
  }

  resize(width, height) {
    if (this.canvas.width === width && this.canvas.height === height) return;
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = width;
      canvas.height = height;
    }
    document.getElementById("cameras").style.setProperty("--aspect", width / height);
  }

  remember(map, key, value) {
    map.set(key, value);
    // a Map keeps the order of insertion: the first is the oldest
    if (map.size > BOXES_MOST) map.delete(map.keys().next().value);
  }

  record(ts, found) {
    const { drawn } = this.state;
    drawn.push({ pts_us: ts, seq: found?.seq ?? null, boxes: found?.boxes ?? null, classes: found?.classes ?? null });
    if (drawn.length > HISTORY) drawn.shift();
  }
}
