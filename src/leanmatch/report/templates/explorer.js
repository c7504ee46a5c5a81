"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const PAGE = 20;
  const MINUS = "\u2212";
  const models = [["base", data.against], ["model", data.name]];
  let shown = [];
  let drawn = 0;

  const number = (x, digits = 2, sign = false) => {
    const text = Math.abs(x).toFixed(digits);
    const zero = Number(text) === 0;
    return (zero ? "" : x < 0 ? MINUS : sign ? "+" : "") + text;
  };
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  for (const pair of data.pairs) {
    const sides = [pair.anchor, pair.positive];
    pair.text = sides.map((side) => side.text.toLowerCase()).join("\n");
    pair.top = Math.max(1e-9, ...sides.flatMap((side) => models.flatMap(([key]) => side.units[key].map((u) => Math.abs(u.effect)))));
    pair.moved = 0;
    for (const side of sides) {
      const before = new Map(side.units.base.map((u) => [u.start + ":" + u.end, u.effect]));
      for (const unit of side.units.model) {
        const key = unit.start + ":" + unit.end;
        if (before.has(key)) pair.moved += Math.abs(unit.effect - before.get(key));
      }
    }
    pair.lost = pair.rank && pair.base_rank ? 1 / pair.base_rank - 1 / pair.rank : -1;
  }

  const orders = {
    worst: (a, b) => a.gain - b.gain,
    best: (a, b) => b.gain - a.gain,
    change: (a, b) => Math.abs(b.gain) - Math.abs(a.gain),
    rank: (a, b) => b.lost - a.lost || a.gain - b.gain,
    moved: (a, b) => b.moved - a.moved,
  };

  /* Offsets count code points, as Python does; strings here count UTF-16 units. */
  const coloured = (side, key, top, wanted) => {
    const line = make("p", "text");
    line.dir = "auto";
    const points = Array.from(side.text);
    if (!side.text.trim()) {
      line.classList.add("empty");
      line.textContent = "(no text)";
      return line;
    }
    const piece = (from, to) => points.slice(from, to).join("");
    const plain = (from, to) => {
      if (to <= from) return;
      const read = Math.min(Math.max(side.read[key], from), to);
      if (read > from) line.append(piece(from, read));
      if (to > read) line.append(make("span", "unread", piece(read, to)));
    };
    let at = 0;
    for (const unit of side.units[key]) {
      plain(at, unit.start);
      const share = Math.min(1, Math.abs(unit.effect) / top);
      const span = make("span", "w " + (unit.effect < 0 ? "neg" : "pos") + (share < 0.15 ? " faint" : ""), piece(unit.start, unit.end));
      span.style.setProperty("--a", share.toFixed(3));
      span.title = number(unit.effect, 3, true);
      if (wanted && span.textContent.toLowerCase() === wanted) span.classList.add("hit");
      line.append(span);
      at = unit.end;
    }
    plain(at, points.length);
    if (side.length > points.length) line.append(make("span", "unread", " \u2026"));
    return line;
  };

  const numbers = (pair) => {
    const table = make("table");
    const head = table.createTHead().insertRow();
    for (const [text, kind] of [["side", ""], ["word", ""], [data.against, "n"], [data.name, "n"], ["change", "n"]]) {
      const cell = make("th", kind, text);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const [name, side] of [["anchor", pair.anchor], ["positive", pair.positive]]) {
      const rows = new Map();
      for (const [key] of models)
        for (const unit of side.units[key]) {
          const place = unit.start + ":" + unit.end;
          rows.set(place, { ...rows.get(place), start: unit.start, text: unit.text, [key]: unit.effect });
        }
      for (const row of [...rows.values()].sort((a, b) => a.start - b.start)) {
        const line = body.insertRow();
        line.append(make("td", "", name), make("td", "", row.text));
        const both = row.base !== undefined && row.model !== undefined;
        for (const value of [row.base, row.model, both ? row.model - row.base : undefined])
          line.append(make("td", "n", value === undefined ? "\u2013" : number(value, 3, true)));
      }
    }
    const box = make("div", "scroll");
    box.append(table);
    return box;
  };

  const card = (pair, wanted) => {
    const node = make("article");
    node.tabIndex = -1;
    node.dataset.row = pair.row;
    const change = pair.score - pair.base_score;
    node.setAttribute("aria-label", `score from ${number(pair.base_score)} to ${number(pair.score)}`);
    const head = make("header");
    head.append(make("span", "change " + (pair.gain < 0 ? "worse" : "better"), number(change, 2, true)));
    head.append(make("span", "", `score ${number(pair.base_score)} \u2192 ${number(pair.score)}`));
    if (pair.rank && pair.base_rank) head.append(make("span", "", `rank ${pair.base_rank.toLocaleString("en")} \u2192 ${pair.rank.toLocaleString("en")}`));
    if (!pair.label) head.append(make("span", "", "does not match: lower is better"));
    for (const name of pair.slices.filter((one) => data.slices.includes(one))) head.append(make("span", "tag", name));
    const sides = make("div", "sides");
    for (const [key, name] of models) {
      const column = make("div");
      column.append(make("h4", "", name));
      column.append(coloured(pair.anchor, key, pair.top, wanted), coloured(pair.positive, key, pair.top, wanted));
      sides.append(column);
    }
    const details = make("details");
    details.append(make("summary", "", "numbers"));
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(numbers(pair));
    });
    node.append(head, sides, details);
    return node;
  };

  const draw = () => {
    const wanted = $("search").value.trim().toLowerCase();
    const until = Math.min(shown.length, drawn + PAGE);
    for (; drawn < until; drawn++) $("list").append(card(shown[drawn], wanted));
    const first = $("list").firstElementChild;
    if (first && !$("list").querySelector('[tabindex="0"]')) first.tabIndex = 0;
    $("more").hidden = drawn >= shown.length;
    $("count").textContent = shown.length
      ? `${drawn} of ${shown.length} pairs` + (shown.length < data.pairs.length ? ` (${data.pairs.length} in all)` : "")
      : "No pair fits.";
  };

  const update = () => {
    const slice = $("slice").value;
    const label = $("label").value;
    const wanted = $("search").value.trim().toLowerCase();
    shown = data.pairs
      .filter((p) => !slice || p.slices.includes(slice))
      .filter((p) => !label || String(p.label) === label)
      .filter((p) => !wanted || p.text.includes(wanted))
      .sort(orders[$("sort").value]);
    drawn = 0;
    $("list").replaceChildren();
    draw();
  };

  const focusCard = (node) => {
    if (!node) return;
    for (const other of $("list").querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    node.tabIndex = 0;
    node.focus();
    node.scrollIntoView({ block: "nearest" });
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) {
      event.preventDefault();
      $("search").focus();
    } else if (event.key === "Escape" && event.target === $("search")) {
      $("search").value = "";
      update();
    } else if (!typing && (event.key === "j" || event.key === "k")) {
      const now = document.activeElement.closest("article");
      if (!now) focusCard($("list").querySelector('[tabindex="0"]'));
      else if (event.key === "k") focusCard(now.previousElementSibling);
      else {
        if (!now.nextElementSibling) draw();
        focusCard(now.nextElementSibling);
      }
    } else if (event.key === "Enter" && event.target.tagName === "ARTICLE") {
      const details = event.target.querySelector("details");
      details.open = !details.open;
    }
  });

  for (const name of data.slices) {
    const count = data.pairs.filter((p) => p.slices.includes(name)).length;
    if (!count) continue;
    const option = make("option", "", `${name} (${count})`);
    option.value = name;
    $("slice").append(option);
  }
  $("label-box").hidden = new Set(data.pairs.map((p) => p.label)).size < 2;
  for (const id of ["sort", "slice", "label"]) $(id).addEventListener("change", update);
  $("search").addEventListener("input", update);
  $("more").addEventListener("click", draw);
  for (const button of document.querySelectorAll("button.word"))
    button.addEventListener("click", () => {
      $("search").value = button.dataset.word;
      update();
      $("pairs").scrollIntoView();
      $("search").focus({ preventScroll: true });
    });
  update();
})();
