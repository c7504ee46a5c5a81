// Texts to token ids, cut at the model's length, with the place of each token in the text.
//
// The tokenizers are those of @huggingface/tokenizers. It gives no places, which explanations need, and its BERT
// normalizer and white-space rule differ from the Rust library's in some characters; those of bert.ts stand in their place.

import { LowercaseNormalizer, Tokenizer } from "@huggingface/tokenizers";
import { lower, type Normalized, normalize, splitterOf, type Step, stepsOf } from "./bert.js";
import { LeanmatchError } from "./errors.js";
import type { Span } from "./words.js";

// The library's own goes by the words around a character: a final sigma differs.
LowercaseNormalizer.prototype.normalize = (text: string) => Array.from(text, lower).join("");

/** How a model reads texts; from its `model.json`. */
export interface Reading {
  /** Longest text in tokens, special ones included; null for no limit. */
  maxTokens: number | null;
  /** Whether the tokenizer's special tokens go around a text. */
  addSpecial: boolean;
  /** The side on which a text that is too long is cut. */
  side: "left" | "right";
}

/** A text as a model reads it. */
export interface Tokens {
  ids: number[];
  /** Of each token, in code points; null where the tokenizer does not tell. */
  offsets: Span[] | null;
  /** Whether the tokenizer added it. */
  special: boolean[];
}

interface Piece { id: number; place: Span | null }

/** The inner parts of the library's tokenizer that are used here. */
interface Inner {
  normalizer: ((text: string) => string) | null;
  encode_text(text: string): string[];
  splitter_unnormalized: { split(text: string): string[] };
  splitter_normalized: { split(text: string): string[] };
  added_tokens_map: Map<string, { id: number; lstrip: boolean; rstrip: boolean }>;
  model: { encode(words: string[]): string[]; tokens_to_ids: Map<string, number>; unk_token_id: number };
  post_processor: ((tokens: string[], pair: null, special: boolean) => { tokens: string[] }) | null;
  tokenizer: {
    normalizer: Parameters<typeof stepsOf>[0] | null;
    pre_tokenizer: { type: string; pretokenizers?: { type: string }[] } | null;
    model: { type: string; continuing_subword_prefix?: string };
  };
}

export class TextTokenizer {
  private readonly inner: Inner;
  /** The normalizer's steps and the words, for WordPiece with what bert.ts knows. */
  private readonly pieceWise: { steps: Step[]; split: (text: string) => Span[] } | null = null;
  private readonly before: number[];
  private readonly after: number[];

  constructor(file: object, private readonly reading: Reading) {
    try {
      this.inner = read(file);
    } catch (error) {
      throw new LeanmatchError(`the model's tokenizer cannot be read (${(error as Error).message})`, "export the model again");
    }
    const { normalizer, pre_tokenizer: words, model } = this.inner.tokenizer;
    const [steps, split] = [normalizer === null ? [] : stepsOf(normalizer), splitterOf(words?.type)];
    if (model.type === "WordPiece" && steps && split) this.pieceWise = { steps, split };
    const plain = this.inner.encode_text("a");
    const full = reading.addSpecial && this.inner.post_processor ? this.inner.post_processor(plain, null, true).tokens : plain;
    const at = Math.max(0, full.findIndex((_, start) => plain.every((token, offset) => full[start + offset] === token)));
    this.before = full.slice(0, at).map((token) => this.id(token));
    this.after = full.slice(at + plain.length).map((token) => this.id(token));
    const room = this.before.length + this.after.length;
    if (reading.maxTokens !== null && reading.maxTokens <= room) {
      throw new LeanmatchError(`the model reads ${reading.maxTokens} tokens, and its tokenizer adds ${room} to every text`, "export the model again");
    }
  }

  /** The ids of a text between the tokenizer's special tokens. */
  encode(text: string): number[] {
    return this.read(text, false).ids;
  }

