// The WebAssembly runtime: a model's files to vectors, and rows of 8-bit codes to the best of them for a query. It mirrors
// csrc/wasm; the files are those of src/leanmatch/runtime/web.

import { LeanmatchError, outOfMemory } from "./errors";

const FORMAT = "leanmatch-web-model";
/** The newest version of `model.json` that this runtime reads; version 2 has odd codes. */
export const FORMAT_VERSION = 2;
const DAMAGED = "export the model again and upload every file of the folder";

/** The compiled module; each model and each scanner is an instance of it with memory of its own. */
export interface Runtime {
  readonly module: WebAssembly.Module;
}

/** A model's `model.json`. */
export interface ModelPlan {
  format: string;
  format_version: number;
  name: string;
  dimension: number;
  truncate_dim: number | null;
  max_tokens: number | null;
  vocabulary: number;
  add_special_tokens: boolean;
  prompts: Record<string, string>;
  default_prompt: string | null;
  files: Record<string, { bytes: number; sha256: string }>;
  plan: Record<string, unknown>;
  tensors: Record<string, TensorEntry>;
}

interface TensorEntry {
  dtype: "float32" | "float16" | "int8" | "packed";
  shape: number[];
  offset: number;
  bits?: number;
  signed?: boolean;
  /** Whether each number h stands for 2 h + 1. */
  odd?: boolean;
}

/** A module of one instruction: an engine without 128-bit SIMD refuses it. */
const SIMD_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

/** The same with i16x8.relaxed_q15mulr_s, of the relaxed SIMD instructions. */
const RELAXED_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 0, 253, 15, 65, 0, 253, 15, 253, 145, 2, 11,
]);

/** The build of the runtime that this engine runs best. Both give the same vectors, bit for bit. */
export function runtimeFile(): string {
  const relaxed = typeof WebAssembly !== "undefined" && WebAssembly.validate(RELAXED_PROBE);
  return relaxed ? "leanmatch-relaxed.wasm" : "leanmatch.wasm";
}

/**
 * Compile `leanmatch.wasm` or `leanmatch-relaxed.wasm`: its bytes, or a host's answer, whose compiled code a browser keeps for the next visit.
 *
 * @throws LeanmatchError without WebAssembly or its SIMD, or for bytes that are another file.
 */
export async function compileRuntime(source: BufferSource | Response): Promise<Runtime> {
  if (typeof WebAssembly === "undefined")
    throw new LeanmatchError("this browser has no WebAssembly", "use a current version of Chrome, Firefox, Edge or Safari");
  if (!WebAssembly.validate(SIMD_PROBE))
    throw new LeanmatchError(
      "this browser or this computer's processor has no WebAssembly SIMD",
      "use a current version of Chrome, Firefox, Edge, or Safari 16.4",
    );
  let module: WebAssembly.Module;
  try {
    if (!(source instanceof Response)) module = await WebAssembly.compile(source);
    else if (source.headers.get("content-type") === "application/wasm") module = await WebAssembly.compileStreaming(source);
    else module = await WebAssembly.compile(await source.arrayBuffer()); // browsers stream no other type
  } catch (error) {
    if (!(error instanceof WebAssembly.CompileError)) throw error;
    throw new LeanmatchError(`${runtimeFile()} is damaged: ${error.message}`, "upload the file again");
  }
  const names = new Set(WebAssembly.Module.exports(module).map(({ name }) => name));
  const missing = ["memory", "message", "allocate", "encode", "scan_top"].filter((name) => !names.has(name));
  if (missing.length > 0 || WebAssembly.Module.imports(module).length > 0)
    throw new LeanmatchError(`${runtimeFile()} is another program`, "upload the file that belongs to this page's scripts");
  return { module };
}

/** An instance with its memory: what is allocated, copied in and out, and why a call failed. */
class Instance {
  private readonly exports: Record<string, (...values: number[]) => number>;
  private readonly memory: WebAssembly.Memory;
  private state: "ready" | "failed" | "freed" = "ready";

  constructor(runtime: Runtime) {
    try {
      const { exports } = new WebAssembly.Instance(runtime.module);
      this.exports = exports as never;
      this.memory = exports.memory as WebAssembly.Memory;
    } catch (error) {
      if (error instanceof RangeError) throw outOfMemory();
      throw error;
    }
    this.call("_initialize");
  }

