/**
 * Text matching in a web page, or in Node, without a server.
 *
 *     const model = await load("model/");
 *     const catalogue = await openCatalogue("catalogue/");
 *     const found = await model.search(catalogue, "usb c dock", { k: 10, filter: "price < 50" });
 *
 * In a page a Web Worker, a thread of its own, does all work. Folders are those that
 * `leanmatch export CATALOGUE --to web` writes.
 */

import type { ColumnInfo } from "./catalogue.js";
import type { Engine, Result } from "./engine.js";
import { LeanmatchError, type PlainError, plain, revived } from "./errors.js";
import type { Explanation, Word } from "./explain.js";

export type { ColumnInfo, Explanation, Result, Word };
export { LeanmatchError };

export interface LoadOptions {
  /** Called with bytes that have come and bytes that are expected. */
  progress?: (loaded: number, total: number) => void;
  /** Stops it; the promise is rejected with an `AbortError`. */
  signal?: AbortSignal;
}

export interface SearchOptions {
  /** How many items; 10 where left out. */
  k?: number;
  /** Which items may be found: `'price < 50 and category = "Toys"'`, or its JSON form. */
  filter?: string | object | null;
  signal?: AbortSignal;
}

type Method = keyof Engine;
type Send = (method: Method, values: unknown[], options?: LoadOptions) => Promise<unknown>;

let sender: Send | null = null;

/** Ask the worker, which is started at the first call; in Node, the engine itself. */
async function ask<T>(method: Method, values: unknown[], options: LoadOptions = {}): Promise<T> {
  if (options.signal?.aborted) throw stopped();
  sender ??= typeof Worker === "function" && typeof document !== "undefined" ? throughWorker() : directly();
  return (await sender(method, values, options)) as T;
}

const stopped = () => new DOMException("the call was stopped", "AbortError");

function directly(): Send {
  let engine: Promise<Engine> | null = null;
  return async (method, values, { progress = () => undefined, signal = new AbortController().signal } = {}) => {
    const address = new URL("./worker.js", import.meta.url).href;
    engine ??= (import(address) as Promise<typeof import("./worker.js")>).then(({ Engine, wasm }) => new Engine(wasm));
    try {
      return await ((await engine)[method] as (...all: unknown[]) => unknown).call(await engine, { progress, signal }, ...values);
    } catch (error) {
      if (signal.aborted) throw stopped();
      throw error instanceof LeanmatchError ? error : revived(plain(error));
    }
  };
}

interface Pending { resolve(value: unknown): void; reject(error: Error): void; progress?: LoadOptions["progress"] }

interface Answer { call: number; loaded?: number; total?: number; result?: unknown; error?: PlainError }

function throughWorker(): Send {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  const pending = new Map<number, Pending>();
  let calls = 0;
  worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
    const waiting = pending.get(data.call);
    if (!waiting) return;
    if (data.total !== undefined) return waiting.progress?.(data.loaded as number, data.total);
    pending.delete(data.call);
    if (data.error) waiting.reject(revived(data.error));
    else waiting.resolve(data.result);
  });
  const fail = (event: Event) => {
    event.preventDefault();
    const why = (event as ErrorEvent).message;
    const error = new LeanmatchError(
      `the worker's script did not start or ended${why ? ` (${why})` : ""}`,
      "serve worker.js and both .wasm files beside leanmatch.js, from the page's own site, and load the page again",
    );
    sender = null; // the next call starts another worker
    worker.terminate();
    for (const { reject } of pending.values()) reject(error);
    pending.clear();
  };
  worker.addEventListener("error", fail);
  worker.addEventListener("messageerror", fail);
  return (method, values, { progress, signal } = {}) =>
    new Promise((resolve, reject) => {
      const call = ++calls;
      pending.set(call, { resolve, reject, progress });
      signal?.addEventListener("abort", () => {
        if (!pending.delete(call)) return;
        worker.postMessage({ call });
        reject(stopped());
      }, { once: true });
      worker.postMessage({ call, method, values });
    });
}

/** A folder's address: relative to the page, or in Node to the working directory. */
async function address(folder: string | URL): Promise<string> {
  if (folder instanceof URL) return folder.href;
  if (typeof document !== "undefined") return new URL(folder, document.baseURI).href;
  if (/^[a-z][a-z0-9+.-]+:/i.test(folder)) return folder;
  const { pathToFileURL } = await import("node:url");
  return pathToFileURL(folder).href;
}

