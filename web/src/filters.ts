// Filters on metadata: the language of the server, in its text form and its JSON form, with the same answers.
//
//   category = "Toys" and (price < 20 or price is missing)
//   {"and": [{"column": "category", "eq": "Toys"}, {"or": [{"column": "price", "lt": 20}, ...]}]}
//
// An item without a value fails every comparison; `not` is the plain complement.

import { type Column, shown, type Value } from "./columns.js";
import { LeanmatchError } from "./errors.js";

type Operator = "eq" | "ne" | "lt" | "le" | "gt" | "ge";

export type Filter =
  | { kind: "compare"; column: string; operator: Operator; value: Value }
  | { kind: "in"; column: string; values: Value[] }
  | { kind: "missing"; column: string }
  | { kind: "and"; parts: Filter[] }
  | { kind: "or"; parts: Filter[] }
  | { kind: "not"; part: Filter };

const OPERATORS: Record<Operator, string> = { eq: "=", ne: "!=", lt: "<", le: "<=", gt: ">", ge: ">=" };
const SIGNS: Record<string, Operator> = {
  "=": "eq", "==": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
};
const MAX_DEPTH = 32;
const MAX_PARTS = 1_000;
const MAX_VALUES = 10_000;
const MAX_CHARACTERS = 200_000;
const MAX_DIGITS = 320;

/** What a filter has used of the limits while it is read. */
class Budget {
  private parts = 0;
  private values = 0;
  private characters = 0;

  part(depth: number): void {
    if (++this.parts > MAX_PARTS) throw new LeanmatchError(`the filter has more than ${MAX_PARTS} parts`, "use in: [...]");
    if (depth > MAX_DEPTH) throw new LeanmatchError(`the filter is more than ${MAX_DEPTH} levels deep`, "flatten it");
  }

  value(count: number): void {
    this.values += count;
    if (this.values > MAX_VALUES) {
      throw new LeanmatchError(`the filter's 'in' lists have more than ${MAX_VALUES} values`, "give fewer, or filter by a column that groups them");
    }
  }

  text(text: string): string {
    this.characters += text.length;
    if (this.characters > MAX_CHARACTERS) {
      throw new LeanmatchError(`the filter's names and texts have more than ${MAX_CHARACTERS} characters`, "give fewer values, or filter by a column that groups them");
    }
    return text;
  }

  checked(value: unknown): Value {
    if (typeof value === "string") return this.text(value);
    if (typeof value === "boolean") return value;
    if (typeof value === "number" || typeof value === "bigint") {
      if (Number.isFinite(Number(value))) return value;
      throw beyondFloat64(shown(value));
    }
    throw new LeanmatchError(
      `a filter compares with text, numbers and booleans, found ${shown(value)}`,
      'for items without a value use {"column": ..., "missing": true}',
    );
  }
}

function beyondFloat64(number: string): LeanmatchError {
  return new LeanmatchError(`a filter compares with finite numbers, found ${number}`, "give a number between -1.7e308 and 1.7e308");
}

/** Read a filter in either form. */
export function readFilter(given: unknown): Filter {
  return typeof given === "string" ? new Parser(given).whole() : fromJson(given, new Budget(), 0);
}

function notAFilter(value: unknown): LeanmatchError {
  return new LeanmatchError(
    `this is no filter: ${shown(value)}`, '{"column": NAME, "eq": VALUE}, or {"and": [...]}, {"or": [...]}, {"not": {...}}',
  );
}

function fromJson(value: unknown, budget: Budget, depth: number): Filter {
  budget.part(depth);
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw notAFilter(value);
  const entries = Object.entries(value);
  if (entries.length === 1) {
    const [name, inner] = entries[0];
    if (name === "and" || name === "or") {
      if (!Array.isArray(inner) || !inner.length) {
        throw new LeanmatchError(`'${name}' needs a list of filters, found ${shown(inner)}`, "[...]");
      }
      return { kind: name, parts: inner.map((part) => fromJson(part, budget, depth + 1)) };
    }
    if (name === "not") return { kind: "not", part: fromJson(inner, budget, depth + 1) };
  }
  const { column } = value as { column?: unknown };
  if (typeof column !== "string" || entries.length < 2) throw notAFilter(value);
  budget.text(column);
  const tests = entries.filter(([name]) => name !== "column").map(([name, inner]) => test(column, name, inner, budget));
  return tests.length === 1 ? tests[0] : { kind: "and", parts: tests };
}