  /** Bytes of memory; it never shrinks. */
  get bytes(): number {
    return this.memory.buffer.byteLength;
  }

  call(name: string, ...values: number[]): number {
    if (this.state !== "ready")
      throw new LeanmatchError(this.state === "freed" ? "it was freed" : "an earlier call failed", "create it again");
    try {
      return this.exports[name](...values);
    } catch (error) {
      if (!(error instanceof WebAssembly.RuntimeError)) throw error;
      this.state = "failed"; // what the call had begun is not undone
      const message = this.text(this.exports.message()) || error.message;
      throw message === "there is not enough memory" ? outOfMemory() : new LeanmatchError(message);
    }
  }

  /** Copies an array in and gives its address; the caller releases it. */
  put(array: ArrayBufferView, spare = 0): number {
    const at = this.call("allocate", array.byteLength + spare) >>> 0;
    new Uint8Array(this.memory.buffer, at).set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    return at;
  }

  /** Replaces each signed 8-bit number h by the odd number 2 h + 1. */
  makeOdd(at: number, count: number): void {
    const codes = new Int8Array(this.memory.buffer, at >>> 0, count);
    for (let i = 0; i < count; i++) codes[i] = 2 * codes[i] + 1;
  }

  /**
   * Puts rows of `n` bytes in order: row `i` is the next one of part `widths[i]`.
   *
   * @returns whether every part has as many rows as the widths ask for.
   */
  mergeRows(widths: number, parts: number[], counts: number[], to: number, m: number, n: number): boolean {
    const bytes = new Uint8Array(this.memory.buffer), own = new Uint16Array(this.memory.buffer, widths >>> 0, m);
    const next = parts.map(() => 0);
    for (let row = 0; row < m; row++) {
      const part = own[row];
      if (!(next[part] < counts[part])) return false;
      const from = (parts[part] >>> 0) + next[part]++ * n;
      bytes.copyWithin((to >>> 0) + row * n, from, from + n);
    }
    return next.every((rows, part) => rows === counts[part]);
  }

  release(...addresses: number[]): void {
    for (const at of addresses) if (at !== 0) this.call("release", at);
  }

  floats(at: number, count: number): Float32Array {
    return new Float32Array(this.memory.buffer, at >>> 0, count).slice();
  }

  whole(at: number, count: number): Int32Array {
    return new Int32Array(this.memory.buffer, at >>> 0, count).slice();
  }

  free(): void {
    this.state = "freed";
    for (const name of ["exports", "memory"]) delete (this as Record<string, unknown>)[name];
  }

  private text(at: number): string {
    const bytes = new Uint8Array(this.memory.buffer, at >>> 0, 512);
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  }
}

/** Names of csrc/encoder/ops/ops.h and encoder.h, in their order. */
const ACTIVATIONS = ["none", "gelu", "relu", "gelu_tanh", "tanh", "silu", "sigmoid"];
const POOLING = ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"];
/** Places of layers and of norms in csrc/wasm/model.cpp. */
const LAYERS = { qkv: 0, up: 1, out: 2, down: 3, projection: 4 };
const NORMS = { attention: 0, feed_forward: 1, embedding: 2, final: 3 };
/** Bits that a row can have in a table whose rows differ in bits; a row's width is an index into these. */
const ROW_BITS = [2, 3, 4, 6];
const BYTES = { float32: 4, float16: 2, int8: 1, packed: 0 };

type Fields = Record<string, unknown>;

/** An array in the module's memory. */
interface Placed {
  at: number;
  shape: number[];
}

/** Puts a model together in an instance, from the plan and the bytes of `model.bin`. */
class Builder {
  private readonly module: Instance;
  private readonly tensors: Record<string, TensorEntry>;
  private readonly bytes: Uint8Array;
  private readonly taken: number[] = [];

  constructor(module: Instance, tensors: Record<string, TensorEntry>, bytes: Uint8Array) {
    this.module = module;
    this.tensors = tensors;
    this.bytes = bytes;
  }

