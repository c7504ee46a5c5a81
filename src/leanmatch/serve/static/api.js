// Talking to the server. Every failure becomes a Problem with a sentence that can be shown.

export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let key = sessionStorage.getItem("leanmatch-key") ?? "";

export function useKey(value) {
  key = value;
  sessionStorage.setItem("leanmatch-key", value);
}

async function ask(path, options = {}) {
  const headers = { ...(options.body ? { "content-type": "application/json" } : {}) };
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server cannot be reached.");
  }
  let document = null;
  try {
    document = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (!response.ok) {
    if (response.status === 429) throw new Problem("The server is busy. Try again in a moment.", 429);
    const said = document?.error?.message ?? document?.status ?? `The server answered ${response.status}.`;
    throw new Problem(said[0].toUpperCase() + said.slice(1), response.status);
  }
  if (document === null) throw new Problem("The server's answer cannot be read.");
  return document;
}

export const recommend = (body, signal) =>
  ask("/v1/recommend", { method: "POST", body: JSON.stringify(body), signal });
export const suggest = async (typed, signal) =>
  (await ask(`/v1/suggest?q=${encodeURIComponent(typed.slice(0, 200))}`, { signal })).suggestions;
export const catalogue = () => ask("/v1/catalogue");
export const status = () => ask("/v1/status");
