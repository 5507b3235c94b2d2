// Controls of the page: pictures, hole, request to the server, result.

import { Comparison } from "./compare.js";
import { Editor } from "./editor.js";
import { covers, fromMask, toMask } from "./hole.js";
import { listen } from "./keys.js";
import { attempt, button, inWords, save, say, showProgress } from "./parts.js";
import { Picture, Pictures, decode, thumbnail } from "./pictures.js";
import { ask, inpaint } from "./server.js";

const MEANINGS = {
  strategy: {
    auto: "tiles for long, thin holes, texture for other large ones, else crops",
    whole: "the whole picture, scaled down, is the network's input",
    crops: "a square around each hole is the network's input",
    texture: "like crops, with detail from other parts of the picture",
    tiles: "a large hole is filled piece by piece at full resolution",
  },
  blend: {
    none: "the network's output is pasted unchanged",
    feather: "the border of the hole fades into the picture",
    poisson: "colours are shifted to match the surroundings",
  },
};

const $ = (id) => document.getElementById(id);
const editor = new Editor($("canvas"), $("ring"), update);
const comparison = new Comparison($("pair"), $("divider"));
const pictures = new Pictures();

let info; // answer to api/info
let running; // { controller, picture } of the request
let seed = 0; // of the next ready-made hole

// Pictures

/** Opens files; the first usable one is shown. */
async function open(files) {
  let first;
  for (const file of files) {
    await attempt(file.name, async () => {
      if (file.size > info.max_bytes) {
        throw new Error(`the file is larger than ${info.max_bytes / 1e6} MB.`);
      }
      const picture = new Picture(file, file.name);
      const bitmap = await decode(file, info.max_pixels);
      picture.thumbnail = thumbnail(bitmap);
      picture.size = [bitmap.width, bitmap.height];
      bitmap.close();
      pictures.add(picture);
      first ??= picture;
    });
  }
  if (first) await show(first);
}

async function openExample({ name, strokes }) {
  const answer = await ask(`api/examples/${name}`);
  const picture = new Picture(await answer.blob(), name, true);
  const bitmap = await decode(picture.history.blob, info.max_pixels);
  const { height } = bitmap;
  const scaled = (point) => point.map((share) => share * height);
  for (const { radius, points } of strokes) {
    picture.history.push({
      kind: "stroke",
      erase: false,
      radius: radius * height,
      points: points.map(scaled),
    });
  }
  picture.thumbnail = thumbnail(bitmap);
  pictures.add(picture);
  await show(picture, bitmap);
}

/** Shows a picture, its hole and its result. */
async function show(picture, bitmap) {
  bitmap ??= await decode(picture.history.blob, info.max_pixels);
  pictures.current = picture;
  picture.size = [bitmap.width, bitmap.height];
  $("size").textContent = picture.size.join(" × ");
  const ratio = bitmap.height / bitmap.width;
  // Both frames have the picture's shape, plus two pixels of border.
  const height = Math.round($("frame").clientWidth * ratio) + 2;
  document.body.style.setProperty("--height", `${height}px`);
  editor.load(bitmap, picture.history);
  showResult();
}

async function close() {
  if (running?.picture === pictures.current) running.controller.abort();
  await show(pictures.close());
}

// The hole

async function readyMade(kind) {
  const { picture, width, height } = editor;
  const query = new URLSearchParams({ kind, width, height, seed: seed++ });
  const answer = await ask(`api/mask?${query}`);
  const mask = await createImageBitmap(await answer.blob());
  if (editor.picture !== picture) return; // replaced meanwhile
  editor.do({ kind: "stamp", stamp: fromMask(mask, width, height) });
}

async function openMask(file) {
  const mask = await decode(file, info.max_pixels);
  const { width, height } = editor;
  if (mask.width !== width || mask.height !== height) {
    throw new Error(
      `it has ${mask.width} × ${mask.height} pixels, the picture ${width} × ${height}.`,
    );
  }
  editor.do({ kind: "stamp", stamp: fromMask(mask, width, height) });
  say(editor.holed ? "" : "The mask has no hole: bright or painted is the hole.", "bad");
}

async function saveMask() {
  const { current } = pictures;
  save(await toMask(current.history.hole, ...current.size), `${current.fileName}_mask.png`);
}

/** Takes a step back or again, which may lead to another picture. */
async function step(which) {
  if (editor.stroke) return;
  if (pictures.current.follow(which)) await show(pictures.current);
  else editor.do();
}

// The result

const holed = ({ history, size }) => covers(history.hole, ...size);

async function start() {
  if (running) running.controller.abort();
  else await fill([pictures.current]);
}

/** Fills the holes of pictures, one after the other. */
async function fill(chosen) {
  const controller = new AbortController();
  for (const [number, picture] of chosen.entries()) {
    if (controller.signal.aborted || !pictures.all.includes(picture)) continue;
    running = { controller, picture };
    const prefix = chosen.length > 1 ? `${number + 1} of ${chosen.length}: ` : "";
    await fillOne(picture, controller.signal, prefix);
    running = undefined;
    update();
  }
}

async function fillOne(picture, signal, prefix) {
  const began = performance.now();
  let progress = {};
  const tick = () => showProgress(prefix, progress, performance.now() - began);
  const clock = setInterval(tick, 100);
  tick();
  update();
  try {
    const { history } = picture;
    const original = history.blob;
    const body = new FormData();
    body.append("image", original, picture.name);
    body.append("mask", await toMask(history.hole, ...picture.size), "mask.png");
    body.append("strategy", $("strategy").value);
    body.append("blend", $("blend").value);
    const answer = await inpaint(body, signal, (found) => (progress = found));
    if (history.blob === original) picture.result = { original, ...answer };
    drawQueue();
    say("");
    if (picture === pictures.current) {
      showResult();
      $("panel").scrollIntoView({ block: "nearest", behavior: "smooth" });
    }
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else say(error.message, "bad");
  } finally {
    clearInterval(clock);
  }
}