  build(plan: Fields): void {
    const number = (name: string, missing = 0) => whole(plan, name, missing);
    this.module.call(
      "begin", number("width"), number("heads", 1), number("key_heads", 1), number("head_width"), number("inner"),
      real(plan, "scale", 1), choice(plan, "activation", ACTIVATIONS, "gelu"), Number(plan.gated ?? false),
      Number(plan.pre_norm ?? false), number("pad_id", -1),
    );
    this.module.call("words", this.table(section(plan, "words")));
    this.releaseAll();
    if (present(plan, "positions")) {
      const { at, shape } = this.floats(plan, "positions", 2);
      this.module.call("positions", at, shape[0], shape[1]);
    }
    if (present(plan, "token_type")) {
      const { at, shape } = this.floats(plan, "token_type", 1);
      this.module.call("token_type", at, shape[0]);
    }
    if (present(plan, "relative_bias")) {
      const { at, shape } = this.floats(plan, "relative_bias", 2);
      this.module.call("relative_bias", at, shape[0], shape[1]);
    }
    for (const name of list(plan, "rotary")) {
      const { at, shape } = this.floats({ rotary: name }, "rotary", 2);
      this.module.call("rotary", at, shape[0], shape[1]);
    }
    for (const place of ["embedding", "final"] as const) this.norm(NORMS[place], plan[`${place}_norm`]);
    if (present(plan, "projection")) this.place(LAYERS.projection, section(plan, "projection"));
    for (const block of list(plan, "blocks")) this.block(object(block, "a block"));
    for (const at of list(plan, "order")) this.module.call("order", whole({ at }, "at", 0));
    for (const kind of list(plan, "pooling")) this.module.call("pooling", choice({ kind }, "kind", POOLING));
    for (const head of list(plan, "post")) this.head(object(head, "a head"));
    this.releaseAll();
    this.module.call("finish");
  }

  private block(fields: Fields): void {
    this.module.call("start_block", whole(fields, "rotary", -1), whole(fields, "window", -1));
    for (const name of ["qkv", "up"] as const)
      for (const layer of list(fields, name)) this.place(LAYERS[name], object(layer, "a layer"));
    for (const name of ["out", "down"] as const) this.place(LAYERS[name], section(fields, name));
    for (const name of ["attention", "feed_forward"] as const) this.norm(NORMS[name], fields[`${name}_norm`]);
  }

  private head(fields: Fields): void {
    const kind = fields.kind;
    if (kind === "normalize") this.module.call("head_normalize");
    else if (kind === "dense") {
      const layer = section(fields, "layer");
      this.module.call("head_dense", this.linear(layer).number, choice(fields, "activation", ACTIVATIONS));
    } else if (kind === "layer_norm") {
      const { gamma, beta, width, eps } = this.normParts(section(fields, "norm"));
      this.module.call("head_norm", gamma, beta, width, eps);
    } else throw damaged(`a head of the kind ${JSON.stringify(kind)}`);
    this.releaseAll();
  }

  private norm(place: number, value: unknown): void {
    if (value === null || value === undefined) return;
    const { gamma, beta, width, eps } = this.normParts(object(value, "a norm"));
    this.module.call("norm", place, gamma, beta, width, eps);
    this.releaseAll();
  }

  private normParts(fields: Fields) {
    const { at: gamma, shape } = this.floats(fields, "weight", 1);
    return { gamma, beta: this.optional(fields, "bias", shape), width: shape[0], eps: real(fields, "eps") };
  }

  private place(place: number, fields: Fields): void {
    const { number, factor } = this.linear(fields);
    this.module.call("layer", place, number, factor);
    this.releaseAll();
  }

  /** A packed layer's number, and where what its inputs are multiplied by lies. */
  private linear(fields: Fields): { number: number; factor: number; m: number; n: number } {
    const form = fields.form;
    if (form === "low-rank") {
      const left = this.linear(section(fields, "left"));
      const right = this.linear(section(fields, "right"));
      if (left.factor !== 0 || right.factor !== 0) throw damaged("low-rank factors with scaled inputs"); // others: low_rank
      return { number: this.module.call("low_rank", left.number, right.number), factor: 0, m: left.m, n: right.n };
    }
    if (form === "float32") {
      const { at, shape } = this.floats(fields, "weight", 2);
      const [m, n] = shape;
      return { number: this.module.call("dense_f32", at, this.optional(fields, "bias", [m]), m, n), factor: 0, m, n };
    }
    if (form === "int8") {
      const { at, shape } = this.codes(fields, "codes", 2);
      const [m, n] = shape;
      const scale = this.shaped(fields, "scale", [m, 1]), bias = this.optional(fields, "bias", [m]);
      const number = this.module.call("dense_i8", at, scale, bias, m, n);
      return { number, factor: this.optional(fields, "factor", [n]), m, n };
    }
    if (form !== "dense-sparse") throw damaged(`a layer of the form ${JSON.stringify(form)}`);
    const { atoms, atomScale, indices, codes, scale, values, m, blocks, r, b, k } = this.sparse(fields, false);
    const n = blocks * b;
    const bias = this.optional(fields, "bias", [m]), column = this.optional(fields, "column", [n]);
    const number = codes !== 0
      ? this.module.call("dense_sparse_codes", atoms, atomScale, indices, codes, scale, column, bias, m, n, b, r, k)
      : this.module.call("dense_sparse_floats", atoms, indices, values, column, bias, m, n, b, r, k);
    return { number, factor: 0, m, n };
  }

