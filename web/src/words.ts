// Words of a text as its writer sees them, and which tokens belong to which word. The rules, and the numbers, are
// those of leanmatch.interventions.words.splitting; all places count code points.

export type Span = [start: number, end: number];

/** One thing to delete: a place in the text, and the positions of its tokens. */
export interface Unit { start: number; end: number; tokens: number[] }

const SPACE = /^[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]$/u;
const CONTROL = /^\p{Cc}$/u;
const LETTER = /^\p{L}$/u;
const DIGIT = /^\p{Nd}$/u;
const IN_WORD = /^[\p{L}\p{N}]$/u;
const MARK = /^\p{M}$/u;
const JOINER = "\u200d";

const code = (character: string) => character.codePointAt(0) as number;
const isSpace = (character: string) => SPACE.test(character);

function isIdeograph(character: string): boolean {
  const at = code(character);
  return (at >= 0x3400 && at <= 0x9fff) || (at >= 0xf900 && at <= 0xfaff) || (at >= 0x20000 && at <= 0x3ffff);
}

const inWord = (character: string) => IN_WORD.test(character) && !isIdeograph(character);
const isFlag = (character: string) => code(character) >= 0x1f1e6 && code(character) <= 0x1f1ff;

function extends_(character: string): boolean {
  const at = code(character);
  return MARK.test(character) || character === JOINER || (at >= 0x1f3fb && at <= 0x1f3ff) || (at >= 0xe0020 && at <= 0xe007f);
}

/** End of one character with all that is drawn with it: marks, variation selectors, joined emoji. */
function endOfCluster(text: readonly string[], start: number): number {
  let end = start + 1;
  if (isFlag(text[start]) && end < text.length && isFlag(text[end])) end++;
  while (end < text.length) {
    const joined = text[end - 1] === JOINER && !isSpace(text[end]) && !inWord(text[end]);
    if (!extends_(text[end]) && !joined) break;
    end++;
  }
  return end;
}

function joins(before: string, character: string, after: string): boolean {
  if (character === "'" || character === "\u2019") return LETTER.test(before) && LETTER.test(after) && inWord(after);
  return (character === "." || character === ",") && DIGIT.test(before) && DIGIT.test(after);
}

function endOfWord(text: readonly string[], start: number): number {
  let end = endOfCluster(text, start);
  if (!inWord(text[start])) return end;
  while (end < text.length) {
    if (inWord(text[end])) end = endOfCluster(text, end);
    else if (end + 1 < text.length && joins(text[end - 1], text[end], text[end + 1])) end = endOfCluster(text, end + 1);
    else break;
  }
  return end;
}

/** The words of a text given as its code points: runs of letters and digits; every other symbol by itself. */
export function splitWords(text: readonly string[]): Span[] {
  const spans: Span[] = [];
  let start = 0;
  while (start < text.length) {
    if (isSpace(text[start]) || CONTROL.test(text[start])) {
      start++;
      continue;
    }
    const end = endOfWord(text, start);
    spans.push([start, end]);
    start = end;
  }
  return spans;
}

/**
 * The words that can be deleted. A token goes to the word that it lies in; one that touches several words makes them
 * one; one without a visible character goes with the next word.
 */
export function wordUnits(text: readonly string[], offsets: readonly Span[], editable: readonly number[]): Unit[] {
  const words = splitWords(text);
  const units: Unit[] = [];
  let reach = -1; // the last word of the unit that is being built
  let waiting: number[] = []; // tokens without visible characters
  for (const position of editable) {
    const [start, end] = trimmed(text, offsets[position]);
    const first = count(words, (word) => word[1] <= start);
    const last = count(words, (word) => word[0] < end);
    if (start === end || first >= last) {
      waiting.push(position);
      continue;
    }
    const old = units.at(-1);
    if (old && first <= reach) {
      old.end = Math.max(old.end, words[last - 1][1]);
      old.tokens.push(...waiting, position);
    } else {
      units.push({ start: words[first][0], end: words[last - 1][1], tokens: [...waiting, position] });
    }
    reach = Math.max(reach, last - 1);
    waiting = [];
  }
  if (waiting.length) {
    const old = units.at(-1);
    if (old) old.tokens.push(...waiting);
    else { // nothing visible at all
      const [start] = trimmed(text, offsets[waiting[0]]);
      const [, end] = trimmed(text, offsets[waiting.at(-1) as number]);
      units.push({ start, end, tokens: waiting });
    }
  }
  return units;
}

/** How many words, from the first, fulfil what no later word does. */
function count(words: readonly Span[], test: (word: Span) => boolean): number {
  let low = 0, high = words.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (test(words[middle])) low = middle + 1;
    else high = middle;
  }
  return low;
}

function trimmed(text: readonly string[], [start, end]: Span): Span {
  while (start < end && isSpace(text[start])) start++;
  while (start < end && isSpace(text[end - 1])) end--;
  return [start, end];
}
