// Runs a check program that was compiled to WebAssembly: node run_wasm.mjs PROGRAM [ARGUMENT...]
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const RELAXED = "--experimental-wasm-relaxed-simd"; // Node 20 has relaxed SIMD behind this option, later versions without it
const [program, ...rest] = process.argv.slice(2);
const bytes = await readFile(program);
if (!WebAssembly.validate(bytes) && !process.execArgv.includes(RELAXED)) {
  process.exitCode = spawnSync(process.execPath, [RELAXED, ...process.execArgv, ...process.argv.slice(1)], { stdio: "inherit" }).status ?? 1;
} else {
  const wasi = new WASI({ version: "preview1", args: [program, ...rest] });
  process.exitCode = wasi.start(await WebAssembly.instantiate(await WebAssembly.compile(bytes), wasi.getImportObject()));
}
