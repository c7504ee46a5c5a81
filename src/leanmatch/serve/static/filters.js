// Filter fields made from the catalogue's columns, and the filter that they stand for.

import { find, grouped, make } from "./dom.js";

const CHOICES = 12;

function textFacet(column) {
  if (column.values.length <= CHOICES) {
    const boxes = column.values.map(({ value, count }) => {
      const box = make("input", { type: "checkbox", value });
      return [box, make("label", { class: "choice" }, box, make("span", {}, value || "(empty)"), make("small", {}, grouped(count)))];
    });
    return {
      body: make("div", { class: "choices" }, ...boxes.map(([, label]) => label)),
      read: () => {
        const chosen = boxes.filter(([box]) => box.checked).map(([box]) => box.value);
        return chosen.length ? { column: column.name, in: chosen } : null;
      },
      show: (test) => boxes.forEach(([box]) => { box.checked = (test?.in ?? []).includes(box.value); }),
    };
  }
  const list = make("select", { "aria-label": column.name }, make("option", { value: "" }, "any"),
    ...column.values.map(({ value, count }, index) => make("option", { value: String(index + 1) }, `${value} (${grouped(count)})`)));
  return {
    body: list,
    read: () => (list.value ? { column: column.name, eq: column.values[Number(list.value) - 1].value } : null),
    show: (test) => { list.value = test ? String(column.values.findIndex(({ value }) => value === test.eq) + 1 || "") : ""; },
  };
}

function booleanFacet(column) {
  const list = make("select", { "aria-label": column.name }, make("option", { value: "" }, "any"), make("option", { value: "true" }, "yes"), make("option", { value: "false" }, "no"));
  return {
    body: list,
    read: () => (list.value ? { column: column.name, eq: list.value === "true" } : null),
    show: (test) => { list.value = test ? String(test.eq) : ""; },
  };
}

function rangeFacet(column) {
  const shown = (value) => String(Math.abs(value) < 1e13 ? Math.round(value * 100) / 100 : value);
  const low = make("input", { type: "number", step: "any", placeholder: shown(column.min), "aria-label": `${column.name}, at least` });
  const high = make("input", { type: "number", step: "any", placeholder: shown(column.max), "aria-label": `${column.name}, at most` });
  return {
    body: make("div", { class: "range" }, low, make("span", { "aria-hidden": "true" }, "to"), high),
    read: () => {
      const test = { column: column.name };
      if (low.value !== "") test.ge = Number(low.value);
      if (high.value !== "") test.le = Number(high.value);
      return Object.keys(test).length > 1 ? test : null;
    },
    show: (test) => {
      low.value = test?.ge ?? "";
      high.value = test?.le ?? "";
    },
  };
}

function facetOf(column) {
  if (column.type === "text" && column.min === undefined) return column.values?.length > 1 ? textFacet(column) : null;
  if (column.type === "boolean") return column.present ? booleanFacet(column) : null;
  return column.min === undefined || column.min === column.max ? null : rangeFacet(column);
}

export function filterFields(columns, changed) {
  const facets = columns.map((column) => [column, facetOf(column)]).filter(([, facet]) => facet);
  const button = find("filters-button");
  const panel = find("filters");
  const counted = find("filters-count");
  find("filters-fields").replaceChildren(
    ...facets.map(([column, facet]) => make("fieldset", { class: "facet" }, make("legend", {}, column.name), facet.body)),
  );
  button.hidden = !facets.length;

  const tests = () => facets.map(([, facet]) => facet.read()).filter(Boolean);
  function count() {
    const active = tests().length;
    counted.textContent = String(active);
    counted.hidden = !active;
  }
  function update() {
    count();
    changed();
  }
  panel.addEventListener("change", update);
  find("filters-clear").addEventListener("click", () => clear());
  button.addEventListener("click", () => {
    panel.hidden = !panel.hidden;
    button.setAttribute("aria-expanded", String(!panel.hidden));
  });
  function clear() {
    facets.forEach(([, facet]) => facet.show(null));
    update();
  }
  return {
    clear,
    read: () => {
      const all = tests();
      return all.length === 0 ? null : all.length === 1 ? all[0] : { and: all };
    },
    // What read() gave, back into the fields; columns that are gone are left out.
    show: (filter) => {
      const all = filter?.and ?? (filter ? [filter] : []);
      facets.forEach(([column, facet]) => facet.show(all.find((test) => test?.column === column.name) ?? null));
      count();
    },
  };
}
