// What the worker holds: models and catalogues by number. In Node the same object is used without a worker.

import { OpenCatalogue } from "./catalogue.js";
import { LeanmatchError } from "./errors.js";
import { type Explanation, Explainer } from "./explain.js";
import { Folder, type Progress } from "./files.js";
import { LoadedModel, type Way } from "./model.js";
import { compileRuntime, type Runtime } from "./runtime.js";

/** What goes with a call: where progress is reported to, and what stops it. */
export interface Call { progress: Progress; signal: AbortSignal }

export interface Result { rank: number; id: string; text: string; score: number; metadata: Record<string, unknown> }

export class Engine {
  private runtime: Promise<Runtime> | null = null;
  private readonly models = new Map<number, { model: LoadedModel; explainer: Explainer }>();
  private readonly catalogues = new Map<number, OpenCatalogue>();
  private made = 0;
  private lastSearch: Promise<unknown> = Promise.resolve();

  /** `wasm`: address of the runtime. */
  constructor(private readonly wasm: string) {}

  private readonly compiled = (): Promise<Runtime> => {
    if (!this.runtime) {
      this.runtime = this.compile();
      this.runtime.catch(() => { this.runtime = null; });
    }
    return this.runtime;
  };

  private async compile(): Promise<Runtime> {
    if (typeof WebAssembly === "undefined") {
      throw new LeanmatchError("this browser runs no WebAssembly here", "use a current browser; a Content-Security-Policy needs script-src 'wasm-unsafe-eval'");
    }
    return Folder.of(new URL(".", this.wasm).href).file(new URL(this.wasm).pathname.split("/").at(-1) as string, compileRuntime);
  }

  async load({ progress, signal }: Call, url: string) {
    const model = await LoadedModel.load(url, this.compiled, progress, signal);
    const number = ++this.made;
    this.models.set(number, { model, explainer: new Explainer(model) });
    const { name, prompts } = model.manifest;
    return { number, name, prompts, dimension: model.dimension };
  }

  async openCatalogue({ signal }: Call, url: string) {
    const catalogue = await OpenCatalogue.open(url, this.compiled, signal);
    const number = ++this.made;
    this.catalogues.set(number, catalogue);
    const { items, dimension, model, columns, samples } = catalogue.manifest;
    const { bytes } = catalogue;
    return { number, items, bytes, dimension, model: model.name, columns: columns.map(({ file: _, ...column }) => column), samples };
  }

  async loadVectors({ progress, signal }: Call, catalogue: number): Promise<void> {
    await this.catalogue(catalogue).load(progress, signal);
  }

  keep({ progress, signal }: Call, catalogue: number): Promise<boolean> {
    return this.catalogue(catalogue).keep(progress, signal);
  }

  encode(_: Call, model: number, texts: readonly string[], role: "query" | "document" | null): Promise<Float32Array> {
    const { model: loaded } = this.model(model);
    return loaded.encode(texts, loaded.way(role));
  }

  tokenize(_: Call, model: number, texts: readonly string[], role: "query" | "document" | null): number[][] {
    const { model: loaded } = this.model(model);
    const { prompt } = loaded.way(role);
    return texts.map((text) => loaded.tokenizer.encode(prompt + text));
  }

  /** Answers come in the order of the calls, so that a page shows the last one last. */
  search(...call: Parameters<Engine["searchNow"]>): Promise<Result[]> {
    const [before, results] = [this.lastSearch, this.searchNow(...call)];
    const inOrder = Promise.allSettled([before, results]).then(() => results);
    this.lastSearch = inOrder.catch(() => undefined);
    return inOrder;
  }

  private async searchNow({ signal }: Call, model: number, number: number, text: string, k: number, filter: unknown): Promise<Result[]> {
    const { model: loaded } = this.model(model);
    const catalogue = this.catalogue(number);
    const [way] = waysOf(loaded, catalogue);
    if (typeof text !== "string") throw new LeanmatchError(`a text is ${typeof text}`, "give a string");
    if (!Number.isSafeInteger(k) || k < 1) throw new LeanmatchError(`k is ${k}`, "ask for 1 item or more");
    if (!text.trim()) return [];
    const [query] = await Promise.all([loaded.encode([text], way), catalogue.load()]);
    signal.throwIfAborted();
    const { rows, scores } = await catalogue.top(query, k, filter);
    signal.throwIfAborted();
    const items = await catalogue.items(Array.from(rows));
    return items.map((item, at) => ({ rank: at + 1, id: item.id, text: item.text, score: scores[at], metadata: item.metadata }));
  }

  async explain({ signal }: Call, model: number, number: number, text: string, id: string): Promise<Explanation> {
    const [{ model: loaded, explainer }, catalogue] = [this.model(model), this.catalogue(number)];
    const ways = waysOf(loaded, catalogue);
    const item = await catalogue.item(id);
    signal.throwIfAborted();
    return explainer.explain(text, item.text, ways);
  }

  close(_: Call, number: number): void {
    this.models.get(number)?.model.free();
    void this.catalogues.get(number)?.free();
    this.models.delete(number);
    this.catalogues.delete(number);
  }

  private model(number: number) {
    const model = this.models.get(number);
    if (!model) throw new LeanmatchError("the model is closed", "load it again");
    return model;
  }

  private catalogue(number: number) {
    const catalogue = this.catalogues.get(number);
    if (!catalogue) throw new LeanmatchError("the catalogue is closed", "open it again");
    return catalogue;
  }
}

/** How a catalogue's model reads queries and items. */
function waysOf(model: LoadedModel, { manifest }: OpenCatalogue): [Way, Way] {
  const { name, weights, query, document } = manifest.model;
  if (weights !== model.weights || manifest.dimension > model.dimension) {
    throw new LeanmatchError(`the catalogue was made with another model, ${name}`, "load the model of the same export");
  }
  const { dimension } = manifest;
  return [{ prompt: query, dimension }, { prompt: document, dimension }];
}
