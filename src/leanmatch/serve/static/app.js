// The page: what is typed, what is asked, what is shown.

import { catalogue, recommend, useKey } from "./api.js";
import { find, grouped, make } from "./dom.js";
import { filterFields } from "./filters.js";
import { say, showNone, showResults, showStart } from "./results.js";
import { statusPanel } from "./status.js";
import { combobox } from "./suggestions.js";

const RESULTS = 10;
const RETRY_MS = 700;
const SWITCHES = ["explain", "rerank"];   // options of a request, and of the address

let filters = null;
let asking = null;
let samples = [];

function failed(problem) {
  find("results").replaceChildren();
  find("legend").hidden = true;
  find("key-form").hidden = problem.status !== 401;
  const again = make("button", { type: "button", class: "quiet" }, "Try again");
  again.addEventListener("click", () => (filters ? show() : begin()));
  say(problem.message, true, again);
}

// What is asked stands in the address, behind the # (which no server sees): it can be shared, and Back works.
function keep() {
  const asked = new URLSearchParams();
  const query = find("query").value.trim();
  const filter = filters?.read();
  if (query) asked.set("q", query);
  if (filter) asked.set("filter", JSON.stringify(filter));
  for (const name of SWITCHES) if (find(name).checked) asked.set(name, "1");
  const hash = asked.toString() ? `#${asked}` : "";
  if (hash === location.hash) return;
  history.pushState(null, "", hash || location.pathname);
}

// The fields as the address has them.
function recall() {
  const asked = new URLSearchParams(location.hash.slice(1));
  let filter = null;
  try {
    filter = JSON.parse(asked.get("filter") ?? "null");
  } catch { /* somebody else wrote it */ }
  find("query").value = asked.get("q") ?? "";
  for (const name of SWITCHES) find(name).checked = asked.get(name) === "1" && !find(name).closest("label").hidden;
  filters.show(filter);
  show();
}

function search() {
  keep();
  return show();
}

async function show() {
  const query = find("query").value.trim();
  asking?.abort();
  if (!query) return rest();
  asking = new AbortController();
  const { signal } = asking;
  const list = find("results");
  list.setAttribute("aria-busy", "true");
  try {
    const body = { texts: [query], k: RESULTS, exclude_self: false };
    for (const name of SWITCHES) body[name] = find(name).checked;
    const filter = filters?.read();
    if (filter) body.filter = filter;
    const begin = performance.now();
    const found = (await recommend(body, signal)).results[0].recommendations;
    const ms = performance.now() - begin;
    if (!found.length) {
      showNone(filter ? () => filters.clear() : null);
    } else {
      showResults(found, query);
      say(`${found.length} result${found.length === 1 ? "" : "s"} in ${ms.toFixed(0)} ms`);
    }
  } catch (problem) {
    if (problem.name !== "AbortError") failed(problem);
  } finally {
    if (!signal.aborted) list.removeAttribute("aria-busy");
  }
}

function ask(text) {
  find("query").value = text;
  search();
}

function rest() {
  find("key-form").hidden = true;
  showStart(samples, ask);
}

async function begin() {
  say("Getting ready");
  let found;
  try {
    found = await catalogue();
  } catch (problem) {
    if (problem.status === 503) {
      say(problem.message);
      setTimeout(begin, RETRY_MS);
      return;
    }
    failed(problem);
    return;
  }
  find("about").textContent = `${grouped(found.items)} items, model ${found.model}`;
  samples = found.samples ?? [];
  find("rerank-switch").hidden = !found.reranker;
  find("rerank-switch").title = found.reranker ? `The best items reranked by ${found.reranker}` : "";
  filters = filterFields(found.columns, search);
  panel.refresh();
  if (location.hash) recall();
  else show();  // what was typed meanwhile, or the start page
}

const panel = statusPanel();
const box = combobox(() => search());
find("search").addEventListener("submit", (event) => {
  event.preventDefault();
  box.close();
  search();
});
for (const name of SWITCHES) find(name).addEventListener("change", () => search());
addEventListener("popstate", () => { if (filters) recall(); });
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key").value.trim());
  find("key-form").hidden = true;
  if (filters) show();
  else begin();
});
begin();