  /** The ids of a text, with their places where `places` is true. */
  read(text: string, places = true): Tokens {
    if (/\p{Cs}/u.test(text)) {
      throw new LeanmatchError("a text holds half of a surrogate pair, which is no character", "decode it from its bytes again");
    }
    const room = this.reading.maxTokens === null ? Infinity : this.reading.maxTokens - this.before.length - this.after.length;
    const { side } = this.reading;
    let pieces = this.pieceWise ? this.wordPieces(text, side === "right" ? room : Infinity) : this.otherPieces(text, places);
    if (pieces.length > room) pieces = side === "left" ? pieces.slice(pieces.length - room) : pieces.slice(0, room);
    const known = places && pieces.every(({ place }) => place !== null);
    const nowhere: Span = [0, 0];
    return {
      ids: [...this.before, ...pieces.map(({ id }) => id), ...this.after],
      offsets: known
        ? [...this.before.map(() => nowhere), ...inCodePoints(text, pieces.map(({ place }) => place as Span)), ...this.after.map(() => nowhere)]
        : null,
      special: [...this.before.map(() => true), ...pieces.map(() => false), ...this.after.map(() => true)],
    };
  }

  private id(token: string): number {
    const { added_tokens_map: added, model } = this.inner;
    const id = added.get(token)?.id ?? model.tokens_to_ids.get(token) ?? model.unk_token_id;
    if (id === undefined) throw new LeanmatchError(`the tokenizer does not know ${JSON.stringify(token)}`, "export the model again");
    return id;
  }

  /** The parts of a text between the tokens that were added to the vocabulary, and those tokens, by their places. */
  private parts(text: string, splitter: { split(text: string): string[] }): { start: number; end: number; added: boolean }[] {
    const parts: { start: number; end: number; added: boolean; token?: { lstrip: boolean; rstrip: boolean } }[] = [];
    let at = 0;
    for (const section of splitter.split(text)) {
      const token = this.inner.added_tokens_map.get(section);
      parts.push({ start: at, end: at + section.length, added: token !== undefined, token });
      at += section.length;
    }
    parts.forEach((part, index) => {
      const [left, right] = [parts[index - 1], parts[index + 1]];
      if (part.token?.lstrip && left) left.end = left.start + text.slice(left.start, left.end).trimEnd().length;
      if (part.token?.rstrip && right) right.start = right.end - text.slice(right.start, right.end).trimStart().length;
    });
    return parts;
  }

  private wordPieces(text: string, most: number): Piece[] {
    const pieces: Piece[] = [];
    const { steps, split } = this.pieceWise as { steps: Step[]; split: (text: string) => Span[] };
    const { model, tokenizer, splitter_unnormalized, splitter_normalized } = this.inner;
    const prefix = tokenizer.model.continuing_subword_prefix ?? "##";
    for (const section of this.parts(text, splitter_unnormalized)) {
      if (section.added) {
        pieces.push({ id: this.id(text.slice(section.start, section.end)), place: [section.start, section.end] });
        continue;
      }
      const normal = normalize(text.slice(section.start, section.end), steps);
      const place = (start: number, end: number): Span =>
        [section.start + normal.places[start][0], section.start + normal.places[end - 1][1]];
      for (const part of this.parts(normal.text, splitter_normalized)) {
        if (part.added) {
          pieces.push({ id: this.id(normal.text.slice(part.start, part.end)), place: place(part.start, part.end) });
          continue;
        }
        for (const [from, to] of split(normal.text.slice(part.start, part.end))) {
          if (pieces.length >= most) return pieces;
          const [start, end] = [part.start + from, part.start + to];
          const tokens = model.encode([normal.text.slice(start, end)]);
          let at = start;
          for (const token of tokens) {
            const length = tokens.length === 1 ? end - start : token.length - (at > start ? prefix.length : 0);
            pieces.push({ id: this.id(token), place: place(at, at + length) });
            at += length;
          }
        }
      }
    }
    return pieces;
  }

  /** Any other tokenizer: the library's tokens; their places where its tokens show them. */
  private otherPieces(text: string, places: boolean): Piece[] {
    const tokens = this.inner.encode_text(text);
    const found = places ? this.placesOf(tokens, text) : null;
    return tokens.map((token, index) => ({ id: this.id(token), place: found ? found[index] : null }));
  }

  /** A normalized text with its places; null where the normalizer changes more than one character with its marks. */
  private normalized(text: string): Normalized | null {
    const { normalizer } = this.inner;
    const whole = normalizer === null ? text : normalizer(text);
    for (const parts of [/./gsu, CLUSTER]) {
      const normal: Normalized = { text: "", places: [] };
      let at = 0;
      for (const [part] of text.matchAll(parts)) {
        const become = normalizer === null ? part : normalizer(part);
        normal.text += become;
        for (let unit = 0; unit < become.length; unit++) normal.places.push([at, at + part.length]);
        at += part.length;
      }
      if (normal.text === whole) return normal;
    }
    return null;
  }

