// The part of a picture that is shown: how much it is enlarged, and from where.

const CLOSEST = 16; // screen pixels for one of the picture

export class View {
  constructor() {
    this.fitAll(1, 1, 1);
  }

  /** Shows all of a picture; `fit` is the number of screen pixels for one of its own. */
  fitAll(width, height, fit) {
    Object.assign(this, { width, height, fit, zoom: 1, x: 0, y: 0 });
  }

  /** Screen pixels for one of the picture. */
  get scale() {
    return this.fit * this.zoom;
  }

  get most() {
    return Math.max(1, CLOSEST / this.fit);
  }

  /** Enlarges by a factor; the point (x, y) of the picture stays where it is. */
  zoomAt(factor, x, y) {
    const zoom = Math.min(this.most, Math.max(1, this.zoom * factor));
    const change = this.zoom / zoom;
    this.zoom = zoom;
    this.moveTo(x - (x - this.x) * change, y - (y - this.y) * change);
  }

  /** Puts the point (x, y) of the picture at the top left, as far as it reaches. */
  moveTo(x, y) {
    this.x = Math.max(0, Math.min(x, this.width * (1 - 1 / this.zoom)));
    this.y = Math.max(0, Math.min(y, this.height * (1 - 1 / this.zoom)));
  }

  /** Moves so far that the point (x, y) is shown. */
  include(x, y) {
    const [across, down] = [this.width / this.zoom, this.height / this.zoom];
    this.moveTo(
      Math.min(x, Math.max(this.x, x - across)),
      Math.min(y, Math.max(this.y, y - down)),
    );
  }
}
