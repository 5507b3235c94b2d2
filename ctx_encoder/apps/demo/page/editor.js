// A picture and the hole painted onto it.
//
// The hole is stored as a list of actions in pixels of the picture. Undo removes the last
// action; the mask is drawn at full resolution only when it is needed.

const HOLE = "#ff3fb4";
const OPACITY = 0.7; // of the hole

export class Editor {
  /**
   * @param {HTMLCanvasElement} canvas shows the picture
   * @param {HTMLElement} ring shows the size of the brush
   * @param {() => void} changed called after the hole has changed
   */
  constructor(canvas, ring, changed) {
    this.canvas = canvas;
    this.ring = ring;
    this.changed = changed;
    this.picture = null;
    this.erasing = false;
    this.size = 0.4; // of the brush, within [0, 1]
    this.actions = [];
    this.stroke = null;
    this.layer = document.createElement("canvas");
    const listen = (name, listener) => canvas.addEventListener(name, listener);
    listen("pointerdown", (event) => this.begin(event));
    listen("pointermove", (event) => this.move(event));
    listen("pointerup", (event) => this.end(event, true));
    listen("pointercancel", (event) => this.end(event, false)); // the browser zooms instead
    listen("pointerleave", () => (ring.hidden = true));
    new ResizeObserver(() => this.fit()).observe(canvas.parentElement);
  }

  get width() {
    return this.picture.width;
  }

  get height() {
    return this.picture.height;
  }

  /** Radius of the brush in pixels of the picture. */
  get radius() {
    const side = Math.min(this.width, this.height);
    return Math.max(1, side * 0.01 * 20 ** this.size);
  }

  get hasHole() {
    const last = this.actions.findLastIndex((action) => action.kind === "clear");
    return this.actions.slice(last + 1).some((action) => !action.erase);
  }

  /** @param {ImageBitmap} picture */
  load(picture) {
    this.picture?.close();
    this.picture = picture;
    this.actions = [];
    this.stroke = null;
    this.fit();
    this.changed();
  }

  /** @param {HTMLCanvasElement} stamp a hole of the picture's size, opaque = hole */
  replace(stamp) {
    this.actions.push({ kind: "clear" }, { kind: "stamp", stamp });
    this.redraw();
  }

  clear() {
    if (this.hasHole) this.actions.push({ kind: "clear" });
    this.redraw();
  }

  undo() {
    // A ready-made hole is two actions, which are undone together.
    if (this.actions.pop()?.kind === "stamp") this.actions.pop();
    this.redraw();
  }

  /** Returns the mask at full resolution as PNG, white = hole. */
  async mask() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.width, this.height];
    const context = canvas.getContext("2d");
    for (const action of this.actions) draw(context, action, 1, "#fff");
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    if (!blob) throw new Error("This browser cannot handle so large a picture.");
    return blob;
  }

  /** Fits the picture into its frame at the resolution of the screen. */
  fit() {
    if (!this.picture) return;
    const { canvas, layer, width, height } = this;
    const frame = canvas.parentElement;
    const scale = Math.min(frame.clientWidth / width, frame.clientHeight / height);
    if (!(scale > 0)) return;
    canvas.style.width = `${width * scale}px`;
    canvas.style.height = `${height * scale}px`;
    const dense = scale * Math.min(devicePixelRatio, 2);
    for (const each of [canvas, layer]) {
      each.width = Math.max(1, Math.round(width * dense));
      each.height = Math.max(1, Math.round(height * dense));
    }
    this.scale = layer.width / width;
    this.redraw();
  }

  redraw() {
    if (!this.picture) return;
    const context = this.layer.getContext("2d");
    context.clearRect(0, 0, this.layer.width, this.layer.height);
    for (const action of this.actions) draw(context, action, this.scale, HOLE);
    this.show();
    this.changed();
  }

  show() {
    const { canvas, layer, picture } = this;
    const context = canvas.getContext("2d");
    context.globalAlpha = 1;
    context.fillStyle = "#fff"; // under transparent pixels, as on the server
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = OPACITY;
    context.drawImage(layer, 0, 0);
  }

  /** Returns the position of a pointer in pixels of the picture. */
  position(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * this.width) / box.width,
      ((event.clientY - box.top) * this.height) / box.height,
    ];
  }

  begin(event) {
    // Ignore a second finger.
    if (!this.picture || event.button !== 0 || !event.isPrimary) return;
    this.canvas.setPointerCapture(event.pointerId);
    const { erasing: erase, radius } = this;
    this.stroke = { kind: "stroke", erase, radius, points: [this.position(event)] };
    this.actions.push(this.stroke);
    this.redraw();
  }

  move(event) {
    if (!this.picture) return;
    this.showRing(event);
    if (!this.stroke || !event.isPrimary) return;
    const events = event.getCoalescedEvents?.() ?? [];
    const points = (events.length ? events : [event]).map((one) => this.position(one));
    const { erase, radius } = this.stroke;
    const added = { kind: "stroke", erase, radius };
    added.points = [this.stroke.points.at(-1), ...points];
    this.stroke.points.push(...points);
    draw(this.layer.getContext("2d"), added, this.scale, HOLE);
    this.show();
  }

  end(event, keep) {
    if (!this.stroke || !event.isPrimary) return;
    if (!keep) this.actions.pop();
    this.stroke = null;
    this.redraw();
  }

  showRing(event) {
    const { ring, canvas } = this;
    ring.hidden = event.pointerType === "touch"; // under the finger
    const frame = canvas.parentElement.getBoundingClientRect();
    const across = (2 * this.radius * canvas.clientWidth) / this.width;
    ring.style.width = ring.style.height = `${across}px`;
    ring.style.left = `${event.clientX - frame.left}px`;
    ring.style.top = `${event.clientY - frame.top}px`;
  }
}

/** Applies an action to a hole, which is opaque on transparent. */
function draw(context, action, scale, color) {
  const { width, height } = context.canvas;
  context.globalCompositeOperation = action.erase ? "destination-out" : "source-over";
  if (action.kind === "clear") {
    context.clearRect(0, 0, width, height);
  } else if (action.kind === "stamp") {
    context.drawImage(action.stamp, 0, 0, width, height);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = color;
    context.fillRect(0, 0, width, height);
  } else {
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = 2 * action.radius * scale;
    context.strokeStyle = color;
    context.beginPath();
    const [[x, y], ...rest] = action.points;
    context.moveTo(x * scale, y * scale);
    // A short line draws a dot; some browsers draw nothing for a line of length 0.
    context.lineTo(x * scale + 0.01, y * scale);
    for (const [x, y] of rest) context.lineTo(x * scale, y * scale);
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
}
