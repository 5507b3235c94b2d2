// What was done to one picture, as a list of actions that undo and redo walk along.
//
// An action is one of
//   { kind: "picture", blob }                   the picture, or a result edited further
//   { kind: "stroke", erase, radius, points }   in pixels of the picture
//   { kind: "stamp", stamp }                    a whole hole, instead of the one before
//   { kind: "clear" }
//   { kind: "move", dx, dy }                    of the hole

export class History {
  /** @param {Blob} blob the picture */
  constructor(blob) {
    this.actions = [{ kind: "picture", blob }];
    this.undone = [];
  }

  push(action) {
    this.actions.push(action);
    this.undone = [];
  }

  /** Takes back the last action; returns it. */
  undo() {
    if (!this.canUndo) return undefined;
    this.undone.push(this.actions.pop());
    return this.undone.at(-1);
  }

  /** Does the action again that was taken back last; returns it. */
  redo() {
    if (!this.canRedo) return undefined;
    this.actions.push(this.undone.pop());
    return this.actions.at(-1);
  }

  get canUndo() {
    return this.actions.length > 1;
  }

  get canRedo() {
    return this.undone.length > 0;
  }

  /** The picture to paint on. */
  get blob() {
    return this.actions.findLast((action) => action.kind === "picture").blob;
  }

  /** The strokes and stamps that make the hole, in order, each with how far it moved. */
  get hole() {
    const parts = [];
    let [dx, dy] = [0, 0];
    for (const action of this.actions.toReversed()) {
      if (action.kind === "picture" || action.kind === "clear") break;
      if (action.kind === "move") [dx, dy] = [dx + action.dx, dy + action.dy];
      else parts.unshift({ ...action, dx, dy });
      if (action.kind === "stamp") break;
    }
    return parts;
  }
}
