// BERT's own way from text to words, with the place of each character: as the Rust library of Hugging Face does it,
// character by character. That library goes by Unicode tables of its own; where they differ from the browser's, the
// ranges below say so (tests/web compares all code points).

import type { Span } from "./words.js";

/** Some characters of normalized text, and the place in the source that each came from (UTF-16 units). */
export interface Normalized { text: string; places: Span[] }

function inRanges(ranges: string): (at: number) => boolean {
  const bounds = ranges.trim().split(/\s+/).map((range) => range.split("-").map((end) => parseInt(end, 16)));
  const least = bounds[0][0];
  return (at) => {
    if (at < least) return false;
    let low = 0, high = bounds.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((bounds[middle][1] ?? bounds[middle][0]) < at) low = middle + 1;
      else high = middle;
    }
    return low < bounds.length && bounds[low][0] <= at;
  };
}

/** Marks and format characters that stay. */
const KEPT = inRanges(`
  7fd 890-891 897-89f 8ca-8e2 9fe afa-aff b55 c04 c3c d00 d3b-d3c d81 eba ece 180f 1885-1886 1abf-1add
  1ae0-1aeb 1df6-1dfb a82c a8c5 a8ff a9bd 10d24-10d27 10d69-10d6d 10eab-10eac 10efa-10eff 10f46-10f50
  10f82-10f85 11070 11073-11074 110c2 110cd 111c9 111cf 1123e 11241 1133b 113bb-113c0 113ce 113d0 113d2
  113e1-113e2 11438-1143f 11442-11444 11446 1145e 1182f-11837 11839-1183a 1193b-1193c 1193e 11943
  119d4-119d7 119da-119db 119e0 11a01-11a0a 11a33-11a38 11a3b-11a3e 11a47 11a51-11a56 11a59-11a5b
  11a8a-11a96 11a98-11a99 11b60 11b62-11b64 11b66 11c30-11c36 11c38-11c3d 11c3f 11c92-11ca7 11caa-11cb0
  11cb2-11cb3 11cb5-11cb6 11d31-11d36 11d3a 11d3c-11d3d 11d3f-11d45 11d47 11d90-11d91 11d95 11d97
  11ef3-11ef4 11f00-11f01 11f36-11f3a 11f40 11f42 11f5a 13430-13440 13447-13455 1611e-16129 1612d-1612f
  16f4f 16fe4 1cf00-1cf2d 1cf30-1cf46 1e000-1e006 1e008-1e018 1e01b-1e021 1e023-1e024 1e026-1e02a 1e08f
  1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef 1e5ee-1e5ef 1e6e3 1e6e6 1e6ee-1e6ef 1e6f5 1e944-1e94a`);
/** Spacing marks that go. */
const REMOVED = inRanges(`
  1734 1171e`);
/** Punctuation that does not end a word. */
const NO_PUNCTUATION = inRanges(`
  61d 9fd a76 c77 c84 1b4e-1b4f 1b7d-1b7f 2e43-2e4f 2e52-2e5d 10d6e 10ead 10ed0 10f55-10f59 10f86-10f89
  113d4-113d5 113d7-113d8 1144b-1144f 1145a-1145b 1145d 11660-1166c 116b9 1183b 11944-11946 119e2
  11a3f-11a46 11a9a-11a9c 11a9e-11aa2 11b00-11b09 11be1 11c41-11c45 11c70-11c71 11ef7-11ef8 11f43-11f4f
  11fff 12ff1-12ff2 16d6d-16d6f 16e97-16e9a 16fe2 1e5ff 1e95e-1e95f`);
/** Other characters that do. */
const PUNCTUATION = inRanges(`
  166d 111c9`);

