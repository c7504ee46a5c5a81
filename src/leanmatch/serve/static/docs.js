// The API's own description, made readable without anybody else's viewer.

import { find, make } from "./dom.js";

const EXAMPLES = {
  "/v1/recommend": { texts: ["usb c dock"], k: 5, filter: { column: "price", lt: 20 } },
  "/v1/embeddings": { input: ["usb c dock"], model: "MODEL" },
  "/v1/items": { items: [{ id: "7", text: "usb c dock", metadata: { price: 90 } }] },
  "/v1/items/delete": { ids: ["7"] },
};

function typeOf(schema, all) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const forms = schema.anyOf ?? schema.oneOf;
  if (forms) return forms.map((one) => typeOf(one, all)).join(" | ");
  if (schema.type === "array") return `[${typeOf(schema.items ?? {}, all)}]`;
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  return schema.const !== undefined ? JSON.stringify(schema.const) : (schema.type ?? "any");
}

function fieldsOf(schema, all) {
  const found = schema?.$ref ? all[schema.$ref.split("/").pop()] : schema;
  if (!found?.properties) return null;
  return make("dl", {}, ...Object.entries(found.properties).flatMap(([name, one]) => {
    const parts = [typeOf(one, all), one.description,
      found.required?.includes(name) ? "required" : one.default !== undefined ? `default ${JSON.stringify(one.default)}` : null];
    return [make("dt", {}, make("code", {}, name)), make("dd", {}, parts.filter(Boolean).join("; "))];
  }));
}

function operation(path, verb, one, all) {
  const body = one.requestBody?.content?.["application/json"]?.schema;
  const good = one.responses["200"]?.content?.["application/json"]?.schema;
  const example = EXAMPLES[path];
  const curl = example
    ? `curl ${location.origin}${path} -H 'content-type: application/json' \\\n  -d '${JSON.stringify(example)}'`
    : `curl ${verb === "get" ? "" : `-X ${verb.toUpperCase()} `}'${location.origin}${path}'`;
  return make("details", {},
    make("summary", {}, make("span", { class: "verb" }, verb.toUpperCase()), make("code", {}, path)),
    make("p", {}, one.description ?? ""),
    make("pre", { tabIndex: 0 }, make("code", {}, curl)),
    ...(one.parameters ?? []).map((p) => make("p", {}, make("code", {}, p.name), ` (${p.in}) ${typeOf(p.schema, all)}`)),
    ...(body ? [make("h3", {}, "request"), fieldsOf(body, all)] : []),
    ...(good && fieldsOf(good, all) ? [make("h3", {}, "answer"), fieldsOf(good, all)] : []),
    make("p", { class: "lead" }, `statuses: ${Object.keys(one.responses).join(", ")}`));
}

const place = find("operations");
try {
  const spec = await (await fetch("/openapi.json")).json();
  const all = spec.components?.schemas ?? {};
  const groups = new Map();
  for (const [path, verbs] of Object.entries(spec.paths))
    for (const [verb, one] of Object.entries(verbs)) {
      const group = one.tags?.[0] ?? "other";
      groups.set(group, [...(groups.get(group) ?? []), operation(path, verb, one, all)]);
    }
  for (const [group, parts] of groups) place.append(make("h2", {}, group), ...parts);
} catch {
  place.append(make("p", { class: "message problem" }, "The description cannot be read."));
}
