// The search box as a combobox (WAI-ARIA Authoring Practices: editable combobox with list autocomplete).

import { suggest } from "./api.js";
import { find, make } from "./dom.js";

const PAUSE_MS = 110;

export function combobox(submit) {
  const input = find("query");
  const list = find("suggestions");
  let active = -1;
  let timer = 0;
  let asking = null;

  const options = () => [...list.children];

  // No later answer replaces the list.
  function settle() {
    clearTimeout(timer);
    asking?.abort();
  }

  function close() {
    settle();
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function select(next) {
    const all = options();
    if (!all.length) return;
    settle();
    all[active]?.setAttribute("aria-selected", "false");
    active = (next + all.length) % all.length;
    all[active].setAttribute("aria-selected", "true");
    all[active].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", all[active].id);
  }

  function take(text) {
    input.value = text;
    close();
    submit();
  }

  function show(found, typed) {
    list.replaceChildren(
      ...found.map((text, index) => {
        const at = text.toLowerCase().indexOf(typed.toLowerCase());
        const parts = at < 0 ? [text] : [
          text.slice(0, at), make("b", {}, text.slice(at, at + typed.length)), text.slice(at + typed.length),
        ];
        const option = make("li", { id: `suggestion-${index}`, role: "option", "aria-selected": "false" }, ...parts);
        option.addEventListener("pointerdown", (event) => { event.preventDefault(); take(text); });
        return option;
      }),
    );
    active = -1;
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(found.length > 0));
  }

  input.addEventListener("input", () => {
    settle();
    const typed = input.value.trim();
    if (typed.length < 2) return close();
    timer = setTimeout(async () => {
      asking = new AbortController();
      try {
        const found = await suggest(typed, asking.signal);
        if (document.activeElement === input && input.value.trim() === typed) show(found, typed);
      } catch { /* suggestions are a help; the search itself says what is wrong */ }
    }, PAUSE_MS);
  });

  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !list.hidden) { event.preventDefault(); close(); }
    else if (list.hidden) return;
    else if (event.key === "ArrowDown") { event.preventDefault(); select(active + 1); }
    else if (event.key === "ArrowUp") { event.preventDefault(); select(active < 0 ? -1 : active - 1); }
    else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      take(options()[active].textContent);
    }
  });
  input.addEventListener("blur", close);
  return { close };
}
