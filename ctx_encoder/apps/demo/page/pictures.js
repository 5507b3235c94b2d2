// The opened pictures: each with its history and its result.

import { History } from "./history.js";

const THUMBNAIL = 88; // height in pixels

export class Picture {
  /**
   * @param {Blob} blob
   * @param {string} name
   * @param {boolean} example is closed when another picture is opened
   */
  constructor(blob, name, example = false) {
    Object.assign(this, { name, example });
    this.history = new History(blob);
    this.result = null; // { original, blob, timing }: the picture that was sent, completed
    this.size = null; // [width, height]
    this.thumbnail = "";
  }

  /** Makes the result the picture to paint on. */
  goOn() {
    this.history.push({ kind: "picture", blob: this.result.blob, from: this.result });
    this.result = null;
  }

  /** Follows the history; returns whether there is another picture to paint on. */
  follow(step) {
    const action = this.history[step]();
    if (action?.kind !== "picture") return false;
    this.result = step === "undo" ? action.from : null;
    return true;
  }

  get fileName() {
    return this.name.replace(/\.[^.]*$/, "");
  }
}

export class Pictures {
  constructor() {
    this.all = [];
    this.current = null;
  }

  add(picture) {
    this.all = this.all.filter((one) => !one.example);
    this.all.push(picture);
  }

  /** Closes the current picture; returns the one to show then. */
  close() {
    const place = this.all.indexOf(this.current);
    this.all.splice(place, 1);
    return this.all[Math.min(place, this.all.length - 1)];
  }

  /** Shows the pictures as buttons, if there are several. */
  draw(element, choose) {
    const buttons = this.all.map((picture) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = button.ariaLabel = picture.name + (picture.result ? ", completed" : "");
      button.ariaPressed = picture === this.current;
      button.classList.toggle("completed", Boolean(picture.result));
      button.addEventListener("click", () => choose(picture));
      const image = new Image();
      image.src = picture.thumbnail;
      image.alt = "";
      button.append(image);
      return button;
    });
    element.replaceChildren(...buttons);
  }
}

/**
 * Decodes a picture, upright.
 * @param {number} most pixels
 */
export async function decode(blob, most) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    throw new Error("this browser cannot show it. Use a JPEG, PNG or WebP file.");
  }
  const pixels = bitmap.width * bitmap.height;
  if (pixels <= most) return bitmap;
  bitmap.close();
  throw new Error(`${(pixels / 1e6).toFixed(1)} million pixels are too many for this server.`);
}

/** Returns a small version of a picture as a data URL. */
export function thumbnail(bitmap) {
  const canvas = document.createElement("canvas");
  canvas.height = THUMBNAIL;
  canvas.width = Math.max(1, Math.round((bitmap.width / bitmap.height) * THUMBNAIL));
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.8);
}
