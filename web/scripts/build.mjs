// Bundles the scripts into the Python package (src/leanmatch/web/static) and makes the npm package in web/dist.
// `node scripts/build.mjs --check` only says whether the committed scripts are those of the sources.

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = fileURLToPath(new URL("..", import.meta.url));
const repository = join(here, "..");
const built = join(repository, "src", "leanmatch", "web", "static");
const dist = join(here, "dist");
const check = process.argv.includes("--check");

const version = /^__version__ = "(.+)"$/m.exec(readFileSync(join(repository, "src/leanmatch/__init__.py"), "utf8"))[1];
const library = JSON.parse(readFileSync(join(here, "node_modules/@huggingface/tokenizers/package.json"), "utf8"));
const licence = readFileSync(join(here, "node_modules/@huggingface/tokenizers/LICENSE"), "utf8");

const musl = `Copyright (c) 2005-2019 Rich Felker, et al.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files
(the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge,
publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do
so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE
FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;

const scripts = await build({
  absWorkingDir: here,
  entryPoints: ["src/leanmatch.ts", "src/worker.ts"],
  outdir: built,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  external: ["node:*"],
  legalComments: "none",
  banner: { js: `/* leanmatch ${version}, Apache-2.0. See LICENSES.txt. */` },
  write: false,
});
const files = new Map(scripts.outputFiles.map(({ path, contents }) => [path.slice(built.length + 1), Buffer.from(contents)]));
files.set("LICENSES.txt", Buffer.from(
  `leanmatch ${version} is under the Apache License 2.0, below.\n\nworker.js contains @huggingface/tokenizers ` +
  `${library.version} (${library.repository.url.replace(/^git\+|\.git$/g, "")}) by ${library.author}, under the same licence.\n\n` +
  `leanmatch.wasm and leanmatch-relaxed.wasm contain parts of wasi-libc (CC0-1.0), of LLVM's libc++ and compiler-rt (Apache-2.0 WITH LLVM-exception), of ` +
  `dlmalloc (CC0-1.0), and of musl, whose licence is:\n\n${musl}\n\nThe Apache License 2.0:\n\n${licence}`,
));

if (check) {
  const differing = [...files].filter(([name, bytes]) => !bytes.equals(readFileSync(join(built, name))));
  if (differing.length) {
    console.error(`not built from these sources: ${differing.map(([name]) => name).join(", ")}. Run: make web`);
    process.exit(1);
  }
  process.exit(0);
}

mkdirSync(built, { recursive: true });
for (const [name, bytes] of files) writeFileSync(join(built, name), bytes);

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
execFileSync(join(here, "node_modules/.bin/tsc"), ["--declaration", "--emitDeclarationOnly", "--stripInternal", "--outDir", "dist"], { cwd: here, stdio: "inherit" });
for (const name of readdirSync(built)) cpSync(join(built, name), join(dist, name));
cpSync(join(here, "README.md"), join(dist, "README.md"));
cpSync(join(repository, "LICENSE"), join(dist, "LICENSE"));
const { name, description, type, license, engines } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
writeFileSync(join(dist, "package.json"), `${JSON.stringify({
  name, version, description, type, license, engines,
  types: "./leanmatch.d.ts",
  exports: { ".": { types: "./leanmatch.d.ts", default: "./leanmatch.js" }, "./worker.js": "./worker.js", "./leanmatch.wasm": "./leanmatch.wasm", "./leanmatch-relaxed.wasm": "./leanmatch-relaxed.wasm" },
  sideEffects: ["./worker.js"],
}, null, 2)}\n`);

for (const name of readdirSync(built)) {
  const bytes = readFileSync(join(built, name));
  console.log(`${name.padEnd(22)} ${String(bytes.length).padStart(9)} bytes ${String(gzipSync(bytes, { level: 9 }).length).padStart(9)} gzipped`);
}
