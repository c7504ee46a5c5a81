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
    const text = new TextDecoder().decode(await this.get(file, null, () => undefined, "no-cache"));
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

  /** A file that no manifest names. */
  file(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return this.get(name, null, () => undefined, "default");
  }

  async json<T>(entry: FileEntry, progress?: Progress): Promise<T> {
    const bytes = await this.bytes(entry, progress);
    try {
      return JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw new LeanmatchError(`${entry.file} is no JSON`, DAMAGED);
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
      const bytes = new Uint8Array(await kept.arrayBuffer());
      if (bytes.length === entry.bytes) {
        progress(entry.bytes, entry.bytes);
        return bytes;
      }
    }
    let bytes = await this.get(name, entry.bytes, progress, "default");
    if (!(await fits(bytes, entry))) bytes = await this.get(name, entry.bytes, progress, "reload"); // an old copy on the way
    if (!(await fits(bytes, entry))) throw new LeanmatchError(`${entry.file} is damaged, or newer than its manifest`, DAMAGED);
    await cache?.put(key, new Response(bytes, { headers: { "content-length": String(bytes.length) } })).catch(() => undefined);
    return bytes;
  }

  private async get(name: string, expected: number | null, progress: Progress, cache: RequestCache): Promise<Uint8Array<ArrayBuffer>> {
    const url = new URL(name, this.url);
    if (url.protocol === "file:") {
      const bytes = await this.read(url);
      progress(bytes.length, bytes.length);
      return bytes;
    }
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
      return await received(response, expected, (loaded, total) => { alive(); progress(loaded, total); });
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

async function fits(bytes: Uint8Array<ArrayBuffer>, entry: FileEntry): Promise<boolean> {
  return bytes.length === entry.bytes && (await sha256(bytes)) === entry.sha256;
}

/** The body, into memory that is taken once where its length is known. */
async function received(response: Response, expected: number | null, progress: Progress): Promise<Uint8Array<ArrayBuffer>> {
  if (expected === null || !response.body) return new Uint8Array(await response.arrayBuffer());
  const out = new Uint8Array(expected);
  let at = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return out.subarray(0, at);
    if (at + value.length > expected) {
      await reader.cancel();
      return new Uint8Array(0); // longer than it may be: the caller sees that it does not fit
    }
    out.set(value, at);
    at += value.length;
    progress(at, expected);
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
