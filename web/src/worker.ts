// The worker: takes calls, runs them on its engine, and answers. Node imports `Engine` from here instead.

import { Engine } from "./engine.js";
import { plain } from "./errors.js";
import { runtimeFile } from "./runtime.js";

export { Engine };
export { compileRuntime, NativeModel, runtimeFile, Scanner } from "./runtime.js";
export { TextTokenizer } from "./tokenizer.js";
/** Where the runtime lies: beside this script. */
export const wasm = new URL(runtimeFile(), import.meta.url).href;

interface Message { call: number; method?: keyof Engine; values?: unknown[] }

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  const engine = new Engine(wasm);
  const running = new Map<number, AbortController>();
  self.addEventListener("message", async ({ data }: MessageEvent<Message>) => {
    const { call, method, values = [] } = data;
    if (method === undefined) return running.get(call)?.abort(); // nobody waits for it any more
    const controller = new AbortController();
    running.set(call, controller);
    try {
      const context = { signal: controller.signal, progress: (loaded: number, total: number) => self.postMessage({ call, loaded, total }) };
      const result = await (engine[method] as (...all: unknown[]) => unknown).call(engine, context, ...values);
      self.postMessage({ call, result }, { transfer: result instanceof Float32Array ? [result.buffer] : [] });
    } catch (error) {
      self.postMessage({ call, error: plain(error) });
    } finally {
      running.delete(call);
    }
  });
}
