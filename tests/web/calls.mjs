// Runs calls of a site's leanmatch.js in Node. In: a JSON list of {do, ...}; out: a list of results or {error}.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const site = pathToFileURL(`${process.argv[2]}/`);
const { load, openCatalogue, LeanmatchError } = await import(new URL("leanmatch.js", site));
const calls = JSON.parse(readFileSync(0, "utf8"));
let model, catalogue;

const numbers = (vectors) => vectors.map((vector) => Array.from(vector));
const bigints = (value) => JSON.parse(JSON.stringify(value), (_, inner) => (typeof inner === "string" && /^\d+n$/.test(inner) ? BigInt(inner.slice(0, -1)) : inner));
const work = {
  load: async ({ folder = "model/" }) => {
    let last = [0, 0];
    model = await load(new URL(folder, site), { progress: (...seen) => { last = seen; } });
    return { name: model.name, dimension: model.dimension, prompts: model.prompts, progress: last };
  },
  open: async ({ folder = "catalogue/" }) => {
    catalogue = await openCatalogue(new URL(folder, site));
    return { items: catalogue.items, columns: catalogue.columns, samples: catalogue.samples, bytes: catalogue.bytes };
  },
  tokenize: ({ texts }) => model.tokenize(texts),
  encode: async ({ texts, role = "" }) => numbers(await model[`encode${role}`](texts)),
  search: ({ text, k, filter }) => model.search(catalogue, text, { k, filter: typeof filter === "object" ? bigints(filter) : filter }),
  ids: async ({ text, filter }) => (await work.search({ text, k: catalogue.items, filter })).map(({ id }) => id).sort(),
  explain: ({ text, id }) => model.explain(catalogue, text, id),
  stopped: async ({ folder = "model/" }) => load(new URL(folder, site), { signal: AbortSignal.abort() }),
};
const out = [];
for (const call of calls) {
  try {
    out.push(await work[call.do](call));
  } catch (error) {
    out.push({ error: error.message, name: error.name, ours: error instanceof LeanmatchError });
  }
}
process.stdout.write(JSON.stringify(out));