  private placesOf(tokens: readonly string[], text: string): Span[] | null {
    const { pre_tokenizer: words, model } = this.inner.tokenizer;
    const normal = this.normalized(text);
    if (normal === null) return null;
    const kinds = [words?.type, ...(words?.pretokenizers ?? []).map(({ type }) => type)];
    const place = (start: number, end: number): Span => [normal.places[start][0], normal.places[end - 1][1]];
    return kinds.includes("ByteLevel")
      ? bytePlaces(tokens, normal.text, place)
      : textPlaces(tokens, normal.text, model.continuing_subword_prefix ?? "##", place);
  }
}

/**
 * The library's tokenizer. A vocabulary of WordPiece is a list in the order of its ids (`_short_vocabulary` of
 * src/leanmatch/runtime/web/export.py); the library takes an object, which takes far longer to read.
 */
function read(file: { model?: { type?: string; vocab?: unknown; unk_token?: string } }): Inner {
  const { model } = file;
  if (model?.type !== "WordPiece" || !Array.isArray(model.vocab)) return new Tokenizer(file, {}) as unknown as Inner;
  const words = model.vocab as string[], unknown = model.unk_token as string;
  const inner = new Tokenizer({ ...file, model: { ...model, vocab: { [unknown]: words.indexOf(unknown) } } }, {}) as unknown as Inner;
  const ids = inner.model.tokens_to_ids;
  for (let id = 0; id < words.length; id++) ids.set(words[id], id);
  return inner;
}

/** A character with the marks on it, which normalizers may look at together. */
const CLUSTER = /\P{M}\p{M}*|\p{M}+/gu;

type Place = (start: number, end: number) => Span;

/** Each character of a byte-level token is a byte of the text; a space may have been put before it. */
function bytePlaces(tokens: readonly string[], text: string, place: Place): Span[] | null {
  const bytes: Span[] = [];
  let at = 0;
  for (const character of text) {
    const size = new TextEncoder().encode(character).length;
    for (let byte = 0; byte < size; byte++) bytes.push([at, at + character.length]);
    at += character.length;
  }
  const lengths = tokens.map((token) => [...token].length);
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const extra = total - bytes.length; // 1 where a space was put first
  if (extra < 0 || extra > 1 || !bytes.length) return null;
  let byte = -extra;
  return lengths.map((length) => {
    const first = bytes[Math.max(0, byte)], last = bytes[Math.max(0, byte + length - 1)];
    byte += length;
    return byte <= 0 ? place(first[0], first[0] + 1) : place(first[0], last[1]);
  });
}

/** Each token stands in the text, after the one before it; null where one does not. */
function textPlaces(tokens: readonly string[], text: string, prefix: string, place: Place): Span[] | null {
  const places: Span[] = [];
  let at = 0;
  for (const token of tokens) {
    const bare = token.startsWith(prefix) ? token.slice(prefix.length) : token.replace(/^\u2581+/, "");
    const visible = bare.replaceAll("\u2581", " ");
    const gap = /^\s*/u.exec(text.slice(at))?.[0].length ?? 0;
    if (!text.startsWith(visible, at + gap)) return null;
    const start = at + gap;
    const end = start + visible.length;
    if (end > start) places.push(place(start, end));
    else if (gap || at > 0 || text.length) places.push(place(Math.max(0, Math.min(at, text.length - 1)), Math.max(1, Math.min(at + 1, text.length))));
    else return null;
    at = visible ? end : at;
  }
  return places;
}

/** Places in UTF-16 units as places in code points. */
function inCodePoints(text: string, places: readonly Span[]): Span[] {
  const points = new Int32Array(text.length + 1);
  let count = 0;
  for (let unit = 0; unit <= text.length; unit++) {
    points[unit] = count;
    const low = unit < text.length && text.charCodeAt(unit) >= 0xd800 && text.charCodeAt(unit) <= 0xdbff;
    if (!low) count++;
  }
  return places.map(([start, end]) => [points[start], points[end]]);
}
