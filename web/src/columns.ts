// A metadata column as filters read it, from the catalogue's file of that column.

import { LeanmatchError } from "./errors.js";

export type Value = string | number | bigint | boolean;
export type ColumnType = "text" | "integer" | "number" | "boolean";

/** The file of a column: rows of values, or the distinct texts in their order and their number for each row. */
export interface ColumnFile {
  values?: string[];
  codes?: (number | null)[];
  rows?: (number | string | boolean | null)[];
}

/** Texts by code points, as Python and ISO dates have their order; JavaScript's own goes by UTF-16 units. */
export function compareTexts(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    let x = a.charCodeAt(at), y = b.charCodeAt(at);
    if (x === y) continue;
    // surrogates stand for code points above all others of 16 bits
    if (x >= 0xd800 && y >= 0xd800) {
      const high = (unit: number) => (unit <= 0xdfff ? unit + 0x2000 : unit - 0x800);
      x = high(x);
      y = high(y);
    }
    return x - y;
  }
  return a.length - b.length;
}

/** A decimal number as it was written, exactly: `digits * 10 ** exponent`. */
interface Decimal { digits: bigint; exponent: number }

const NUMBER = /^-?(0|[1-9][0-9]{0,63})(\.[0-9]{1,64})?([eE][-+]?[0-9]{1,3})?$/;

function decimal(text: string): Decimal {
  const [mantissa, power = "0"] = text.toLowerCase().split("e");
  const [whole, fraction = ""] = mantissa.split(".");
  return { digits: BigInt(whole + fraction), exponent: Number(power) - fraction.length };
}

function compareDecimals(a: Decimal, b: Decimal): number {
  const exponent = Math.min(a.exponent, b.exponent);
  const x = a.digits * 10n ** BigInt(a.exponent - exponent);
  const y = b.digits * 10n ** BigInt(b.exponent - exponent);
  return x < y ? -1 : x > y ? 1 : 0;
}

/** One text for all ways to write a number. */
function reduced({ digits, exponent }: Decimal): string {
  if (digits === 0n) return "0";
  while (digits % 10n === 0n) {
    digits /= 10n;
    exponent++;
  }
  return `${digits}e${exponent}`;
}

/** One form for equal numbers: a bigint where a number has no exact integers any more. */
function exact(value: number | bigint): number | bigint {
  if (typeof value === "bigint") return value >= -MOST && value <= MOST ? Number(value) : value;
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? BigInt(value) : value;
}

const MOST = BigInt(Number.MAX_SAFE_INTEGER);

/** How a row's value stands to a filter's: below 0, 0, above 0; NaN where the row has none. */
export type Comparison = (row: number) => number;

export class Column {
  private readonly values: string[];
  private readonly codes: Int32Array;
  private readonly rows: (number | bigint | null)[];
  private decimals: Decimal[] | null | undefined;

  constructor(readonly name: string, readonly type: ColumnType, file: ColumnFile, readonly count: number) {
    const given = type === "text" ? file?.codes : file?.rows;
    if (!Array.isArray(given) || given.length !== count || (type === "text" && !Array.isArray(file.values))) {
      throw new LeanmatchError(`the column ${name} of the catalogue is damaged`, "export the site again");
    }
    this.values = file.values ?? [];
    this.codes = Int32Array.from(type === "text" ? (given as (number | null)[]) : [], (code) => code ?? -1);
    this.rows = type === "text" ? [] : (file.rows as NonNullable<ColumnFile["rows"]>).map((value) =>
      typeof value === "string" ? BigInt(value) : typeof value === "boolean" ? Number(value) : value);
  }

  has(row: number): boolean {
    return this.type === "text" ? this.codes[row] >= 0 : this.rows[row] !== null;
  }

  /** Compares each row with a value. Numbers are compared exactly, also integers beyond 2 ** 53. */
  comparison(value: Value): Comparison {
    this.check(value);
    if (this.type !== "text") {
      const wanted = typeof value === "boolean" ? Number(value) : (value as number | bigint);
      return (row) => {
        const held = this.rows[row];
        return held === null ? NaN : held < wanted ? -1 : held > wanted ? 1 : 0;
      };
    }
    if (typeof value === "string") return this.ranked((code) => compareTexts(this.values[code], value));
    const wanted = decimal(String(value));
    const numbers = this.numeric() as Decimal[];
    return this.ranked((code) => compareDecimals(numbers[code], wanted));
  }

  /** 1 for each row whose value is one of these. */
  membership(values: Value[]): Uint8Array {
    values.forEach((value) => this.check(value));
    const passing = new Uint8Array(this.count);
    if (this.type !== "text") {
      const wanted = new Set(values.map((value) => exact(typeof value === "boolean" ? Number(value) : (value as number | bigint))));
      this.rows.forEach((held, row) => { if (held !== null && wanted.has(exact(held))) passing[row] = 1; });
      return passing;
    }
    const texts = new Set(values.filter((value) => typeof value === "string"));
    const numbers = new Set(values.filter((value) => typeof value !== "string").map((value) => reduced(decimal(String(value)))));
    const codes = this.values.map((text, code) => texts.has(text) || (numbers.size > 0 && numbers.has(reduced((this.numeric() as Decimal[])[code]))));
    for (let row = 0; row < this.count; row++) if (this.codes[row] >= 0 && codes[this.codes[row]]) passing[row] = 1;
    return passing;
  }

  /** One comparison for each distinct text, when a row first has it. */
  private ranked(compare: (code: number) => number): Comparison {
    const known = new Float64Array(this.values.length).fill(NaN);
    return (row) => {
      const code = this.codes[row];
      if (code < 0) return NaN;
      if (Number.isNaN(known[code])) known[code] = compare(code);
      return known[code];
    };
  }

  /** The texts in their meaning as numbers; null where one does not read as a number. */
  private numeric(): Decimal[] | null {
    if (this.decimals === undefined) {
      const all = this.values.length > 0 && this.values.every((text) => NUMBER.test(text));
      this.decimals = all ? this.values.map(decimal) : null;
    }
    return this.decimals;
  }

  private check(value: Value): void {
    const kind = typeof value === "boolean" ? "boolean" : typeof value === "string" ? "text" : "number";
    const held = this.type === "integer" ? "number" : this.type;
    if (kind === held || (held === "text" && kind === "number" && this.numeric())) return;
    throw new LeanmatchError(
      `the column '${this.name.slice(0, 80)}' holds values of type ${this.type}, not ${shown(value)}`,
      { text: "put the value in quotes", number: "give a number", boolean: "true or false" }[held],
    );
  }
}

export function shown(value: unknown): string {
  const text = typeof value === "string" ? JSON.stringify(value) : typeof value === "object" ? JSON.stringify(value) ?? "null" : String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
