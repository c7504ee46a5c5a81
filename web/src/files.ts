// Files of a model or a catalogue: fetched with progress, kept in the browser's cache, checked against the manifest.

import { LeanmatchError } from "./errors.js";
import { sha256 } from "./sha256.js";

/** A file as a manifest names it. */
export interface FileEntry { file: string; bytes: number; sha256: string }

/** Bytes that have come, of those that are expected. */
export type Progress = (loaded: number, total: number) => void;

const CACHE = "leanmatch";
const STALL_MS = 30_000;
const DAMAGED = "load the page again; if that does not help, the site has to be exported or copied again";

export class Folder {
  constructor(readonly url: URL, private readonly signal?: AbortSignal) {}

  static of(url: string, signal?: AbortSignal): Folder {
    return new Folder(new URL(url.endsWith("/") ? url : `${url}/`), signal);
  }

  /** A manifest of the given format, in a version up to `version`. */
  async manifest<T extends object>(file: string, format: string, version: number): Promise<T> {
    const text = await this.get(file, "no-cache", (response) => response.text());
    let manifest: { format?: unknown; format_version?: unknown } | null;
    try {
      manifest = JSON.parse(text);
    } catch {
      throw new LeanmatchError(`${this.url.href}${file} is damaged or no file of leanmatch`, DAMAGED);
    }
    if (manifest?.format !== format) throw new LeanmatchError(`${this.url.href}${file} is not of the format ${format}`, "name the folder of an export");
    const found = manifest.format_version;
    if (typeof found !== "number" || found > version) {
      throw new LeanmatchError(`${this.url.href}${file} has the format version ${found}, and this script reads ${version}`, "take the scripts from the same export");
    }
    return manifest as T;
  }

  async json<T>(entry: FileEntry, progress?: Progress): Promise<T> {
    const bytes = await this.bytes(entry, progress);
    try {
      return JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw new LeanmatchError(`${entry.file} is no JSON`, DAMAGED);
    } finally {
      drop(bytes);
    }
  }

  /** A file's bytes; from the browser's cache where they are there. */
  async bytes(entry: FileEntry, progress: Progress = () => undefined): Promise<Uint8Array<ArrayBuffer>> {
    if (typeof entry?.file !== "string" || !Number.isSafeInteger(entry.bytes) || entry.bytes < 0 || !/^[0-9a-f]{64}$/.test(entry.sha256)) {
      throw new LeanmatchError(`a manifest in ${this.url.href} is damaged`, DAMAGED);
    }
    const name = `${entry.file}?sha256=${entry.sha256.slice(0, 16)}`;
    const cache = await openCache();
    const key = new URL(name, this.url).href;
    const kept = await cache?.match(key).catch(() => undefined);
    if (kept) {
      const bytes = await received(kept, entry.bytes, progress);
      if (bytes.length === entry.bytes) return bytes;
    }
    const fetched = (cache: RequestCache) =>
      this.get(name, cache, (response, alive) => received(response, entry.bytes, (loaded, total) => { alive(); progress(loaded, total); }));
    let bytes = await fetched("default");
    if (!(await fits(bytes, entry))) bytes = await fetched("reload"); // an old copy on the way
    if (!(await fits(bytes, entry))) throw new LeanmatchError(`${entry.file} is damaged, or newer than its manifest`, DAMAGED);
    await cache?.put(key, new Response(bytes, { headers: { "content-length": String(bytes.length) } })).catch(() => undefined);
    return bytes;
  }

  /** What `use` makes of a file that no manifest names. */
  file<T>(name: string, use: (response: Response) => Promise<T>): Promise<T> {
    return this.get(name, "no-cache", use);
  }

  /** What `use` makes of a host's answer; it calls `alive` whenever bytes have come. */
  private async get<T>(name: string, cache: RequestCache, use: (response: Response, alive: () => void) => Promise<T>): Promise<T> {
    const url = new URL(name, this.url);
    if (url.protocol === "file:") return use(new Response(await this.read(url)), () => undefined);
    const stall = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stall.abort(new LeanmatchError(`${url.href} stopped coming for ${STALL_MS / 1000} seconds`, "look at the connection and try again")), STALL_MS);
    };
    const stop = () => stall.abort();
    this.signal?.addEventListener("abort", stop);
    try {
      this.signal?.throwIfAborted();
      alive();
      const response = await fetch(url, { cache, signal: stall.signal });
      if (!response.ok) {
        const missing = response.status === 404;
        throw new LeanmatchError(`${url.href} ${missing ? "is missing" : `was answered with ${response.status}`}`, missing ? "copy the whole export, or correct the address" : "try again");
      }
      return await use(response, alive);
    } catch (error) {
      if (this.signal?.aborted) throw new DOMException("loading was stopped", "AbortError");
      if (stall.signal.aborted) throw stall.signal.reason;
      if (error instanceof LeanmatchError || error instanceof RangeError) throw error;
      throw new LeanmatchError(`${url.href} cannot be reached`, "look at the connection and try again");
    } finally {
      clearTimeout(timer);
      this.signal?.removeEventListener("abort", stop);
    }
  }

  private async read(url: URL): Promise<Uint8Array<ArrayBuffer>> {
    const { readFile } = await import("node:fs/promises");
    const { fileURLToPath } = await import("node:url");
    url.search = "";
    try {
      return new Uint8Array(await readFile(fileURLToPath(url), { signal: this.signal }));
    } catch (error) {
      if (this.signal?.aborted) throw new DOMException("loading was stopped", "AbortError");
      throw new LeanmatchError(`${url.href} cannot be read (${(error as Error).message})`, "name the folder of an export");
    }
  }
}