const CONTROL = /^[\p{Cc}\p{Cf}\p{Co}\p{Cs}]$/u;
const MARKS = /\p{Mn}/gu;
const SPACE = /^[\s\x85]$/u;
const PUNCTUATION_MARK = /^[\p{P}!-/:-@[-`{-~]$/u;

function isIdeograph(at: number): boolean {
  return (
    (at >= 0x4e00 && at <= 0x9fff) || (at >= 0x3400 && at <= 0x4dbf) || (at >= 0x20000 && at <= 0x2a6df) ||
    (at >= 0x2a700 && at <= 0x2b81f) || (at >= 0x2b920 && at <= 0x2ceaf) || (at >= 0xf900 && at <= 0xfaff) ||
    (at >= 0x2f800 && at <= 0x2fa1f)
  );
}

/** What a character becomes; "" where it goes. */
export type Step = (character: string) => string;

interface NormalizerConfig {
  type: string;
  normalizers?: NormalizerConfig[];
  clean_text?: boolean;
  handle_chinese_chars?: boolean;
  strip_accents?: boolean | null;
  lowercase?: boolean;
}

/** The steps of a normalizer that works character by character; null for any other. */
export function stepsOf(config: NormalizerConfig): Step[] | null {
  if (config.type === "Lowercase") return [lower];
  if (config.type === "BertNormalizer") return [bertStep(config)];
  if (config.type !== "Sequence") return null;
  const parts = (config.normalizers ?? []).map(stepsOf);
  return parts.every((part) => part !== null) ? (parts as Step[][]).flat() : null;
}

export const lower: Step = (character) => character.toLowerCase(); // one at a time: no final sigma, as in Rust

function bertStep({ clean_text = true, handle_chinese_chars = true, strip_accents, lowercase = true }: NormalizerConfig): Step {
  const accents = strip_accents ?? lowercase;
  const step: Step = (character) => {
    const at = character.codePointAt(0) as number;
    let out = character;
    if (clean_text) {
      if (at === 0 || at === 0xfffd || REMOVED(at)) return "";
      if (CONTROL.test(character) && !"\t\n\r".includes(character) && !KEPT(at)) return "";
      if (SPACE.test(character)) out = " ";
    }
    if (accents) out = out.normalize("NFD").replace(MARKS, (mark) => (KEPT(mark.codePointAt(0) as number) ? mark : ""));
    if (lowercase) out = out.toLowerCase();
    return handle_chinese_chars && isIdeograph(at) ? ` ${out} ` : out;
  };
  const plain = Array.from({ length: 128 }, (_, at) => step(String.fromCharCode(at)));
  return (character) => {
    const at = character.charCodeAt(0);
    return at < 128 ? plain[at] : step(character);
  };
}

/** Run the steps over a text. */
export function normalize(text: string, steps: readonly Step[]): Normalized {
  let out = "";
  const places: Span[] = [];
  let at = 0;
  for (const character of text) {
    let become = [character];
    for (const step of steps) become = become.flatMap((one) => [...step(one)]);
    const place: Span = [at, at + character.length];
    for (const one of become) {
      out += one;
      for (let unit = 0; unit < one.length; unit++) places.push(place);
    }
    at += character.length;
  }
  return { text: out, places };
}

/** How a pre-tokenizer splits a text, by the places of its words; null for one that is not known here. */
export function splitterOf(type: string | undefined): ((text: string) => Span[]) | null {
  if (type === "BertPreTokenizer") return bertWords;
  const pattern = { Whitespace: WORD_RUNS, WhitespaceSplit: /[^\s\x85]+/gu }[type ?? ""];
  if (!pattern) return null;
  return (text) => Array.from(text.matchAll(pattern), ({ 0: word, index }) => [index, index + word.length]);
}

/** Rust's `\w+|[^\w\s]+`. */
const WORD_RUNS = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d\s\x85]+/gu;

/** Words and single punctuation marks. */
function bertWords(text: string): Span[] {
  const spans: Span[] = [];
  let start = -1;
  let at = 0;
  const close = () => {
    if (start >= 0) spans.push([start, at]);
    start = -1;
  };
  for (const character of text) {
    const point = character.codePointAt(0) as number;
    if (SPACE.test(character) && point !== 0xfeff) close();
    else if (PUNCTUATION(point) || (PUNCTUATION_MARK.test(character) && !NO_PUNCTUATION(point))) {
      close();
      spans.push([at, at + character.length]);
    } else if (start < 0) start = at;
    at += character.length;
  }
  close();
  return spans;
}