  private table(fields: Fields): number {
    const form = fields.form;
    if (form === "float32") {
      const { at, shape } = this.floats(fields, "values", 2);
      return this.module.call("float_table", at, shape[0], shape[1]);
    }
    if (form === "int8") {
      const { at, shape } = this.codes(fields, "codes", 2), scale = this.floats(fields, "scale", 2);
      if (scale.shape[0] !== shape[0]) throw damaged("a table whose scales are not one for each row");
      return this.module.call("int8_table", at, scale.at, shape[0], shape[1], scale.shape[1]);
    }
    if (form === "int8-rows") {
      const { at, m, n } = this.mixed(fields), scale = this.shaped(fields, "scale", [m, 1]);
      return this.module.call("int8_table", at, scale, m, n, 1);
    }
    if (form === "low-rank") {
      const left = this.table(section(fields, "left")), part = section(fields, "right");
      const right = present(part, "values") ? this.floats(part, "values", 2) : this.dequantized(part, "codes", "scale", 2);
      return this.module.call("low_rank_table", left, right.at, right.shape[0], right.shape[1]);
    }
    if (form !== "dense-sparse") throw damaged(`a table of the form ${JSON.stringify(form)}`);
    const { atoms, indices, codes, scale, values, m, blocks, r, b, k } = this.sparse(fields, true);
    return this.module.call("sparse_table", atoms, indices, codes, scale, values, m, blocks, r, b, k);
  }

  /** Codes of a table whose rows differ in bits: those of each width lie together, and `widths` has the width of each row. */
  private mixed(fields: Fields): { at: number; m: number; n: number } {
    const { at: widths, shape: [m] } = this.indices(fields, "widths", 1);
    const parts = ROW_BITS.map((bits) => (present(fields, `codes${bits}`) ? this.codes(fields, `codes${bits}`, 2) : undefined));
    const n = parts.find((part) => part !== undefined)?.shape[1] ?? 0;
    if (parts.some((part) => part !== undefined && part.shape[1] !== n)) throw damaged("a table whose rows differ in length");
    const at = this.own(this.module.call("allocate", m * n));
    const counts = parts.map((part) => part?.shape[0] ?? 0);
    const fits = this.module.mergeRows(widths, parts.map((part) => part?.at ?? 0), counts, at, m, n);
    if (n === 0 || !fits) throw damaged("a table whose widths do not fit its codes");
    return { at, m, n };
  }

  /**
   * Dense-sparse factors: `m` rows, `blocks` of `b` columns and `r` atoms, `k` nonzeros a row and block. Codes of atoms become
   * floats where `floats` is true.
   */
  private sparse(fields: Fields, floats: boolean) {
    const coded = present(fields, "codes");
    const atoms = !coded ? this.floats(fields, "atoms", 3) : floats ? this.dequantized(fields, "atoms", "atoms_scale", 3) : this.codes(fields, "atoms", 3);
    const [blocks, r, b] = atoms.shape;
    const atomScale = coded && !floats ? this.shaped(fields, "atoms_scale", [blocks, r]) : 0;
    const { at: indices, shape } = this.indices(fields, "indices");
    const [m, , k] = shape;
    if (shape[1] !== blocks) throw damaged("dense-sparse factors that differ in blocks");
    const codes = coded ? this.codes(fields, "codes", 3) : this.floats(fields, "values", 3);
    if (codes.shape.join() !== shape.join()) throw damaged("dense-sparse factors whose indices and values differ in shape");
    const scale = coded ? this.shaped(fields, "scale", [m]) : 0;
    return {
      atoms: atoms.at, atomScale, indices, codes: coded ? codes.at : 0, scale, values: coded ? 0 : codes.at, m, blocks, r, b, k,
    };
  }

