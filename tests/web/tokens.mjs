// Reads texts with a site's tokenizer code. In: a JSON list of {file, texts}; out: ids and offsets of each text.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { TextTokenizer } = await import(new URL("worker.js", pathToFileURL(`${process.argv[2]}/`)));
const out = JSON.parse(readFileSync(0, "utf8")).map(({ file, texts, side }) => {
  const tokenizer = new TextTokenizer(JSON.parse(readFileSync(file, "utf8")), { maxTokens: 24, addSpecial: true, side });
  return texts.map((text) => tokenizer.read(text)).map(({ ids, offsets }) => ({ ids, offsets }));
});
process.stdout.write(JSON.stringify(out));
