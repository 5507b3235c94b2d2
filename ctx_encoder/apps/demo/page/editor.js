// A picture and the hole painted onto it: drawing, and the pointer's gestures.
//
// Everything is in pixels of the picture; the view says which of them are on the screen.

import { covers, draw } from "./hole.js";
import { View } from "./view.js";

const HOLE = "#ff3fb4";
const OPACITY = 0.7; // of the hole

export class Editor {
  /**
   * @param {HTMLCanvasElement} canvas shows the picture
   * @param {HTMLElement} ring shows the size of the brush
   * @param {() => void} changed called after the hole or the view has changed
   */
  constructor(canvas, ring, changed) {
    Object.assign(this, { canvas, ring, changed });
    this.picture = null; // ImageBitmap
    this.history = null;
    this.holed = false; // whether the hole has any pixel
    this.tool = "brush"; // or "eraser", "move"
    this.panning = false; // as long as the space bar is down
    this.size = 0.4; // of the brush, within [0, 1]
    this.view = new View();
    this.cursor = [0, 0]; // of the keyboard
    this.stroke = null; // that is being painted
    this.drag = null; // the point from which the hole or the view is dragged
    this.fingers = new Map();
    this.layer = document.createElement("canvas");
    const listen = (name, listener) =>
      canvas.addEventListener(name, listener.bind(this), { passive: false });
    listen("pointerdown", this.begin);
    listen("pointermove", this.move);
    listen("pointerup", (event) => this.end(event, true));
    listen("pointercancel", (event) => this.end(event, false));
    listen("pointerleave", () => (ring.hidden = true));
    listen("wheel", this.wheel);
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
    return Math.max(1, (side * 0.01 * 20 ** this.size) / this.view.zoom);
  }

  /** @param {ImageBitmap} picture */
  load(picture, history) {
    this.picture?.close();
    Object.assign(this, { picture, history, stroke: null, drag: null });
    this.cursor = [picture.width / 2, picture.height / 2];
    this.view.zoom = 1;
    this.fit();
    this.check();
  }

  /** Does an action, or shows what undo and redo have changed. */
  do(action) {
    if (action) this.history.push(action);
    this.check();
  }

  clear() {
    if (this.holed) this.do({ kind: "clear" });
  }

  /** Moves the hole; steps that follow each other are undone together. */
  shift(dx, dy) {
    const last = this.history.actions.at(-1);
    if (last.kind === "move") [last.dx, last.dy] = [last.dx + dx, last.dy + dy];
    else this.history.push({ kind: "move", dx, dy });
    this.redraw();
  }

  /** Finds out whether there is a hole, and draws. */
  check() {
    if (!this.picture) return;
    this.holed = covers(this.history.hole, this.width, this.height);
    this.redraw();
  }

  /** Fits the picture into its frame at the resolution of the screen. */
  fit() {
    if (!this.picture) return;
    const { canvas, layer, width, height, view } = this;
    const frame = canvas.parentElement;
    const fit = Math.min(frame.clientWidth / width, frame.clientHeight / height);
    if (!(fit > 0)) return;
    canvas.style.width = `${width * fit}px`;
    canvas.style.height = `${height * fit}px`;
    const dense = fit * Math.min(devicePixelRatio, 2);
    for (const each of [canvas, layer]) {
      each.width = Math.max(1, Math.round(width * dense));
      each.height = Math.max(1, Math.round(height * dense));
    }
    const { zoom, x, y } = view;
    view.fitAll(width, height, fit);
    view.zoomAt(zoom, 0, 0);
    view.moveTo(x, y);
    this.redraw();
  }

  /** The view in pixels of the canvas. */
  get shown() {
    const { x, y, zoom } = this.view;
    return { x, y, scale: (this.layer.width / this.width) * zoom };
  }

  redraw() {
    const context = this.layer.getContext("2d");
    context.clearRect(0, 0, this.layer.width, this.layer.height);
    draw(context, this.history.hole, this.shown, HOLE);
    this.show();
    this.changed();
  }

