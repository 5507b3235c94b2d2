// The completed picture, with a divider that shows the original to its left.

export class Comparison {
  /**
   * @param {HTMLElement} frame holds two images, of the original and on top the completed
   * @param {HTMLInputElement} slider from 0, all completed, to 100, all original
   */
  constructor(frame, slider) {
    [this.original, this.completed] = frame.querySelectorAll("img");
    Object.assign(this, { frame, slider });
    slider.addEventListener("input", () => this.divide());
    frame.addEventListener("pointerdown", (event) => {
      frame.setPointerCapture(event.pointerId);
      this.drag(event);
    });
    frame.addEventListener("pointermove", (event) => event.buttons && this.drag(event));
  }

  /** Shows two pictures, or none where there is no result. */
  show(original, completed) {
    for (const [image, blob] of [[this.original, original], [this.completed, completed]]) {
      if (image.src) URL.revokeObjectURL(image.src);
      if (completed) image.src = URL.createObjectURL(blob);
      else image.removeAttribute("src");
    }
    this.frame.hidden = !completed;
    this.slider.value = 0;
    this.divide();
  }

  /** Follows the editor's view; `size` is that of its canvas on the screen. */
  follow({ x, y, width, height, zoom }, size) {
    [this.frame.style.width, this.frame.style.height] = [size.width, size.height];
    const moved = `${(-100 * x) / width}%, ${(-100 * y) / height}%`;
    for (const image of [this.original, this.completed]) {
      image.style.transform = `scale(${zoom}) translate(${moved})`;
    }
  }

  drag({ clientX }) {
    const { left, width } = this.frame.getBoundingClientRect();
    this.slider.value = (100 * (clientX - left)) / width;
    this.divide();
  }

  divide() {
    const share = Number(this.slider.value);
    this.frame.style.setProperty("--divide", `${share}%`);
    this.frame.classList.toggle("divided", share > 0 && share < 100);
  }
}
