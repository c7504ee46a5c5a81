// A model: its tokenizer, and the native runtime that turns ids into vectors.

import { LeanmatchError } from "./errors.js";
import { drop, Folder, forgetOthers, type Progress } from "./files.js";
import { FORMAT_VERSION, NativeModel, type Runtime } from "./runtime.js";
import { type Reading, TextTokenizer } from "./tokenizer.js";

/** What is read here of a model's `model.json`; the runtime reads the rest. */
export interface ModelManifest {
  name: string;
  dimension: number;
  max_tokens: number | null;
  add_special_tokens: boolean;
  truncation_side?: "left" | "right";
  /** What goes before texts, by name; `query` and `document` are always among them. */
  prompts: Record<string, string>;
  default_prompt: string | null;
  files: Record<string, { bytes: number; sha256: string }>;
}

/** What goes before a text and how many of the vector's leading numbers are kept; a catalogue may differ from its model. */
export interface Way { prompt: string; dimension: number }

const AT_ONCE = 16;

export class LoadedModel {
  private constructor(
    readonly manifest: ModelManifest,
    /** SHA-256 of its weights: a catalogue names it. */
    readonly weights: string,
    readonly tokenizer: TextTokenizer,
    private readonly native: NativeModel,
  ) {}

  static async load(url: string, runtime: () => Promise<Runtime>, progress?: Progress, signal?: AbortSignal): Promise<LoadedModel> {
    const folder = Folder.of(url, signal);
    const manifest = await folder.manifest<ModelManifest>("model.json", "leanmatch-web-model", FORMAT_VERSION);
    const { files, prompts } = manifest;
    if (typeof prompts?.query !== "string" || typeof prompts.document !== "string") {
      throw new LeanmatchError(`${url} holds a damaged model.json`, "export the model again");
    }
    const [weights, tokenizer] = ["model.bin", "tokenizer.json"].map((file) => ({ file, ...files?.[file] }));
    const loaded = [0, 0];
    const total = weights.bytes + tokenizer.bytes;
    const of = (which: number) => (bytes: number) => {
      loaded[which] = bytes;
      progress?.(loaded[0] + loaded[1], total);
    };
    const [compiled, bytes, file] = await Promise.all([runtime(), folder.bytes(weights, of(0)), folder.json<object>(tokenizer, of(1))]);
    forgetOthers(folder, [weights, tokenizer]).catch(() => undefined); // what an earlier export left
    const native = NativeModel.create(compiled, manifest, bytes);
    drop(bytes);
    const reading: Reading = {
      maxTokens: native.maxTokens, addSpecial: manifest.add_special_tokens, side: manifest.truncation_side ?? "right",
    };
    return new LoadedModel(manifest, weights.sha256, new TextTokenizer(file, reading), native);
  }

  free(): void {
    this.native.free();
  }

  get dimension(): number {
    return this.native.dimension;
  }

  /** Of `query`, `document`, or texts of neither kind. */
  way(role: "query" | "document" | null): Way {
    const { prompts, default_prompt } = this.manifest;
    return { prompt: role ? prompts[role] : default_prompt === null ? "" : prompts[default_prompt], dimension: this.dimension };
  }

  /** Vectors of unit length one after another, `(texts, dimension)`. */
  encode(texts: readonly string[], way: Way): Promise<Float32Array> {
    for (const text of texts) if (typeof text !== "string") throw new LeanmatchError(`a text is ${typeof text}`, "give strings");
    return this.encodeIds(texts.map((text) => this.tokenizer.encode(way.prompt + text)), way.dimension);
  }

  /** As {@link encode}, for ids with the special tokens around them. Other work of the worker may come in between. */
  async encodeIds(rows: readonly (readonly number[])[], dimension: number): Promise<Float32Array> {
    const out = new Float32Array(rows.length * dimension);
    const order = rows.map((_, row) => row).sort((a, b) => rows[a].length - rows[b].length);
    for (let at = 0; at < order.length; at += AT_ONCE) {
      if (at) await pause();
      const some = order.slice(at, at + AT_ONCE);
      const offsets = Int32Array.from([0, ...some.map((row) => rows[row].length)]);
      for (let text = 1; text < offsets.length; text++) offsets[text] += offsets[text - 1];
      const vectors = this.native.encode(Int32Array.from(some.flatMap((row) => rows[row])), offsets);
      some.forEach((row, place) => out.set(unit(vectors.subarray(place * this.dimension, place * this.dimension + dimension)), row * dimension));
    }
    return out;
  }
}

/** A vector brought to unit length; one of zeros stays. */
function unit(vector: Float32Array): Float32Array {
  const square = vector.reduce((sum, value) => sum + value * value, 0);
  if (!Number.isFinite(square)) throw new LeanmatchError("the model gave NaN or infinity for a text", "export the model again");
  return square > 0 ? vector.map((value) => value / Math.sqrt(square)) : vector;
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}