  /** Codes times a scale for each run of their last axis. */
  private dequantized(fields: Fields, codes: string, scales: string, axes: number): Placed {
    const { at, shape } = this.codes(fields, codes, axes);
    const { at: scale, shape: groups } = this.floats(fields, scales, scaleAxes(axes));
    const count = size(shape), runs = size(groups);
    if (runs === 0 || count % runs !== 0) throw damaged("scales that do not divide their codes");
    return { at: this.own(this.module.call("dequantize", at, scale, count, count / runs)), shape };
  }

  private optional(fields: Fields, name: string, shape: number[]): number {
    return present(fields, name) ? this.shaped(fields, name, shape) : 0;
  }

  private shaped(fields: Fields, name: string, shape: number[]): number {
    const placed = this.floats(fields, name, shape.length);
    if (placed.shape.join() !== shape.join())
      throw damaged(`${String(fields[name])} has the shape (${placed.shape.join(", ")}), not (${shape.join(", ")})`);
    return placed.at;
  }

  private floats(fields: Fields, name: string, axes: number): Placed {
    const { entry, at } = this.load(fields, name, axes, ["float32", "float16"]);
    if (entry.dtype === "float32") return { at, shape: entry.shape };
    const wide = this.own(this.module.call("widen_halves", at, size(entry.shape)));
    return { at: wide, shape: entry.shape };
  }

  private codes(fields: Fields, name: string, axes: number): Placed {
    const { entry, at } = this.load(fields, name, axes, ["int8", "packed"]);
    if (entry.dtype === "int8") return { at, shape: entry.shape };
    if (entry.signed !== true) throw damaged(`${String(fields[name])} has no signs`);
    if (entry.odd === true && entry.bits! > 7) throw damaged(`${String(fields[name])} has odd codes of ${entry.bits} bits`);
    const unpacked = this.own(this.module.call("unpack_bits", at, size(entry.shape), entry.bits!, 1));
    if (entry.odd === true) this.module.makeOdd(unpacked, size(entry.shape));
    return { at: unpacked, shape: entry.shape };
  }

  private indices(fields: Fields, name: string, axes = 3): Placed {
    const { entry, at } = this.load(fields, name, axes, ["packed"]);
    if (entry.signed !== false) throw damaged(`${String(fields[name])} has signs`);
    return { at: this.own(this.module.call("unpack_bits", at, size(entry.shape), entry.bits!, 0)), shape: entry.shape };
  }

  /** Copies an array of the file into the module as it is. */
  private load(fields: Fields, name: string, axes: number, dtypes: string[]): { entry: TensorEntry; at: number } {
    const key = fields[name];
    const entry = typeof key === "string" && Object.hasOwn(this.tensors, key) ? this.tensors[key] : undefined;
    if (entry === undefined) throw damaged(`there is no array ${JSON.stringify(key)} for ${name}`);
    const { dtype, shape, offset, bits = 0 } = entry;
    const right = Array.isArray(shape) && shape.length === axes && shape.every((part) => Number.isSafeInteger(part) && part >= 1);
    if (!dtypes.includes(dtype) || !right || size(shape) > 2 ** 31)
      throw damaged(`${key} is ${String(dtype)} (${String(shape)}), not ${dtypes.join(" or ")} with ${axes} axes`);
    if (dtype === "packed" && !(Number.isInteger(bits) && bits >= 0 && bits <= 16)) throw damaged(`${key} has ${bits} bits`);
    const length = dtype === "packed" ? Math.ceil((size(shape) * bits) / 8) : size(shape) * BYTES[dtype];
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > this.bytes.byteLength)
      throw damaged(`${key} lies beyond the end of model.bin`);
    const at = this.own(this.module.put(this.bytes.subarray(offset, offset + length), 8)); // unpack_bits reads eight more
    return { entry, at };
  }

  private own(at: number): number {
    this.taken.push(at >>> 0);
    return at >>> 0;
  }

  private releaseAll(): void {
    this.module.release(...this.taken.splice(0));
  }
}

function scaleAxes(axes: number): number {
  return axes === 3 ? 2 : axes; // one for each atom; for each row and group of columns
}

function size(shape: number[]): number {
  return shape.reduce((product, part) => product * part, 1);
}