function showResult() {
  const { result, fileName } = pictures.current;
  comparison.show(result?.original, result?.blob);
  $("empty").hidden = Boolean(result);
  $("time").textContent = result ? inWords(result.timing) : "";
  if (result) $("download").href = comparison.completed.src;
  else $("download").removeAttribute("href");
  $("download").download = `${fileName}_completed.png`;
  drawQueue();
  update();
}

async function copy() {
  const png = new ClipboardItem({ "image/png": pictures.current.result.blob });
  await navigator.clipboard.write([png]);
  say("The completed picture is in the clipboard.");
}

async function saveAll() {
  for (const { result, fileName } of pictures.all) {
    if (result) save(result.blob, `${fileName}_completed.png`);
  }
}

/** Enables the controls that can be used now, and shows the view. */
function update() {
  const { current, all } = pictures;
  const { history } = editor;
  $("start").disabled = !running && !editor.holed;
  $("start").textContent = running ? "Stop" : "Fill the hole";
  $("undo").disabled = !history?.canUndo;
  $("redo").disabled = !history?.canRedo;
  $("clear").disabled = $("save-mask").disabled = !editor.holed;
  const result = current?.result;
  for (const id of ["go-on", "copy", "divider"]) $(id).disabled = !result;
  $("download").setAttribute("aria-disabled", !result);
  for (const id of ["brush", "eraser", "move"]) {
    $(id).setAttribute("aria-pressed", editor.tool === id);
  }
  $("canvas").dataset.tool = editor.tool;
  $("zoom").textContent = `${Math.round(100 * editor.view.zoom)} %`;
  comparison.follow(editor.view, $("canvas").style);
  $("fill-all").disabled = Boolean(running);
  $("download-all").disabled = !all.some((picture) => picture.result);
}

function drawQueue() {
  $("queue").hidden = pictures.all.length < 2;
  pictures.draw($("pictures"), (picture) => attempt(picture.name, () => show(picture)));
}

function explain() {
  $("meaning").textContent = ["strategy", "blend"]
    .map((id) => `${$(id).value}: ${MEANINGS[id][$(id).value] ?? ""}`)
    .join("\n");
}

// Events

const on = (id, name, listener) =>
  $(id).addEventListener(name, (event) => attempt("", () => listener(event)));

function choose(tool) {
  editor.tool = tool;
  update();
}

function resize(change) {
  $("radius").valueAsNumber += change;
  editor.size = $("radius").valueAsNumber;
  if (!editor.ring.hidden) editor.showRing(editor.cursor);
}

const actions = {
  undo: () => attempt("", () => step("undo")),
  redo: () => attempt("", () => step("redo")),
  brush: () => choose("brush"),
  eraser: () => choose("eraser"),
  move: () => choose("move"),
  smaller: () => resize(-0.05),
  larger: () => resize(0.05),
  in: () => editor.zoom(1.5),
  out: () => editor.zoom(1 / 1.5),
  all: () => editor.zoom(0),
};
for (const id of ["undo", "redo", "brush", "eraser", "move", "in", "out"]) {
  on(id, "click", actions[id]);
}
on("zoom", "click", actions.all);
on("file", "change", async ({ target }) => {
  const files = [...target.files];
  target.value = ""; // so that the same file can be opened again
  await open(files);
});
on("mask", "change", async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) await attempt(file.name, () => openMask(file));
});
on("radius", "input", ({ target }) => (editor.size = target.valueAsNumber));
on("clear", "click", () => editor.clear());
on("save-mask", "click", saveMask);
on("start", "click", start);
on("fill-all", "click", () => fill(pictures.all.filter(holed)));
on("download-all", "click", saveAll);
on("close", "click", close);
on("strategy", "change", explain);
on("blend", "change", explain);
on("copy", "click", copy);
on("dismiss", "click", () => say(""));
on("go-on", "click", async () => {
  pictures.current.goOn();
  await show(pictures.current);
});
listen(editor, actions);
document.addEventListener("paste", ({ clipboardData }) => open([...clipboardData.files]));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("frame").classList.toggle("over", name === "dragover");
    if (name === "drop") open([...event.dataTransfer.files]);
  });
}

// The start

function choices(id, values) {
  $(id).append(...values.map((value) => new Option(value)));
}

async function begin() {
  info = await (await ask("api/info")).json();
  $("name").textContent = info.name;
  $("side").textContent = `${info.image_size} × ${info.image_size}`;
  choices("strategy", info.strategies);
  choices("blend", info.blends);
  $("blend").value = "poisson"; // the server's default
  explain();
  for (const kind of info.holes) {
    const text = kind[0].toUpperCase() + kind.slice(1);
    $("holes").append(button(text, () => readyMade(kind)));
  }
  for (const example of info.examples) {
    const made = button("", () => openExample(example));
    made.title = made.ariaLabel = `Example: ${example.title}`;
    const image = new Image();
    image.src = `api/examples/${example.name}?small=true`;
    image.alt = "";
    made.append(image);
    $("examples").append(made);
  }
  // Other devices need https for it.
  $("copy").hidden = !(navigator.clipboard?.write && globalThis.ClipboardItem);
  await openExample(info.examples[0]);
}

update();
await attempt("", begin);