  show() {
    const { canvas, layer, picture } = this;
    const { x, y, scale } = this.shown;
    const context = canvas.getContext("2d");
    context.globalAlpha = 1;
    context.fillStyle = "#fff"; // under transparent pixels, as on the server
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = scale < 4; // else pixels can be told apart
    context.imageSmoothingQuality = "high";
    const part = [x, y, canvas.width / scale, canvas.height / scale];
    context.drawImage(picture, ...part, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = OPACITY;
    context.drawImage(layer, 0, 0);
  }

  zoom(factor, [x, y] = this.middle) {
    this.view.zoomAt(factor, x, y);
    this.redraw();
  }

  get middle() {
    const { x, y, zoom } = this.view;
    return [x + this.width / zoom / 2, y + this.height / zoom / 2];
  }

  /** Returns the position of a pointer in pixels of the picture. */
  position({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    const { x, y, scale } = this.view;
    return [x + (clientX - box.left) / scale, y + (clientY - box.top) / scale];
  }

  begin(event) {
    if (!this.picture) return;
    const { pointerId, pointerType, button } = event;
    if (pointerType === "touch") this.fingers.set(pointerId, event);
    this.canvas.setPointerCapture(pointerId);
    if (this.fingers.size > 1) return this.abandon();
    if (button === 1 || this.panning) {
      event.preventDefault(); // the browser would scroll
      this.drag = { pan: true, from: this.position(event) };
    } else if (button === 0 && this.tool === "move") {
      this.drag = { pan: false, from: this.position(event) };
      this.history.push({ kind: "move", dx: 0, dy: 0 });
    } else if (button === 0) {
      this.startStroke(this.position(event));
    }
  }

  move(event) {
    if (!this.picture) return;
    if (this.fingers.size > 1) return this.movePinch(event);
    const point = this.position(event);
    this.showRing(point, event.pointerType === "touch");
    if (this.drag) this.dragTo(point);
    if (!this.stroke) return;
    const events = event.getCoalescedEvents?.() ?? [];
    const points = (events.length ? events : [event]).map((one) => this.position(one));
    this.continueStroke(points);
  }

  end(event, keep) {
    this.fingers.delete(event.pointerId);
    if (this.stroke && keep) this.endStroke();
    else if (this.stroke) this.abandon();
    else if (this.drag && !this.drag.pan) this.check();
    this.drag = null;
  }

  dragTo([x, y]) {
    const [fromX, fromY] = this.drag.from;
    if (this.drag.pan) {
      this.view.moveTo(this.view.x + fromX - x, this.view.y + fromY - y);
      this.redraw();
    } else {
      this.drag.from = [x, y];
      this.shift(x - fromX, y - fromY);
    }
  }

  movePinch(event) {
    const measure = () => {
      const [one, other] = [...this.fingers.values()].map((each) => this.position(each));
      const across = Math.hypot(one[0] - other[0], one[1] - other[1]);
      return { across, x: (one[0] + other[0]) / 2, y: (one[1] + other[1]) / 2 };
    };
    if (!this.fingers.has(event.pointerId)) return;
    const before = measure();
    this.fingers.set(event.pointerId, event);
    const now = measure();
    this.view.zoomAt(now.across / Math.max(before.across, 1e-6), now.x, now.y);
    const after = measure();
    this.view.moveTo(this.view.x + before.x - after.x, this.view.y + before.y - after.y);
    this.redraw();
  }

  wheel(event) {
    // Scrolls the page on when the picture is as small as it gets.
    if (!this.picture || (event.deltaY > 0 && this.view.zoom === 1)) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.002; // of a touchpad's pinch, of a wheel
    this.zoom(Math.exp(-event.deltaY * lines * speed), this.position(event));
  }

  startStroke(point) {
    const erase = this.tool === "eraser";
    this.stroke = { kind: "stroke", erase, radius: this.radius, points: [point] };
    this.history.push(this.stroke);
    this.redraw();
  }

  continueStroke(points) {
    const added = { ...this.stroke, dx: 0, dy: 0 };
    added.points = [this.stroke.points.at(-1), ...points];
    this.stroke.points.push(...points);
    draw(this.layer.getContext("2d"), [added], this.shown, HOLE);
    this.show();
  }

  endStroke() {
    this.stroke = null;
    this.check();
  }

  /** Takes back the stroke that is being painted. */
  abandon() {
    if (this.stroke) this.history.actions.pop();
    this.stroke = this.drag = null;
    this.check();
  }

  showRing([x, y], hidden = false) {
    const { ring, canvas, view } = this;
    ring.hidden = hidden; // under a finger
    const box = canvas.getBoundingClientRect();
    const frame = canvas.parentElement.getBoundingClientRect();
    ring.style.width = ring.style.height = `${2 * this.radius * view.scale}px`;
    ring.style.left = `${box.left - frame.left + (x - view.x) * view.scale}px`;
    ring.style.top = `${box.top - frame.top + (y - view.y) * view.scale}px`;
  }

  // The keyboard's cursor

  /** Moves the cursor, which paints if the brush is down, or the hole. */
  steer(dx, dy) {
    const [x, y] = this.cursor;
    if (this.tool === "move") {
      if (this.history.hole.length) this.shift(dx, dy);
      return this.check();
    }
    this.cursor = [
      Math.max(0, Math.min(this.width, x + dx)),
      Math.max(0, Math.min(this.height, y + dy)),
    ];
    this.view.include(...this.cursor);
    if (this.stroke) this.stroke.points.push(this.cursor);
    this.redraw();
    this.showRing(this.cursor);
  }

  /** Puts the brush down at the cursor, or lifts it. */
  press() {
    if (this.tool === "move") return;
    if (this.stroke) this.endStroke();
    else this.startStroke(this.cursor);
    this.showRing(this.cursor);
  }
}
