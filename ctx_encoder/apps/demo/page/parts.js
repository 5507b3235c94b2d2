// Parts of the page that need nothing of its state: messages, buttons, files to save.

const LONG = 2000; // ms after which the progress is shown

const $ = (id) => document.getElementById(id);
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
const duration = (ms) => (ms < 995 ? `${Math.round(ms)} ms` : seconds(ms));

/** Shows a message, or none; `how` is "bad" or "at-work". */
export function say(text, how = "") {
  $("message").textContent = text;
  $("status").className = how;
  $("status").hidden = !text;
  $("dismiss").hidden = how === "at-work";
  $("progress").hidden = true;
}

/** Shows the progress of a request, as api/progress describes it, after `passed` ms. */
export function showProgress(prefix, { state, before, done }, passed) {
  const long = passed > LONG && Boolean(done);
  const share = long ? `, ${Math.round(100 * done)} %` : "";
  const others = `${before} other picture${before > 1 ? "s" : ""}`;
  const waits = state === "waiting" && before;
  const what = waits ? `Waiting for ${others}` : "Filling";
  say(`${prefix}${what} … ${seconds(passed)}${share}`, "at-work");
  $("progress").hidden = !long;
  $("progress").value = done ?? 0;
}

/** Does something; shows what goes wrong. */
export async function attempt(about, action) {
  try {
    await action();
  } catch (error) {
    say(about ? `${about}: ${error.message}` : error.message, "bad");
  }
}

/** Returns durations: "312 ms in total, 48 ms to fill". */
export function inWords({ total, wait, complete }) {
  const waited = wait > 500 ? `, ${duration(wait)} waiting` : "";
  return `${duration(total)} in total${waited}, ${duration(complete)} to fill`;
}

/** Saves a file where the browser saves downloads. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export function button(text, listener) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", () => attempt("", listener));
  return made;
}