function test(column: string, name: string, value: unknown, budget: Budget): Filter {
  if (Object.hasOwn(OPERATORS, name)) {
    return { kind: "compare", column, operator: name as Operator, value: budget.checked(value) };
  }
  if (name === "in") {
    if (!Array.isArray(value)) throw new LeanmatchError(`'in' needs a list, found ${shown(value)}`, '{"column": ..., "in": [...]}');
    budget.value(value.length);
    return { kind: "in", column, values: value.map((element) => budget.checked(element)) };
  }
  if (name === "missing" && typeof value === "boolean") {
    return value ? { kind: "missing", column } : { kind: "not", part: { kind: "missing", column } };
  }
  throw new LeanmatchError(
    `there is no test ${shown(name)} with ${shown(value)}`, `one of: ${[...Object.keys(OPERATORS), "in", "missing"].join(", ")}`,
  );
}

const SPACE = /[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*/uy;
const TOKEN = new RegExp(
  [
    String.raw`(?<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?(?![\p{L}\p{N}_.]))`,
    String.raw`(?<text>"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*')`,
    "(?<quoted>`[^`]+`)",
    String.raw`(?<word>[\p{L}\p{Nl}\p{No}_][\p{L}\p{N}_.\-]*)`,
    "(?<sign><=|>=|!=|<>|==|=|<|>|\\(|\\)|,)",
  ].join("|"),
  "suy",
);
const KEYWORDS = new Set(["and", "or", "not", "in", "is", "missing", "true", "false"]);
const REMEDY = 'for example: category = "Toys" and price < 20';

interface Token { kind: string; text: string; at: number }

/** Reads token by token. `not` binds before `and`, `and` before `or`. */
class Parser {
  private readonly budget = new Budget();
  private at = 0;
  private token: Token;

  constructor(private readonly text: string) {
    if (text.length > MAX_CHARACTERS) {
      throw new LeanmatchError(`the filter has more than ${MAX_CHARACTERS} characters`, "give fewer values, or filter by a column that groups them");
    }
    this.token = this.next();
  }

  whole(): Filter {
    const filter = this.either(0);
    if (this.token.kind !== "end") throw this.wrong("'and', 'or' or the end");
    return filter;
  }

  private next(): Token {
    SPACE.lastIndex = this.at;
    SPACE.exec(this.text);
    const at = SPACE.lastIndex;
    if (at >= this.text.length) return { kind: "end", text: "", at };
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(this.text);
    if (!match) throw new LeanmatchError(`the filter cannot be read at ${shown(this.text.slice(at, at + 20))}`, REMEDY);
    this.at = TOKEN.lastIndex;
    const [kind, text] = Object.entries(match.groups as Record<string, string>).find(([, part]) => part !== undefined) as [string, string];
    const keyword = kind === "word" && KEYWORDS.has(text.toLowerCase());
    return keyword ? { kind: "keyword", text: text.toLowerCase(), at } : { kind, text, at };
  }

  private take(kind: string, ...texts: string[]): Token | null {
    const token = this.token;
    if (token.kind !== kind || (texts.length && !texts.includes(token.text))) return null;
    this.token = this.next();
    return token;
  }

  private wrong(wanted: string): LeanmatchError {
    const { kind, at } = this.token;
    const actual = kind === "end" ? "the end" : shown(this.text.slice(at, at + 20));
    return new LeanmatchError(`the filter needs ${wanted} at character ${[...this.text.slice(0, at)].length + 1}, found ${actual}`, REMEDY);
  }

  private either(depth: number): Filter {
    const parts = [this.both(depth)];
    while (this.take("keyword", "or")) parts.push(this.both(depth));
    return parts.length === 1 ? parts[0] : { kind: "or", parts };
  }

  private both(depth: number): Filter {
    const parts = [this.one(depth)];
    while (this.take("keyword", "and")) parts.push(this.one(depth));
    return parts.length === 1 ? parts[0] : { kind: "and", parts };
  }

  private one(depth: number): Filter {
    this.budget.part(depth);
    if (this.take("keyword", "not")) return { kind: "not", part: this.one(depth + 1) };
    if (this.take("sign", "(")) {
      const inner = this.either(depth + 1);
      if (!this.take("sign", ")")) throw this.wrong("')'");
      return inner;
    }
    const token = this.take("word") ?? this.take("quoted");
    if (!token) throw this.wrong("a column");
    return this.test(this.budget.text(token.kind === "quoted" ? token.text.slice(1, -1) : token.text));
  }

  private test(column: string): Filter {
    const sign = this.take("sign", ...Object.keys(SIGNS));
    if (sign) return { kind: "compare", column, operator: SIGNS[sign.text], value: this.value() };
    if (this.take("keyword", "is")) {
      const negated = this.take("keyword", "not");
      if (!this.take("keyword", "missing")) throw this.wrong("'missing'");
      const missing: Filter = { kind: "missing", column };
      return negated ? { kind: "not", part: missing } : missing;
    }
    const negated = this.take("keyword", "not");
    if (!this.take("keyword", "in")) throw this.wrong(`${Object.values(OPERATORS).join(", ")}, 'in' or 'is missing'`);
    const membership = this.listed(column);
    return negated ? { kind: "not", part: membership } : membership;
  }

  private listed(column: string): Filter {
    if (!this.take("sign", "(")) throw this.wrong("'('");
    const values: Value[] = [];
    while (!this.take("sign", ")")) {
      if (values.length && !this.take("sign", ",")) throw this.wrong("',' or ')'");
      this.budget.value(1);
      values.push(this.value());
    }
    return { kind: "in", column, values };
  }

  private value(): Value {
    const text = this.take("text");
    if (text) return this.budget.text(text.text.slice(1, -1).replace(/\\(.)/gsu, "$1"));
    const number = this.take("number");
    if (number) {
      if (number.text.length > MAX_DIGITS) throw beyondFloat64(`one of ${number.text.length} characters`);
      const near = Number(number.text);
      const whole = /^-?[0-9]+$/.test(number.text);
      return this.budget.checked(whole && !Number.isSafeInteger(near) ? BigInt(number.text) : near);
    }
    const flag = this.take("keyword", "true", "false");
    if (flag) return flag.text === "true";
    throw this.wrong('a value ("text", a number, true or false)');
  }
}

/** The columns that a filter names. */
export function columnsOf(filter: Filter): Set<string> {
  if (filter.kind === "and" || filter.kind === "or") return new Set(filter.parts.flatMap((part) => [...columnsOf(part)]));
  return filter.kind === "not" ? columnsOf(filter.part) : new Set([filter.column]);
}

/** 1 for each row that passes. `columns` holds every column of {@link columnsOf}. */
export function rowsThatPass(filter: Filter, columns: ReadonlyMap<string, Column>, rows: number): Uint8Array {
  if (filter.kind === "and" || filter.kind === "or") {
    const joined = rowsThatPass(filter.parts[0], columns, rows);
    for (const part of filter.parts.slice(1)) {
      const other = rowsThatPass(part, columns, rows);
      for (let row = 0; row < rows; row++) joined[row] = filter.kind === "and" ? joined[row] & other[row] : joined[row] | other[row];
    }
    return joined;
  }
  if (filter.kind === "not") return rowsThatPass(filter.part, columns, rows).map((passes) => passes ^ 1);
  const column = columns.get(filter.column) as Column;
  const passing = new Uint8Array(rows);
  if (filter.kind === "missing") return passing.map((_, row) => (column.has(row) ? 0 : 1));
  if (filter.kind === "in") return column.membership(filter.values);
  const comparison = column.comparison(filter.value);
  const wanted = PASSES[filter.operator];
  for (let row = 0; row < rows; row++) {
    const order = comparison(row);
    if (order === order && wanted(order)) passing[row] = 1; // NaN: no value
  }
  return passing;
}

const PASSES: Record<Operator, (order: number) => boolean> = {
  eq: (order) => order === 0,
  ne: (order) => order !== 0,
  lt: (order) => order < 0,
  le: (order) => order <= 0,
  gt: (order) => order > 0,
  ge: (order) => order >= 0,
};
