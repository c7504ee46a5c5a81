// A catalogue in a folder of static files: vectors in 8 bits, items and columns in parts that come as they are needed.

import { Column, type ColumnFile, type ColumnType } from "./columns.js";
import { LeanmatchError } from "./errors.js";
import { allKept, drop, type FileEntry, Folder, forgetOthers, type Progress } from "./files.js";
import { columnsOf, type Filter, readFilter, rowsThatPass } from "./filters.js";
import { type Runtime, Scanner } from "./runtime.js";

/** A metadata column, as the page makes filter fields of it. */
export interface ColumnInfo {
  name: string;
  type: ColumnType;
  present: number;
  distinct?: number;
  values?: { value: string | boolean; count: number }[];
  min?: number;
  max?: number;
}

interface Part extends FileEntry { rows: number }

export interface CatalogueManifest {
  items: number;
  dimension: number;
  /** The model that made the vectors: SHA-256 of its weights in this export, and what it puts before texts. */
  model: { name: string; weights: string; query: string; document: string };
  vectors: Part[];
  parts: Part[];
  ids: FileEntry;
  columns: (ColumnInfo & { file: FileEntry })[];
  samples: string[];
}

/** An item as it stands in its part. */
export interface Item { id: string; text: string; metadata: Record<string, unknown> }

const PARTS_KEPT = 64;
const AT_ONCE = 6;
/** Parts of vectors that are on their way at once: one comes while another is added. */
const PARTS_AT_ONCE = 2;

export class OpenCatalogue {
  private scanner: Promise<Scanner> | null = null;
  private readonly parts = new Map<number, Promise<Item[]>>();
  private readonly columns = new Map<string, Promise<Column>>();
  private lastFilter: { key: string; passing: Uint8Array } | null = null;
  private rowsById: Promise<Map<string, number>> | null = null;

  private constructor(private readonly folder: Folder, readonly manifest: CatalogueManifest, private readonly runtime: () => Promise<Runtime>) {}

  static async open(url: string, runtime: () => Promise<Runtime>, signal?: AbortSignal): Promise<OpenCatalogue> {
    const manifest = await Folder.of(url, signal).manifest<CatalogueManifest>("catalogue.json", "leanmatch-web-catalogue", 1);
    const { items, dimension, vectors, parts, columns } = manifest;
    const counted = (some: Part[]) => Array.isArray(some) && some.reduce((sum, { rows }) => sum + rows, 0) === items;
    const sound = Number.isSafeInteger(items) && items >= 0 && dimension >= 1 && counted(vectors) && counted(parts) && Array.isArray(columns)
      && vectors.every(({ rows, bytes }) => bytes === rows * (dimension + 4));
    if (!sound) throw new LeanmatchError(`${url} holds a damaged catalogue.json`, "export the site again");
    return new OpenCatalogue(Folder.of(url), manifest, runtime);
  }

  /** Load the vectors, which every search needs. */
  load(progress?: Progress, signal?: AbortSignal): Promise<Scanner> {
    if (!this.scanner) {
      this.scanner = this.vectors(progress, signal);
      this.scanner.catch(() => { this.scanner = null; }); // the next search tries again
    }
    return this.scanner;
  }

  private async vectors(progress: Progress = () => undefined, signal?: AbortSignal): Promise<Scanner> {
    const { vectors, dimension } = this.manifest;
    const folder = new Folder(this.folder.url, signal);
    const total = vectors.reduce((sum, { bytes }) => sum + bytes, 0);
    const come = vectors.map(() => 0);
    const read = (at: number) => {
      const bytes = folder.bytes(vectors[at], (loaded) => {
        come[at] = loaded;
        progress(come.reduce((sum, some) => sum + some, 0), total);
      });
      bytes.catch(() => undefined); // it is awaited later
      return bytes;
    };
    const waiting = vectors.slice(0, PARTS_AT_ONCE).map((_, at) => read(at));
    const scanner = Scanner.create(await this.runtime(), dimension);
    for (const [at, part] of vectors.entries()) {
      const bytes = await (waiting[at] as Promise<Uint8Array<ArrayBuffer>>);
      if (at + PARTS_AT_ONCE < vectors.length) waiting.push(read(at + PARTS_AT_ONCE));
      const scales = new Float32Array(bytes.buffer, bytes.byteOffset, part.rows);
      scanner.add(new Int8Array(bytes.buffer, bytes.byteOffset + 4 * part.rows, part.rows * dimension), scales, part.rows);
      drop(bytes);
    }
    return scanner;
  }