function damaged(what: string): LeanmatchError {
  return new LeanmatchError(`the model's files are damaged: ${what}`, DAMAGED);
}

function present(fields: Fields, name: string): boolean {
  return fields[name] !== null && fields[name] !== undefined;
}

function object(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw damaged(`${what} is no object`);
  return value as Fields;
}

function section(fields: Fields, name: string): Fields {
  return object(fields[name], name);
}

function list(fields: Fields, name: string): unknown[] {
  const value = fields[name] ?? [];
  if (!Array.isArray(value)) throw damaged(`${name} is no list`);
  return value;
}

function real(fields: Fields, name: string, missing?: number): number {
  const value = fields[name] ?? missing;
  if (typeof value !== "number" || !Number.isFinite(value)) throw damaged(`${name} is ${JSON.stringify(value)}`);
  return value;
}

function whole(fields: Fields, name: string, missing: number): number {
  const value = real(fields, name, missing);
  if (!Number.isInteger(value) || value < Math.min(missing, 0) || value > 2 ** 31 - 1) throw damaged(`${name} is ${value}`);
  return value;
}

function choice(fields: Fields, name: string, names: string[], missing?: string): number {
  const at = names.indexOf(String(fields[name] ?? missing));
  if (at < 0) throw damaged(`${name} is ${JSON.stringify(fields[name])}, not one of ${names.join(", ")}`);
  return at;
}

/** Check what a `model.json` says it is. */
export function checkedPlan(plan: unknown): ModelPlan {
  const fields = object(plan, "model.json");
  if (fields.format !== FORMAT) throw damaged(`model.json has the format ${JSON.stringify(fields.format)}, not ${FORMAT}`);
  const version = fields.format_version;
  if (version !== 1 && version !== FORMAT_VERSION)
    throw new LeanmatchError(
      `the model has the format version ${JSON.stringify(version)}, and this runtime reads up to ${FORMAT_VERSION}`,
      "update the page's scripts, or export the model with their version of leanmatch",
    );
  for (const name of ["plan", "tensors", "files"]) section(fields, name);
  for (const name of ["dimension", "vocabulary"]) whole(fields, name, 1);
  return fields as unknown as ModelPlan;
}

/** A model that turns token ids into vectors. */
export class NativeModel {
  /** Length of a vector. */
  readonly dimension: number;
  /** Most tokens of a text; null for no limit. */
  readonly maxTokens: number | null;
  /** Bytes of the weights in memory. */
  readonly weightBytes: number;
  private readonly module: Instance;
  private readonly wide: number;
  private readonly vocabulary: number;
  private readonly limit: number;

  private constructor(module: Instance, plan: ModelPlan) {
    this.module = module;
    this.wide = module.call("dimension");
    this.limit = module.call("most_tokens") || Infinity;
    this.weightBytes = module.call("weight_bytes");
    this.dimension = plan.truncate_dim === null ? this.wide : Math.min(plan.truncate_dim, this.wide);
    if (this.dimension !== plan.dimension) throw damaged(`vectors have ${this.dimension} numbers, not ${plan.dimension}`);
    this.maxTokens = plan.max_tokens;
    this.vocabulary = plan.vocabulary;
  }

  /**
   * Build a model from its `model.json` and the bytes of its `model.bin`. The bytes are copied and may be dropped afterwards.
   *
   * @throws LeanmatchError for files that are damaged, truncated or of a newer format, and where memory runs out.
   */
  static create(runtime: Runtime, plan: unknown, bytes: ArrayBuffer | Uint8Array): NativeModel {
    const checked = checkedPlan(plan);
    const content = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
    const expected = checked.files["model.bin"]?.bytes;
    if (content.byteLength !== expected)
      throw damaged(`model.bin has ${content.byteLength} bytes, and model.json says ${expected}`);
    const module = new Instance(runtime);
    new Builder(module, checked.tensors, content).build(checked.plan);
    return new NativeModel(module, checked);
  }

  /** Bytes of WebAssembly memory. */
  get memoryBytes(): number {
    return this.module.bytes;
  }

