// The page: what is typed, what is asked, what is shown.

import { catalogue, recommend, useKey } from "./api.js";
import { find, make } from "./dom.js";
import { filterFields } from "./filters.js";
import { showBlank, showResults } from "./results.js";
import { statusPanel } from "./status.js";
import { combobox } from "./suggestions.js";

const RESULTS = 10;
const RETRY_MS = 700;

let filters = null;
let asking = null;

function say(text, problem = false, ...more) {
  const message = find("message");
  message.className = problem ? "message problem" : "message";
  message.replaceChildren(text, ...more);
}

function failed(problem) {
  find("results").replaceChildren();
  find("legend").hidden = true;
  find("key-form").hidden = problem.status !== 401;
  const again = make("button", { type: "button", class: "quiet" }, "Try again");
  again.addEventListener("click", () => (filters ? search() : begin()));
  say(problem.message, true, again);
}

async function search() {
  const query = find("query").value.trim();
  asking?.abort();
  history.replaceState(null, "", query ? `#q=${encodeURIComponent(query)}` : location.pathname);
  if (!query) return rest();
  asking = new AbortController();
  const { signal } = asking;
  const list = find("results");
  list.setAttribute("aria-busy", "true");
  try {
    const body = { texts: [query], k: RESULTS, exclude_self: false, explain: find("explain").checked };
    const filter = filters?.read();
    if (filter) body.filter = filter;
    const begin = performance.now();
    const found = (await recommend(body, signal)).results[0].recommendations;
    const ms = performance.now() - begin;
    if (!found.length) {
      const clear = make("p", {}, make("button", { type: "button", class: "quiet" }, "Clear filters"));
      clear.firstChild.addEventListener("click", () => filters.clear());
      showBlank("Nothing passes the filters", "No item fits all of them.", ...(filter ? [clear] : []));
      say("0 results");
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

function rest() {
  find("results").removeAttribute("aria-busy");
  find("key-form").hidden = true;
  showBlank("Ask in your own words", "A phrase, a title, a question: what matters is what it means.");
  say("");
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
  find("about").textContent = `${found.items.toLocaleString("en")} items, model ${found.model}`;
  filters = filterFields(found.columns, () => { if (find("query").value.trim()) search(); });
  panel.refresh();
  const asked = new URLSearchParams(location.hash.slice(1)).get("q");
  if (asked) {
    find("query").value = asked;
    search();
  } else rest();
}

const panel = statusPanel();
const box = combobox(() => search());
find("search").addEventListener("submit", (event) => {
  event.preventDefault();
  box.close();
  search();
});
find("explain").addEventListener("change", () => { if (find("query").value.trim()) search(); });
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key").value.trim());
  find("key-form").hidden = true;
  if (filters) search();
  else begin();
});
begin();