  /** The best rows for a query, best first; equal scores in the order of the rows. */
  async top(query: Float32Array, k: number, filter: unknown): Promise<{ rows: Int32Array; scores: Float32Array }> {
    const scanner = await this.load();
    const allowed = filter === undefined || filter === null ? undefined : await this.select(readFilter(filter));
    if (!this.manifest.items) return { rows: new Int32Array(), scores: new Float32Array() };
    return scanner.top(query, k, allowed);
  }

  /** A bit for each row that passes, the lowest first. */
  private async select(filter: Filter): Promise<Uint8Array> {
    const key = JSON.stringify(filter, (_, value) => (typeof value === "bigint" ? `${value}n` : value));
    if (this.lastFilter?.key === key) return this.lastFilter.passing;
    const names = [...columnsOf(filter)];
    const columns = new Map(await Promise.all(names.map(async (name) => [name, await this.column(name)] as const)));
    const { items } = this.manifest;
    const rows = rowsThatPass(filter, columns, items);
    const passing = new Uint8Array(Math.ceil(items / 8));
    for (let row = 0; row < items; row++) passing[row >> 3] |= rows[row] << (row & 7);
    this.lastFilter = { key, passing };
    return passing;
  }

  private column(name: string): Promise<Column> {
    return once(this.columns, name, async () => {
      const info = this.manifest.columns.find((column) => column.name === name);
      if (!info) {
        const names = this.manifest.columns.map((column) => column.name).join(", ") || "none";
        throw new LeanmatchError(`the catalogue has no column '${name.slice(0, 80)}'`, `the columns are: ${names}`);
      }
      return new Column(name, info.type, await this.folder.json<ColumnFile>(info.file), this.manifest.items);
    });
  }

  /** The items of rows. */
  items(rows: readonly number[]): Promise<Item[]> {
    return Promise.all(rows.map(async (row) => {
      let first = 0;
      const part = this.manifest.parts.findIndex(({ rows: count }) => row < first + count || ((first += count), false));
      return (await this.part(part))[row - first];
    }));
  }

  private part(number: number): Promise<Item[]> {
    const entry = this.manifest.parts[number];
    const items = once(this.parts, number, async () => {
      const found = await this.folder.json<Item[]>(entry);
      if (!Array.isArray(found) || found.length !== entry.rows) throw new LeanmatchError(`${entry.file} is damaged`, "export the site again");
      return found;
    });
    this.parts.delete(number); // the last one that was used stands last
    this.parts.set(number, items);
    if (this.parts.size > PARTS_KEPT) this.parts.delete(this.parts.keys().next().value as number);
    return items;
  }

  /** The item of an identifier. */
  async item(id: string): Promise<Item> {
    for (const loaded of this.parts.values()) {
      const item = (await loaded).find((one) => one.id === id);
      if (item) return item;
    }
    this.rowsById ??= this.folder.json<string[]>(this.manifest.ids).then((ids) => new Map(ids.map((name, row) => [name, row])));
    this.rowsById.catch(() => { this.rowsById = null; });
    const row = (await this.rowsById).get(id);
    if (row === undefined) throw new LeanmatchError(`the catalogue has no item '${id.slice(0, 80)}'`, "give the id of a result");
    return (await this.items([row]))[0];
  }

  async free(): Promise<void> {
    (await this.scanner)?.free();
  }

  /** Bytes of all its files. */
  get bytes(): number {
    return this.entries().reduce((sum, { bytes }) => sum + bytes, 0);
  }

  private entries(): FileEntry[] {
    const { vectors, parts, columns, ids } = this.manifest;
    return [...vectors, ...parts, ...columns.map(({ file }) => file), ids];
  }

  /** Fetch what is not in the browser's cache yet, so that all works without a network. Gives whether all is kept. */
  async keep(progress: Progress = () => undefined, signal?: AbortSignal): Promise<boolean> {
    const entries = this.entries();
    await forgetOthers(this.folder, entries);
    const folder = new Folder(this.folder.url, signal);
    const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
    let loaded = 0;
    const waiting = [...entries];
    const fetchAll = async () => {
      for (let entry = waiting.shift(); entry; entry = waiting.shift()) {
        if (!(await allKept(folder, [entry]))) drop(await folder.bytes(entry));
        progress(loaded += entry.bytes, total);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, fetchAll));
    return allKept(folder, entries);
  }
}

/** What a map holds under a key, made when it is first asked for; what fails is made anew the next time. */
function once<K, V>(map: Map<K, Promise<V>>, key: K, make: () => Promise<V>): Promise<V> {
  let value = map.get(key);
  if (!value) {
    value = make();
    map.set(key, value);
    value.catch(() => map.delete(key));
  }
  return value;
}
