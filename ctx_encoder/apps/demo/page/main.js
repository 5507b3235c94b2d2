// Controls of the page: picture, hole, request to the server, result.

import { Editor } from "./editor.js";

const MEANINGS = {
  strategy: {
    auto: "tiles for long, thin holes, crops for all others",
    whole: "the whole picture, scaled down, is the network's input",
    crops: "a square around each hole is the network's input",
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

let info; // answer to api/info
let source; // { blob, name } of the picture
let completed; // { blob, url } of the result
let running; // AbortController of the request
let seed = 0; // of the next ready-made hole

// The picture

async function open(blob, name) {
  running?.abort();
  try {
    if (blob.size > info.max_bytes) throw new Error(`the file is larger than ${megabytes()} MB.`);
    const picture = await decode(blob);
    const pixels = picture.width * picture.height;
    if (pixels > info.max_pixels) {
      picture.close();
      throw new Error(`${millions(pixels)} million pixels are too many for this server.`);
    }
    forget();
    source = { blob, name };
    $("size").textContent = `${picture.width} × ${picture.height}`;
    const ratio = picture.height / picture.width;
    const widest = $("frame").clientWidth;
    // Both frames have the picture's shape, plus two pixels of border.
    document.body.style.setProperty("--height", `${Math.round(widest * ratio) + 2}px`);
    editor.load(picture);
    say("Paint over the part to replace, then press “Fill the hole”.");
  } catch (error) {
    say(`${name}: ${error.message}`, "bad");
  }
}

async function decode(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    throw new Error("this browser cannot show it. Use a JPEG, PNG or WebP file.");
  }
}

async function openExample(name) {
  const answer = await ask(`api/examples/${name}`);
  if (answer) await open(await answer.blob(), name);
}

// The hole

async function readyMade(kind) {
  if (!source) return;
  const { width, height } = editor;
  const query = new URLSearchParams({ kind, width, height, seed: seed++ });
  const answer = await ask(`api/mask?${query}`);
  if (!answer) return;
  const mask = await createImageBitmap(await answer.blob());
  if (mask.width !== editor.width || mask.height !== editor.height) return; // replaced meanwhile
  const stamp = document.createElement("canvas");
  [stamp.width, stamp.height] = [width, height];
  const context = stamp.getContext("2d");
  context.drawImage(mask, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];
  context.putImageData(pixels, 0, 0);
  editor.replace(stamp);
}

// The result

async function start() {
  if (running) {
    running.abort();
    return;
  }
  const own = (running = new AbortController());
  update();
  const began = performance.now();
  const tick = () => say(`Filling … ${seconds(performance.now() - began)}`, "at-work");
  const clock = setInterval(tick, 100);
  tick();
  try {
    const body = new FormData();
    body.append("image", source.blob, source.name);
    body.append("mask", await editor.mask(), "mask.png");
    body.append("strategy", $("strategy").value);
    body.append("blend", $("blend").value);
    const answer = await fetch("api/inpaint", {
      method: "POST",
      body,
      signal: own.signal,
    });
    if (!answer.ok) throw new Error(await problem(answer));
    const blob = await answer.blob();
    forget();
    completed = { blob, url: URL.createObjectURL(blob) };
    $("completed").src = completed.url;
    $("completed").hidden = false;
    $("download").href = completed.url;
    $("download").download = `${source.name.replace(/\.[^.]*$/, "")}_completed.png`;
    $("time").textContent = timing(answer, performance.now() - began);
    say("");
    $("panel").scrollIntoView({ block: "nearest", behavior: "smooth" });
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else say(reason(error), "bad");
  } finally {
    clearInterval(clock);
    running = undefined;
    update();
  }
}

/** Returns durations: "312 ms in total, 48 ms to fill". */
function timing(answer, total) {
  const found = answer.headers.get("Server-Timing")?.matchAll(/(\w+);dur=([\d.]+)/g);
  const parts = Object.fromEntries([...(found ?? [])].map(([, what, ms]) => [what, ms]));
  const waited = parts.wait > 500 ? `, ${duration(parts.wait)} waiting` : "";
  return `${duration(total)} in total${waited}, ${duration(parts.complete)} to fill`;
}

function forget() {
  if (completed) URL.revokeObjectURL(completed.url);
  completed = undefined;
  $("completed").hidden = true;
  $("download").removeAttribute("href");
  $("time").textContent = "";
}

function compare(original) {
  if (!completed) return;
  if (original) source.url ??= URL.createObjectURL(source.blob);
  $("completed").src = original ? source.url : completed.url;
}

// Messages and errors

async function ask(path) {
  try {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(await problem(answer));
    return answer;
  } catch (error) {
    say(reason(error), "bad");
  }
}

async function problem(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

const reason = (error) =>
  error instanceof TypeError
    ? "The server does not answer. Is it still running?"
    : error.message;
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
const duration = (ms) => (ms < 995 ? `${Math.round(ms)} ms` : seconds(ms));
const megabytes = () => Math.round(info.max_bytes / 1e5) / 10;
const millions = (pixels) => (pixels / 1e6).toFixed(1);

function say(text, how = "") {
  $("status").textContent = text;
  $("status").className = how;
}

/** Enables the controls that can be used now. */
function update() {
  $("start").disabled = !running && !(source && editor.hasHole);
  $("start").textContent = running ? "Stop" : "Fill the hole";
  for (const id of ["undo", "clear"]) $(id).disabled = !editor.actions.length;
  for (const id of ["compare", "go-on"]) $(id).disabled = !completed;
  $("download").setAttribute("aria-disabled", !completed);
  for (const [id, on] of [["brush", !editor.erasing], ["eraser", editor.erasing]]) {
    $(id).setAttribute("aria-pressed", on);
  }
}

function explain() {
  $("meaning").textContent = ["strategy", "blend"]
    .map((id) => `${$(id).value}: ${MEANINGS[id][$(id).value] ?? ""}`)
    .join("\n");
}

// Events

const on = (id, name, listener) => $(id).addEventListener(name, listener);
on("file", "change", ({ target }) => {
  const [file] = target.files;
  if (file) open(file, file.name);
  target.value = ""; // so that the same file can be opened again
});
on("brush", "click", () => ((editor.erasing = false), update()));
on("eraser", "click", () => ((editor.erasing = true), update()));
on("radius", "input", ({ target }) => (editor.size = +target.value));
on("undo", "click", () => editor.undo());
on("clear", "click", () => editor.clear());
on("start", "click", start);
on("strategy", "change", explain);
on("blend", "change", explain);
on("go-on", "click", () => open(completed.blob, source.name));
for (const id of ["compare", "completed"]) {
  on(id, "pointerdown", (event) => {
    event.preventDefault();
    compare(true);
  });
  for (const name of ["pointerup", "pointerleave", "pointercancel"]) {
    on(id, name, () => compare(false));
  }
  on(id, "contextmenu", (event) => event.pointerType === "touch" && event.preventDefault());
}
on("compare", "keydown", ({ key }) => key === " " && compare(true));
on("compare", "keyup", ({ key }) => key === " " && compare(false));
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z") {
    event.preventDefault();
    editor.undo();
  }
});
document.addEventListener("paste", ({ clipboardData }) => {
  const [file] = clipboardData.files;
  if (file) open(file, file.name);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("frame").classList.toggle("over", name === "dragover");
    const [file] = name === "drop" ? event.dataTransfer.files : [];
    if (file) open(file, file.name);
  });
}

// The start

function choices(id, values) {
  $(id).append(...values.map((value) => new Option(value)));
}

function button(text, listener) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", listener);
  return made;
}

update();
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
for (const name of info.examples) {
  const made = button("", () => openExample(name));
  made.title = made.ariaLabel = `Example: ${name.replaceAll("_", " ")}`;
  const image = new Image();
  image.src = `api/examples/${name}?thumbnail=true`;
  image.alt = "";
  made.append(image);
  $("examples").append(made);
}
if (info.examples.length) await openExample(info.examples[1] ?? info.examples[0]);
else say("Open a picture to begin.");