/** A model that was loaded; see {@link load}. */
export class Model {
  /** @internal */
  constructor(
    private readonly number: number,
    readonly name: string,
    /** Length of its vectors. */
    readonly dimension: number,
    /** What goes before texts: `prompts.query`, `prompts.document`. */
    readonly prompts: Readonly<Record<string, string>>,
  ) {}

  /** A vector of unit length for each text, with the model's default prompt. */
  encode(texts: readonly string[]): Promise<Float32Array[]> {
    return this.vectors(texts, null);
  }

  /** A vector of unit length for each query. */
  encodeQuery(texts: readonly string[]): Promise<Float32Array[]> {
    return this.vectors(texts, "query");
  }

  /** A vector of unit length for each document. */
  encodeDocument(texts: readonly string[]): Promise<Float32Array[]> {
    return this.vectors(texts, "document");
  }

  private async vectors(texts: readonly string[], role: "query" | "document" | null): Promise<Float32Array[]> {
    if (typeof texts === "string") throw new LeanmatchError("texts is one string", "give an array of texts");
    const all = await ask<Float32Array>("encode", [this.number, [...texts], role]);
    return texts.map((_, at) => all.subarray(at * this.dimension, (at + 1) * this.dimension));
  }

  /** The ids that the model reads of each text, special tokens included; with the default prompt. */
  tokenize(texts: readonly string[]): Promise<number[][]> {
    return ask("tokenize", [this.number, [...texts], null]);
  }

  /** The best items for a text, best first; none for a blank text. Answers come in the order of the calls. */
  search(catalogue: Catalogue, text: string, { k = 10, filter = null, signal }: SearchOptions = {}): Promise<Result[]> {
    return ask("search", [this.number, catalogue.number, text, k, filter], { signal });
  }

  /** The words of a text and of an item that carried their match: by how much the score falls without each. */
  explain(catalogue: Catalogue, text: string, id: string, { signal }: { signal?: AbortSignal } = {}): Promise<Explanation> {
    return ask("explain", [this.number, catalogue.number, text, id], { signal });
  }

  /** Give its memory back. */
  close(): Promise<void> {
    return ask("close", [this.number]);
  }
}

/** A catalogue that was opened; see {@link openCatalogue}. */
export class Catalogue {
  /** @internal */
  constructor(
    /** @internal */
    readonly number: number,
    /** How many items it has. */
    readonly items: number,
    readonly dimension: number,
    /** Bytes of all its files. */
    readonly bytes: number,
    /** Name of the model that made its vectors. */
    readonly model: string,
    /** Its metadata columns, with what filter fields need. */
    readonly columns: readonly ColumnInfo[],
    /** Queries to begin with. */
    readonly samples: readonly string[],
  ) {}

  /** Load the vectors now; else the first search does. */
  load(options: LoadOptions = {}): Promise<void> {
    return ask("loadVectors", [this.number], options);
  }

  /** Fetch all its files into the browser's cache, so that it works without a network. Gives whether they are kept. */
  keep(options: LoadOptions = {}): Promise<boolean> {
    return ask("keep", [this.number], options);
  }

  /** Give its memory back. */
  close(): Promise<void> {
    return ask("close", [this.number]);
  }
}

/**
 * Load a model from a folder with `model.json`. Files are checked by SHA-256 and kept in the browser's cache.
 *
 * Rejected with a {@link LeanmatchError} where a file is missing, damaged or of a newer version, and where the browser
 * lacks WebAssembly SIMD or memory.
 */
export async function load(folder: string | URL, options: LoadOptions = {}): Promise<Model> {
  interface Loaded { number: number; name: string; dimension: number; prompts: Record<string, string> }
  const { number, name, dimension, prompts } = await ask<Loaded>("load", [await address(folder)], options);
  return new Model(number, name, dimension, prompts);
}

/** Open a catalogue from a folder with `catalogue.json`; rejected as {@link load}. */
export async function openCatalogue(folder: string | URL, { signal }: { signal?: AbortSignal } = {}): Promise<Catalogue> {
  interface Opened { number: number; items: number; bytes: number; dimension: number; model: string; columns: ColumnInfo[]; samples: string[] }
  const { number, items, bytes, dimension, model, columns, samples } = await ask<Opened>("openCatalogue", [await address(folder)], { signal });
  return new Catalogue(number, items, dimension, bytes, model, columns, samples);
}
