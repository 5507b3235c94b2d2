// The keyboard: tools, brush, zoom, undo and redo anywhere; painting on the canvas.

const TYPED = "select, textarea, input:not([type=range], [type=file])";
const ARROWS = {
  arrowleft: [-1, 0],
  arrowright: [1, 0],
  arrowup: [0, -1],
  arrowdown: [0, 1],
};

/**
 * @param {import("./editor.js").Editor} editor
 * @param {Record<string, (event: KeyboardEvent) => void>} actions by name: undo, redo,
 *   brush, eraser, move, smaller, larger, in, out, all
 */
export function listen(editor, actions) {
  const plain = {
    b: actions.brush,
    e: actions.eraser,
    m: actions.move,
    "[": actions.smaller,
    "]": actions.larger,
    "+": actions.in,
    "=": actions.in,
    "-": actions.out,
    0: actions.all,
  };
  const withControl = { z: actions.undo, y: actions.redo };

  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase(); // Caps Lock writes capitals
    if (event.target.matches(TYPED) || !editor.picture) return;
    let action;
    if (event.ctrlKey || event.metaKey) {
      action = key === "z" && event.shiftKey ? actions.redo : withControl[key];
    } else if (!event.altKey) {
      action = plain[key] ?? onCanvas(key, event);
    }
    if (!action) return;
    event.preventDefault();
    action(event);
  });

  /** Returns what a key does on the canvas, or while the pointer is over it. */
  function onCanvas(key, event) {
    const focused = document.activeElement === editor.canvas;
    if (key === " " && (focused || editor.canvas.matches(":hover"))) return () => pan(true);
    if (!focused) return undefined;
    if (key === "enter" && !event.repeat) return () => editor.press();
    if (key === "escape" && editor.stroke) return () => editor.abandon();
    if (!(key in ARROWS)) return undefined;
    const step = event.shiftKey ? 1 / editor.view.scale : Math.max(1, editor.radius / 2);
    return () => editor.steer(...ARROWS[key].map((direction) => direction * step));
  }

  function pan(on) {
    editor.panning = on;
    editor.canvas.classList.toggle("panning", on);
  }

  document.addEventListener("keyup", ({ key }) => key === " " && pan(false));
  window.addEventListener("blur", () => pan(false));
  editor.canvas.addEventListener("focus", () => {
    if (editor.picture && editor.canvas.matches(":focus-visible")) {
      editor.showRing(editor.cursor);
    }
  });
  editor.canvas.addEventListener("blur", () => {
    if (editor.stroke) editor.endStroke();
    editor.ring.hidden = true;
  });
}
