// From the parts of a hole, see History.hole, to pixels and back.

const TILE = 1024; // side of the squares in which a hole is searched, in pixels
const LEAST_ALPHA = 16; // difference of opacity, of 255, that is not an accident

/**
 * Draws a hole, opaque on transparent.
 * @param {CanvasRenderingContext2D} context
 * @param {object[]} parts as of History.hole
 * @param {{ scale: number, x: number, y: number }} view pixels of the canvas for one of the
 *   picture, and the picture's pixel at the canvas's top left
 */
export function draw(context, parts, { scale, x, y }, color) {
  for (const part of parts) {
    context.save();
    context.scale(scale, scale);
    context.translate(part.dx - x, part.dy - y);
    context.globalCompositeOperation = part.erase ? "destination-out" : "source-over";
    if (part.kind === "stamp") stamp(context, part.stamp, color);
    else stroke(context, part, color);
    context.restore();
  }
}

function stroke(context, { radius, points }, color) {
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = 2 * radius;
  context.strokeStyle = color;
  context.beginPath();
  const [[x, y], ...rest] = points;
  context.moveTo(x, y);
  // A short line draws a dot; some browsers draw nothing for a line of length 0.
  context.lineTo(x + 0.01, y);
  for (const [x, y] of rest) context.lineTo(x, y);
  context.stroke();
}

function stamp(context, image, color) {
  context.drawImage(image, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.resetTransform();
  context.fillStyle = color;
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
}

/** Returns whether a hole has any pixel within the picture. */
export function covers(parts, width, height) {
  const last = parts.at(-1);
  if (last?.kind === "stroke" && !last.erase) {
    const [x, y] = [last.points[0][0] + last.dx, last.points[0][1] + last.dy];
    if (x > 0 && y > 0 && x < width && y < height) return true;
  }
  if (!parts.some((part) => !part.erase)) return false;
  const context = blank(Math.min(TILE, width), Math.min(TILE, height));
  const [left, top, right, bottom] = bounds(parts, width, height);
  for (let y = top; y < bottom; y += TILE) {
    for (let x = left; x < right; x += TILE) {
      context.clearRect(0, 0, TILE, TILE);
      draw(context, parts, { scale: 1, x, y }, "#fff");
      const size = [Math.min(TILE, right - x), Math.min(TILE, bottom - y)];
      const { data } = context.getImageData(0, 0, ...size);
      for (let i = 3; i < data.length; i += 4) if (data[i] > 127) return true;
    }
  }
  return false;
}

/** Returns the part of the picture that has all painted parts: left, top, right, bottom. */
function bounds(parts, width, height) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (const { kind, erase, stamp, points, radius, dx, dy } of parts) {
    if (erase) continue;
    const corners = kind === "stamp" ? [[0, 0], [stamp.width, stamp.height]] : points;
    for (const [x, y] of corners) {
      const around = 1 + (radius ?? 0);
      [left, top] = [Math.min(left, x + dx - around), Math.min(top, y + dy - around)];
      [right, bottom] = [Math.max(right, x + dx + around), Math.max(bottom, y + dy + around)];
    }
  }
  return [
    Math.max(0, Math.floor(left)),
    Math.max(0, Math.floor(top)),
    Math.min(width, Math.ceil(right)),
    Math.min(height, Math.ceil(bottom)),
  ];
}

/** Returns a hole as PNG of the picture's size, white on black. */
export async function toMask(parts, width, height) {
  const context = blank(width, height);
  draw(context, parts, { scale: 1, x: 0, y: 0 }, "#fff");
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  const png = await new Promise((done) => context.canvas.toBlob(done, "image/png"));
  if (!png) throw new Error("This browser cannot handle so large a picture.");
  return png;
}

/**
 * Returns the stamp of a mask, by the server's rule: bright is the hole. If opacity varies,
 * it decides: painted is the hole or, in a picture of which less than half was erased,
 * erased is.
 * @param {ImageBitmap} mask
 */
export function fromMask(mask, width, height) {
  const context = blank(width, height);
  context.drawImage(mask, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  const { data } = pixels;
  let [least, most, opaque] = [255, 0, 0];
  for (let i = 3; i < data.length; i += 4) {
    least = Math.min(least, data[i]);
    most = Math.max(most, data[i]);
  }
  const isOpaque = (alpha) => 2 * alpha > least + most;
  for (let i = 3; i < data.length; i += 4) opaque += isOpaque(data[i]);
  const erased = 2 * opaque > width * height;
  const byAlpha = most - least >= LEAST_ALPHA;
  for (let i = 0; i < data.length; i += 4) {
    const bright = data[i] + data[i + 1] + data[i + 2] > 3 * 127.5;
    const hole = byAlpha ? isOpaque(data[i + 3]) !== erased : bright;
    data.fill(hole ? 255 : 0, i, i + 4);
  }
  context.putImageData(pixels, 0, 0);
  return context.canvas;
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas.getContext("2d", { willReadFrequently: true });
}
