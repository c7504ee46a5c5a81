// Results, the words that carried each match, and what stands there instead of results. Two pages have it: the server's and a site's.

import { find, make, meter } from "./dom.js";

const SPOKEN_WORDS = 3;

// The text with its words marked: the stronger the colour, the more the score falls without the word.
function marked(text, words, strongest) {
  const characters = [...text];   // offsets count code points
  const parts = [];
  let at = 0;
  for (const word of [...words].sort((a, b) => a.start - b.start)) {
    if (word.start < at) continue;
    parts.push(characters.slice(at, word.start).join(""));
    const share = strongest > 0 ? word.importance / strongest : 0;
    const body = characters.slice(word.start, word.end).join("");
    if (share < 0.06 && share > -0.15) parts.push(body);
    else {
      const mark = make("mark", { class: share < 0 ? "against" : "", title: word.importance.toFixed(3) }, body);
      mark.style.setProperty("--weight", (0.1 + 0.45 * Math.min(1, Math.abs(share))).toFixed(3));
      parts.push(mark);
    }
    at = word.end;
  }
  parts.push(characters.slice(at).join(""));
  return parts;
}

function spoken(text, words) {
  const characters = [...text];
  const best = [...words].filter((word) => word.importance > 0).sort((a, b) => b.importance - a.importance);
  return best.slice(0, SPOKEN_WORDS).map((word) => characters.slice(word.start, word.end).join("")).join(", ") || "none";
}

export function resultOf(one, query) {
  const why = one.explanation;
  const strongest = why ? Math.max(1e-9, ...[...why.query, ...why.item].map((word) => Math.abs(word.importance))) : 0;
  // Of a hybrid search: what its score is made of, and the terms that query and item share.
  const parts = one.lexical === undefined ? [] : [["cosine", one.cosine.toFixed(3)], ["terms", one.lexical.toFixed(3)]];
  const shared = why?.terms ? `Terms in both: ${why.terms.join(", ") || "none"}.` : null;
  const meta = [...parts, ...Object.entries(one.metadata)];
  return make("li", { class: "result" },
    make("p", { class: "text" }, ...(why ? marked(one.text, why.item, strongest) : [one.text])),
    make("p", { class: "score" }, make("span", { class: "unseen" }, "score "), one.score.toFixed(3), meter(one.score, "")),
    why ? make("p", { class: "asked" }, make("b", {}, "you asked"), ...marked(query, why.query, strongest),
      make("span", { class: "unseen" }, `. Carried by ${spoken(query, why.query)}, and in the item by ${spoken(one.text, why.item)}.`),
      shared === null ? null : make("span", { class: "terms" }, shared)) : null,
    make("dl", { class: "meta" }, make("div", {}, make("dt", {}, "id"), make("dd", {}, one.id)),
      ...meta.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value))))));
}

export function showResults(found, query) {
  const list = find("results");
  list.replaceChildren(...found.map((one) => resultOf(one, query)));
  find("legend").hidden = !found.some((one) => one.explanation);
}

function showBlank(title, text, ...more) {
  find("legend").hidden = true;
  find("results").replaceChildren(make("li", { class: "blank" }, make("strong", {}, title), text, ...more));
}

// Nothing passes the filters; `clear` takes them away, null where there are none.
export function showNone(clear) {
  const button = make("button", { type: "button", class: "quiet" }, "Clear filters");
  button.addEventListener("click", () => clear());
  showBlank("Nothing passes the filters", "No item fits all of them.", clear && make("p", {}, button));
  say("0 results");
}

// Before anything is asked. `ask` gets the sample that somebody chose.
export function showStart(samples, ask) {
  find("results").removeAttribute("aria-busy");
  const tries = samples.map((text) => {
    const one = make("button", { type: "button", class: "quiet" }, text);
    one.addEventListener("click", () => ask(text));
    return one;
  });
  showBlank("Ask in your own words", "A phrase, a title, a question: what matters is what it means.",
    ...(tries.length ? [make("p", { class: "tries-lead" }, "For example, from this catalogue:"), make("div", { class: "tries" }, ...tries)] : []));
  say("");
}

export function say(text, problem = false, ...more) {
  const message = find("message");
  message.className = problem ? "message problem" : "message";
  message.replaceChildren(text, ...more);
}
