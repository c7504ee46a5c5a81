// The words that carried a match: by how much the score falls when each is deleted. As the server does it
// (leanmatch.serve.explaining), with the same numbers.

import type { LoadedModel, Way } from "./model.js";
import { splitWords, type Span, wordUnits } from "./words.js";

/** A word by its place in the text, in code points, and by how much the score falls without it. */
export interface Word { text: string; start: number; end: number; importance: number }

export interface Explanation {
  score: number;
  query: Word[];
  item: Word[];
  /** What was edited: the tokens that the model reads, or, where its tokenizer does not tell their places, the text. */
  level: "tokens" | "text";
}

/** A text's words, and its vectors: the first whole, each other without a word. */
interface Edited { spans: Span[]; vectors: Float32Array; level: "tokens" | "text" }

const EXPLAINED_WORDS = 48;
const KEPT_VECTORS = 4_000;

export class Explainer {
  private readonly kept = new Map<string, Promise<Edited>>();

  constructor(private readonly model: LoadedModel) {}

  /** `ways`: how queries and items are read. */
  async explain(query: string, item: string, ways: readonly [Way, Way]): Promise<Explanation> {
    const [asked, found] = [await this.edited(query, ways[0]), await this.edited(item, ways[1])];
    const { dimension } = ways[0];
    return {
      score: dot(asked.vectors, 0, found.vectors, 0, dimension),
      query: words(query, asked, found, dimension),
      item: words(item, found, asked, dimension),
      level: asked.level === "text" ? "text" : found.level,
    };
  }

  private edited(text: string, way: Way): Promise<Edited> {
    const key = JSON.stringify([way.prompt, way.dimension, text]);
    const edited = this.kept.get(key) ?? this.edit(text, way);
    edited.catch(() => this.kept.delete(key));
    this.kept.delete(key);
    this.kept.set(key, edited);
    while (this.kept.size * EXPLAINED_WORDS > KEPT_VECTORS) this.kept.delete(this.kept.keys().next().value as string);
    return edited;
  }

  private async edit(text: string, way: Way): Promise<Edited> {
    const { tokenizer } = this.model;
    const { prompt } = way;
    const characters = [...text];
    const { ids, offsets, special } = tokenizer.read(prompt + text);
    if (offsets === null) {
      const spans = splitWords(characters).slice(0, EXPLAINED_WORDS);
      const vectors = await this.model.encode([text, ...spans.map((span) => without(characters, span))], way);
      return { spans, vectors, level: "text" };
    }
    const before = [...prompt].length;
    const visible = [...prompt.trimEnd()].length;
    const editable = offsets.flatMap(([start, end], at) => (!special[at] && (!prompt || (start >= visible && end > before)) ? [at] : []));
    const own = offsets.map((span) => span.map((at) => Math.min(characters.length, Math.max(0, at - before))) as Span);
    const units = wordUnits(characters, own, editable).slice(0, EXPLAINED_WORDS);
    const rows = units.map(({ tokens }) => ids.filter((_, at) => !tokens.includes(at)));
    return { spans: units.map(({ start, end }) => [start, end]), vectors: await this.model.encodeIds([ids, ...rows], way.dimension), level: "tokens" };
  }
}

function words(text: string, edited: Edited, other: Edited, dimension: number): Word[] {
  const characters = [...text];
  const whole = dot(edited.vectors, 0, other.vectors, 0, dimension);
  return edited.spans.map(([start, end], at) => ({
    text: characters.slice(start, end).join(""), start, end,
    importance: whole - dot(edited.vectors, at + 1, other.vectors, 0, dimension),
  }));
}

function dot(a: Float32Array, row: number, b: Float32Array, other: number, dimension: number): number {
  let sum = 0;
  for (let at = 0; at < dimension; at++) sum += a[row * dimension + at] * b[other * dimension + at];
  return sum;
}

/** A text without a word, and without a space beside it where that leaves no two words glued together. */
function without(characters: readonly string[], [start, end]: Span): string {
  const before = characters.slice(0, start).join("");
  const after = characters.slice(end).join("");
  if (/^\s/.test(after) && (!before || /\s$/.test(before))) return before + after.slice(1);
  return after ? before + after : before.replace(/\s$/, "");
}
