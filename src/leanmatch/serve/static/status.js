// The monitor: does what people ask look like what the model was trained on?

import { status } from "./api.js";
import { find, grouped, make, meter } from "./dom.js";

const EVERY_MS = 4000;
const LEVELS = { steady: "steady", noticeable: "noticeable shift", strong: "strong shift" };

const percent = (share) => `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)}%`;

function measureOf(one, enough) {
  const share = one.unit === "share";
  return make("div", { class: "measure" },
    make("small", {}, one.label),
    make("b", {}, !enough ? "\u2013" : share ? percent(one.live) : one.live.toFixed(2)),
    make("small", {}, share ? `usual: ${percent(one.reference)}` : "stability index; 0.1 is noticeable, 0.25 strong"),
    enough ? make("span", { class: `level ${one.level}` }, LEVELS[one.level]) : null);
}

function languageOf(code) {
  try {
    return code === "other" ? "others" : new Intl.DisplayNames(["en"], { type: "language" }).of(code);
  } catch {
    return code;
  }
}

function mixOf(title, rows) {
  if (rows.length < 2) return null;
  const cell = (share) => make("td", {}, meter(share, ""), make("span", {}, percent(share)));
  return make("div", { class: "mix" }, make("h3", {}, title), make("table", {},
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""), make("th", { scope: "col" }, "reference"), make("th", { scope: "col" }, "live"))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, make("th", { scope: "row" }, row.name || "(none)"), cell(row.reference), cell(row.live))))));
}

// Of a few queries no mix is shown: one query is 100% of whatever it is.
function mixesOf(drift) {
  if (!drift.enough) return [];
  const languages = drift.languages.map((row) => ({ ...row, name: languageOf(row.name) }));
  const told = drift.languages_told;
  return [
    drift.column ? mixOf(`${drift.column} of the best result`, drift.categories) : null,
    mixOf(`language of the ${grouped(told.live)} of ${grouped(told.queries)} queries that are long enough to tell`, languages),
    mixOf("writing system", drift.scripts),
    drift.languages_note ? make("p", { class: "lead" }, drift.languages_note) : null,
  ].filter(Boolean);
}

function show(found) {
  const panel = find("status");
  const drift = found.drift;
  const level = drift?.enough ? drift.verdict : "";
  find("status-dot").className = `dot ${level}`;
  find("status-label").textContent = level ? `Monitor: ${LEVELS[level]}` : "Monitor";
  if (!drift) {
    panel.replaceChildren(make("h2", {}, "Monitor"), make("p", { class: "lead" }, "It is being prepared."));
    return;
  }
  const lead = drift.enough
    ? `The last ${grouped(drift.queries)} queries against ${grouped(drift.reference.queries)} of ${drift.reference.source}.`
    : `${drift.queries} of the ${drift.needed} queries that a verdict needs. Reference: ${drift.reference.source}.`;
  panel.replaceChildren(
    make("header", {}, make("h2", {}, "Do people ask what the model was trained on?"),
      level ? make("span", { class: `level ${level}` }, LEVELS[level]) : null),
    make("p", { class: "lead" }, lead),
    make("div", { class: "measures" }, ...drift.measures.map((one) => measureOf(one, drift.enough))),
    ...mixesOf(drift));
}

export function statusPanel() {
  const button = find("status-button");
  const panel = find("status");
  let timer = 0;

  async function refresh() {
    try {
      show(await status());
    } catch (problem) {
      panel.replaceChildren(make("h2", {}, "Monitor"), make("p", { class: "lead" }, problem.message));
    }
  }
  button.addEventListener("click", () => {
    panel.hidden = !panel.hidden;
    button.setAttribute("aria-expanded", String(!panel.hidden));
    clearInterval(timer);
    if (!panel.hidden) {
      refresh().then(() => panel.scrollIntoView({ block: "nearest" }));  // it stands below the results
      timer = setInterval(refresh, EVERY_MS);
    }
  });
  return { refresh };
}
