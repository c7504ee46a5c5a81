// The page: what is typed, what is searched, what is shown. Nothing leaves the browser.

import { find, grouped, make } from "./dom.js";
import { filterFields } from "./filters.js";
import { load, openCatalogue } from "./leanmatch.js";
import { resultOf, say, showNone, showResults, showStart } from "./results.js";

const RESULTS = 10;
const PAUSE_MS = 60; // between a key and its search
const KEPT_BYTES = 60e6; // catalogues up to this are kept for use without a network

let filters = null;
let model = null;
let catalogue = null;
let searching = null;
let timer = 0;
let replaced = false; // by a newer page

function sentence(problem) {
  const text = String(problem?.message ?? problem);
  const begun = /^[a-z]+ /.test(text) ? text[0].toUpperCase() + text.slice(1) : text; // names of files stay
  return begun + (/[.!?]$/.test(begun) ? "" : ".");
}

function failed(problem) {
  find("results").replaceChildren();
  find("legend").hidden = true;
  const again = make("button", { type: "button", class: "quiet" }, "Try again");
  again.addEventListener("click", () => (model && catalogue ? show() : begin()));
  say(sentence(problem), true, again);
}

// What is asked stands in the address, behind the #: it can be shared, and Back works.
function keep(pushed) {
  const asked = new URLSearchParams();
  const query = find("query").value.trim();
  const filter = filters?.read();
  if (query) asked.set("q", query);
  if (filter) asked.set("filter", JSON.stringify(filter));
  if (find("explain").checked) asked.set("explain", "1");
  const hash = asked.toString() ? `#${asked}` : "";
  if (hash === location.hash) return;
  history[pushed ? "pushState" : "replaceState"](null, "", hash || location.pathname);
}

function recall() {
  const asked = new URLSearchParams(location.hash.slice(1));
  let filter = null;
  try {
    filter = JSON.parse(asked.get("filter") ?? "null");
  } catch { /* somebody else wrote it */ }
  find("query").value = asked.get("q") ?? "";
  find("explain").checked = asked.get("explain") === "1";
  filters.show(filter);
  show();
}

function search(pushed = true) {
  clearTimeout(timer);
  keep(pushed);
  return show();
}

async function show() {
  if (!model || !catalogue) return; // begin() shows what was typed meanwhile
  searching?.abort();
  const query = find("query").value.trim();
  if (!query) return showStart(catalogue.samples, ask);
  searching = new AbortController();
  const { signal } = searching;
  const list = find("results");
  list.setAttribute("aria-busy", "true");
  try {
    const filter = filters.read();
    const begun = performance.now();
    const found = await model.search(catalogue, query, { k: RESULTS, filter, signal });
    const ms = performance.now() - begun;
    if (signal.aborted) return;
    if (!found.length) {
      showNone(filter ? () => filters.clear() : null);
      return;
    }
    showResults(found, query);
    for (const one of list.children) one.tabIndex = -1;
    say(`${found.length} result${found.length === 1 ? "" : "s"} in ${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`);
    list.removeAttribute("aria-busy");
    if (find("explain").checked) await explain(found, query, signal);
  } catch (problem) {
    if (problem.name !== "AbortError") failed(problem);
  } finally {
    if (!signal.aborted) list.removeAttribute("aria-busy");
  }
}

// One result after the other gets its colours; a new search ends it.
async function explain(found, query, signal) {
  for (const [at, one] of found.entries()) {
    const explanation = await model.explain(catalogue, query, one.id, { signal });
    if (signal.aborted) return;
    const old = find("results").children[at];
    const explained = resultOf({ ...one, explanation }, query);
    explained.tabIndex = -1;
    const focused = old === document.activeElement;
    old.replaceWith(explained);
    if (focused) explained.focus({ preventScroll: true });
    find("legend").hidden = false;
  }
}

