// Requests to the server, and its answers in words.

const POLL = 500; // ms between two questions for the progress

/** Asks for a path; throws an Error with one line for the user. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!answer.ok) throw new Error(await problem(answer));
  return answer;
}

async function problem(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

/**
 * Sends a form to api/inpaint.
 * @param {AbortSignal} signal ends the work on the server, too
 * @param {(progress: object) => void} report gets the answers of api/progress
 * @returns {Promise<{ blob: Blob, timing: object }>} durations are in ms
 */
export async function inpaint(form, signal, report) {
  // crypto.randomUUID needs https on other devices.
  const job = [...crypto.getRandomValues(new Uint8Array(16))].join("-");
  const began = performance.now();
  const clock = setInterval(async () => {
    const progress = await fetch(`api/progress/${job}`, { signal }).catch(() => undefined);
    if (progress?.ok && !signal.aborted) report(await progress.json());
  }, POLL);
  try {
    const answer = await ask(`api/inpaint?job=${job}`, { method: "POST", body: form, signal });
    const blob = await answer.blob();
    const header = answer.headers.get("Server-Timing") ?? "";
    const parts = [...header.matchAll(/(\w+);dur=([\d.]+)/g)];
    const timing = Object.fromEntries(parts.map(([, part, ms]) => [part, +ms]));
    return { blob, timing: { ...timing, total: performance.now() - began } };
  } finally {
    clearInterval(clock);
  }
}
