// One text in WebAssembly: the web runtime beside onnxruntime-web's int8, one thread each, in turns. Processor
// time counts, so that other programs' turns do not.
//
//   leanmatch export sentence-transformers/all-MiniLM-L6-v2 --to web -o web/
//   leanmatch export sentence-transformers/all-MiniLM-L6-v2 --to onnx --int8 -o onnx/
//   npm install --prefix ort onnxruntime-web
//   node benchmarks/web_runtime.mjs web/ onnx/ ort/ [TOKENS] [SECONDS]
//
// Node 20 has relaxed SIMD with --experimental-wasm-relaxed-simd; without it, leanmatch.wasm runs.
// A second folder of a web model, or another leanmatch.wasm, is compared in the same way: name it in place of onnx/.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [model, rival, ort, tokens = "16", seconds = "20"] = process.argv.slice(2);
const place = new URL("../src/leanmatch/web/static/", import.meta.url);
const { compileRuntime, NativeModel, runtimeFile } = await import(new URL("worker.js", place));

const length = Number(tokens);
const ids = Int32Array.from({ length }, (_, i) => (i === 0 ? 101 : i === length - 1 ? 102 : 2000 + ((i * 7919) % 20000)));
const offsets = Int32Array.from([0, length]);

async function ours(folder, wasm) {
  const plan = JSON.parse(readFileSync(join(folder, "model.json"), "utf8"));
  const native = NativeModel.create(await compileRuntime(readFileSync(wasm)), plan, readFileSync(join(folder, "model.bin")));
  return { run: async () => native.encode(ids, offsets), memory: native.memoryBytes, macs: multiplyAdds(plan) };
}

/** Of the linear layers, for one token. */
function multiplyAdds({ plan, tensors }) {
  const of = (layer) => {
    if (layer.form === "low-rank") return of(layer.left) + of(layer.right);
    if (layer.form !== "dense-sparse") return tensors[layer.codes ?? layer.weight].shape.reduce((a, b) => a * b, 1);
    const [blocks, , width] = tensors[layer.atoms].shape; // as the dense layer that runs
    return tensors[layer.indices].shape[0] * blocks * width;
  };
  const block = ({ qkv, up, out, down }) => [...qkv, ...up, out, down].map(of).reduce((a, b) => a + b, 0);
  return plan.order.map((at) => block(plan.blocks[at])).reduce((a, b) => a + b, 0);
}

async function onnx(folder) {
  const module = createRequire(pathToFileURL(join(ort, "package.json"))).resolve("onnxruntime-web");
  const { InferenceSession, Tensor, env } = await import(pathToFileURL(module));
  env.wasm.numThreads = 1;
  const session = await InferenceSession.create(readFileSync(join(folder, "model.onnx")), { executionProviders: ["wasm"] });
  const row = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, length]);
  const inputs = { input_ids: row(ids), attention_mask: row(ids.map(() => 1)), token_type_ids: row(ids.map(() => 0)) };
  const feeds = Object.fromEntries(session.inputNames.map((name) => [name, inputs[name]]));
  return { run: async () => (await session.run(feeds))[session.outputNames[0]].data };
}

const cosine = (a, b) => {
  const sums = a.reduce(([ab, aa, bb], x, i) => [ab + x * b[i], aa + x * x, bb + b[i] * b[i]], [0, 0, 0]);
  return sums[0] / Math.sqrt(sums[1] * sums[2]);
};
const median = (times) => times.toSorted((a, b) => a - b)[times.length >> 1];

const wasm = new URL(runtimeFile(), place).pathname;
const first = await ours(model, wasm);
const isOnnx = existsSync(join(rival, "model.onnx"));
const second = isOnnx ? await onnx(rival) : rival.endsWith(".wasm") ? await ours(model, rival) : await ours(rival, wasm);
const engines = [first, second];
for (let i = 0; i < 60; i++) for (const { run } of engines) await run(); // until everything is compiled by the last tier
const times = [[], []];
for (const end = performance.now() + 1000 * Number(seconds); performance.now() < end; )
  for (const [i, { run }] of engines.entries()) {
    const start = process.cpuUsage();
    await run();
    const { user, system } = process.cpuUsage(start);
    times[i].push((user + system) / 1000);
  }
const [a, b] = times.map(median);
const rate = (length * first.macs) / a / 1e6;
console.log(`${length} tokens, ${times[0].length} rounds, medians of processor time:`);
console.log(`  leanmatch    ${a.toFixed(2)} ms   ${rate.toFixed(1)} GMAC/s   ${(first.memory / 1e6).toFixed(1)} MB of memory`);
console.log(`  ${isOnnx ? "onnxruntime " : "the other  "} ${b.toFixed(2)} ms   ${(b / a).toFixed(2)} times as long`);
console.log(`  cosine of the two vectors: ${cosine(Array.from(await first.run()), Array.from(await second.run())).toFixed(4)}`);