function ask(text) {
  find("query").value = text;
  search();
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

// One bar for the model and the vectors together.
function progressBar() {
  const parts = {};
  const bar = find("loading-bar");
  find("loading-what").textContent = "Loading the model and the catalogue";
  find("loading-bytes").textContent = "";
  bar.removeAttribute("value");
  find("loading").hidden = false;
  return (name) => (loaded, total) => {
    parts[name] = [loaded, total];
    const [come, all] = Object.values(parts).reduce(([a, b], [x, y]) => [a + x, b + y], [0, 0]);
    bar.value = all ? come / all : 0;
    find("loading-bytes").textContent = `${megabytes(come)} of ${megabytes(all)} MB`;
  };
}

async function begin() {
  say("");
  const progress = progressBar();
  const loading = new AbortController();
  const { signal } = loading;
  const coming = load("model/", { progress: progress("model"), signal });
  try {
    [model, catalogue] = await Promise.all([coming, openWith(progress, signal)]);
  } catch (problem) {
    loading.abort();
    coming.then((loaded) => loaded.close(), () => undefined);
    failed(problem);
    return;
  } finally {
    find("loading").hidden = true;
  }
  if (location.hash && !find("query").value) recall();
  else show(); // what was typed meanwhile, or the start page
  await stayUsable();
}

async function openWith(progress, signal) {
  const [site, opened] = await Promise.all([description(), openCatalogue("catalogue/", { signal })]);
  document.title = find("title").textContent = site.title;
  find("about").textContent = `${grouped(opened.items)} items, model ${site.model}`;
  if (!filters) filters = filterFields(opened.columns, search);
  await opened.load({ progress: progress("vectors"), signal });
  return opened;
}

async function description() {
  let site = null;
  try {
    site = await (await fetch("site.json", { cache: "no-cache" })).json();
  } catch { /* the catalogue says what is wrong */ }
  return { title: site?.title ?? "leanmatch", model: site?.model ?? "" };
}

// A page that a service worker gave may be older than the site. The new page's worker takes over as soon as it is there.
function watchForNewPage() {
  let first = !navigator.serviceWorker?.controller; // at a first visit one takes over that is no newer
  let used = false;
  for (const kind of ["keydown", "pointerdown"]) addEventListener(kind, () => { used = true; }, { once: true, capture: true });
  navigator.serviceWorker?.addEventListener("controllerchange", () => {
    if (first) {
      first = false;
      return;
    }
    if (!used) return location.reload(); // the address holds all that is asked
    const again = make("button", { type: "button", class: "quiet" }, "Load the new page");
    again.addEventListener("click", () => location.reload());
    replaced = true;
    find("offline").replaceChildren("This page was replaced by a newer one. ", again);
  });
}

// From here on the page needs no network: the service worker keeps the page, the browser's cache keeps the data.
async function stayUsable() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" });
    await navigator.serviceWorker.ready;
    const kept = catalogue.bytes <= KEPT_BYTES && (await catalogue.keep());
    if (kept && !replaced) find("offline").textContent = "It works without a network from now on.";
  } catch { /* it works with a network */ }
}

const query = find("query");
find("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
query.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => search(false), PAUSE_MS);
});
find("explain").addEventListener("change", () => search());
watchForNewPage();
addEventListener("popstate", () => { if (filters && catalogue) recall(); });

// Up and down walk through the results, / goes to the field, Escape clears it.
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input:not([type=checkbox]), select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    query.select();
    query.focus();
  } else if (event.key === "Escape" && event.target === query && query.value) {
    event.preventDefault();
    query.value = "";
    search();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (event.target === query || event.target.closest?.(".result"))) {
    const results = [...find("results").querySelectorAll(".result")];
    const at = results.indexOf(event.target.closest(".result")) + (event.key === "ArrowDown" ? 1 : -1);
    if (at < -1 || at >= results.length) return;
    event.preventDefault();
    (results[at] ?? query).focus();
  }
});
begin();
