// Runs the web runtime in Node: node web_runtime.mjs STATIC_FOLDER [BUILD]; in: a JSON list of calls, out: a list of results or {error}.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const place = pathToFileURL(`${process.argv[2]}/`);
const { compileRuntime, NativeModel, runtimeFile, Scanner } = await import(new URL("worker.js", place));
const wasm = readFileSync(new URL(process.argv[3] ?? runtimeFile(), place));
const runtime = await compileRuntime(wasm);
let model, scanner;

const read = (folder) => [JSON.parse(readFileSync(`${folder}/model.json`, "utf8")), readFileSync(`${folder}/model.bin`)];
const work = {
  create: ({ folder, repeats = 1 }) => {
    for (let i = 0; i < repeats; i++) model = NativeModel.create(runtime, ...read(folder));
    const { dimension, maxTokens, memoryBytes, weightBytes } = model;
    return { dimension, maxTokens, memoryBytes, weightBytes };
  },
  encode: ({ ids, offsets }) => Array.from(model.encode(Int32Array.from(ids), Int32Array.from(offsets))),
  build: () => runtimeFile(),
  free: () => model.free(),
  compile: ({ bytes }) => compileRuntime(Uint8Array.from(bytes)).then(() => true),
  truncated: () => compileRuntime(wasm.subarray(0, 1000)).then(() => true),
  scan: ({ dimension, parts }) => {
    scanner = Scanner.create(runtime, dimension);
    for (const { codes, scales } of parts) scanner.add(Int8Array.from(codes), Float32Array.from(scales), scales.length);
    return scanner.rows;
  },
  top: ({ query, k, allowed }) => {
    const found = scanner.top(Float32Array.from(query), k, allowed && Uint8Array.from(allowed));
    return { rows: Array.from(found.rows), scores: Array.from(found.scores) };
  },
};
const out = [];
for (const call of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    out.push((await work[call.do](call)) ?? null);
  } catch (error) {
    out.push({ error: error.message, name: error.name });
  }
}
process.stdout.write(JSON.stringify(out));