/**
 * Gives the memory of a file's bytes back at once: collecting garbage may take the engine minutes. It goes with a message to a
 * port that is closed; `transfer` does not free memory that a browser's own functions have seen.
 */
export function drop(bytes: Uint8Array<ArrayBuffer>): void {
  const { port1, port2 } = new MessageChannel();
  port2.close();
  port1.postMessage(null, [bytes.buffer]);
  port1.close();
}

async function fits(bytes: Uint8Array<ArrayBuffer>, entry: FileEntry): Promise<boolean> {
  return bytes.length === entry.bytes && (await sha256(bytes)) === entry.sha256;
}

/** The body, into memory that is taken once; empty where it is longer than expected. */
async function received(response: Response, expected: number, progress: Progress): Promise<Uint8Array<ArrayBuffer>> {
  if (!response.body) return new Uint8Array(0);
  const { read, cancel } = readerOf(response.body as ReadableStream<Uint8Array<ArrayBuffer>>);
  let memory = new Uint8Array(expected + 1); // one more shows that a body is too long
  for (let at = 0; at <= expected; ) {
    const [filled, count] = await read(memory, at);
    memory = filled;
    if (count === 0) return memory.subarray(0, at);
    at += count;
    progress(Math.min(at, expected), expected);
  }
  await cancel();
  return new Uint8Array(0);
}

interface Reader {
  /** Reads what comes next to `memory` from `at` on; gives the memory, and how many bytes came: 0 at the end. */
  read(memory: Uint8Array<ArrayBuffer>, at: number): Promise<[Uint8Array<ArrayBuffer>, number]>;
  cancel(): Promise<void>;
}

function readerOf(body: ReadableStream<Uint8Array<ArrayBuffer>>): Reader {
  try {
    const reader = body.getReader({ mode: "byob" }); // straight to its place: pieces would stay until garbage is collected
    return {
      cancel: () => reader.cancel(),
      read: async (memory, at) => {
        const { value } = await reader.read(memory.subarray(at));
        if (!value) throw new TypeError("the body was cancelled");
        return [new Uint8Array(value.buffer), value.length];
      },
    };
  } catch { // an older browser
    const reader = body.getReader();
    return {
      cancel: () => reader.cancel(),
      read: async (memory, at) => {
        const { done, value } = await reader.read();
        if (done) return [memory, 0];
        const count = Math.min(value.length, memory.length - at);
        memory.set(value.subarray(0, count), at);
        return [memory, count];
      },
    };
  }
}

async function openCache(): Promise<Cache | null> {
  if (typeof caches === "undefined") return null; // Node, and pages that are not secure contexts
  try {
    return await caches.open(CACHE);
  } catch {
    return null; // storage is forbidden: files are fetched each time
  }
}

/** Are all these files kept in the browser? */
export async function allKept(folder: Folder, entries: readonly FileEntry[]): Promise<boolean> {
  const cache = await openCache();
  if (!cache) return false;
  const found = await Promise.all(entries.map(({ file, sha256 }) => cache.match(new URL(`${file}?sha256=${sha256.slice(0, 16)}`, folder.url).href)));
  return found.every(Boolean);
}

/** Drop what earlier exports left in the browser's cache for this folder. */
export async function forgetOthers(folder: Folder, entries: readonly FileEntry[]): Promise<void> {
  const cache = await openCache();
  if (!cache) return;
  const wanted = new Set(entries.map(({ file, sha256 }) => new URL(`${file}?sha256=${sha256.slice(0, 16)}`, folder.url).href));
  for (const { url } of await cache.keys()) {
    if (url.startsWith(folder.url.href) && !wanted.has(url)) await cache.delete(url);
  }
}