  /**
   * Vectors of texts, one after another: `(texts, dimension)`, normalized only where the model itself does so.
   *
   * @param ids token ids of all texts, special tokens included.
   * @param offsets where each text begins in `ids`, and the end of the last one.
   */
  encode(ids: Int32Array, offsets: Int32Array): Float32Array {
    const texts = offsets.length - 1;
    if (texts < 0 || offsets[0] !== 0 || offsets[texts] !== ids.length)
      throw new LeanmatchError("offsets must begin with 0 and end with the number of token ids");
    for (let text = 0; text < texts; text++) {
      const length = offsets[text + 1] - offsets[text];
      if (length < 0) throw new LeanmatchError("offsets must ascend");
      if (length > this.limit)
        throw new LeanmatchError(`text ${text} has ${length} tokens, and the model takes at most ${this.limit}`, "cut it");
    }
    const wrong = ids.findIndex((id) => id < 0 || id >= this.vocabulary);
    if (wrong >= 0)
      throw new LeanmatchError(`token id ${ids[wrong]} is outside of the vocabulary of ${this.vocabulary}`, DAMAGED);
    const at = [this.module.put(ids), this.module.put(offsets)];
    const out = this.module.call("allocate", texts * this.wide * 4);
    this.module.call("encode", at[0], at[1], texts, out);
    const vectors = this.module.floats(out, texts * this.wide);
    this.module.release(...at, out);
    const bad = vectors.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0)
      throw new LeanmatchError(`the model gives NaN or infinite numbers for text ${Math.floor(bad / this.wide)}`, DAMAGED);
    if (this.dimension === this.wide) return vectors;
    const kept = new Float32Array(texts * this.dimension);
    for (let text = 0; text < texts; text++)
      kept.set(vectors.subarray(text * this.wide, text * this.wide + this.dimension), text * this.dimension);
    return kept;
  }

  /** Gives the memory back. */
  free(): void {
    this.module.free();
  }
}

/** Rows in 8-bit codes with a scale each, and the best of them for a query. */
export class Scanner {
  /** Numbers of a row. */
  readonly dimension: number;
  private readonly module: Instance;
  private count = 0;

  private constructor(module: Instance, dimension: number) {
    this.module = module;
    this.dimension = dimension;
  }

  /** A scanner without rows. */
  static create(runtime: Runtime, dimension: number): Scanner {
    const module = new Instance(runtime);
    module.call("scan_begin", dimension);
    return new Scanner(module, dimension);
  }

  /** How many rows there are. */
  get rows(): number {
    return this.count;
  }

  /** Bytes of WebAssembly memory. */
  get memoryBytes(): number {
    return this.module.bytes;
  }

  /**
   * Append rows.
   *
   * @param codes `(count, dimension)`, -127 to 127.
   * @param scales one for each row: a row is `scale * codes`.
   */
  add(codes: Int8Array, scales: Float32Array, count = scales.length): void {
    if (codes.length !== count * this.dimension || scales.length !== count)
      throw new LeanmatchError(`${codes.length} codes and ${scales.length} scales for ${count} rows of ${this.dimension}`);
    const at = [this.module.put(codes), this.module.put(scales)];
    this.module.call("scan_add", at[0], at[1], count);
    this.module.release(...at);
    this.count += count;
  }

  /**
   * The best `k` rows by the inner product with a query, best first; of rows with equal scores the lower one.
   *
   * @param allowed a bit for each row, the lowest first; every row if left out.
   */
  top(query: Float32Array, k: number, allowed?: Uint8Array): { rows: Int32Array; scores: Float32Array } {
    if (query.length !== this.dimension)
      throw new LeanmatchError(`a query of ${query.length} numbers, and rows have ${this.dimension}`);
    if (!query.every(Number.isFinite)) throw new LeanmatchError("the query holds NaN or infinite numbers");
    if (!Number.isInteger(k) || k < 1) throw new LeanmatchError(`the best ${k} rows`, "ask for one or more");
    if (allowed !== undefined && allowed.length < Math.ceil(this.count / 8))
      throw new LeanmatchError(`${allowed.length} bytes of allowed rows, and there are ${this.count} rows`);
    const most = Math.min(k, this.count);
    const at = [this.module.put(query), allowed === undefined ? 0 : this.module.put(allowed)];
    const rows = this.module.call("allocate", most * 4), scores = this.module.call("allocate", most * 4);
    const found = this.module.call("scan_top", at[0], most, at[1], rows, scores);
    const result = { rows: this.module.whole(rows, found), scores: this.module.floats(scores, found) };
    this.module.release(...at, rows, scores);
    return result;
  }

  /** Gives the memory back. */
  free(): void {
    this.module.free();
  }
}
