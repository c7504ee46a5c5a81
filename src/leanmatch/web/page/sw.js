// Keeps the page, so that it opens without a network. The model and the vectors are kept by leanmatch.js itself.
// VERSION and FILES are written by `leanmatch export`: another export is another version.

const VERSION = "@VERSION@";
const FILES = ["@FILES@"];
const NAME = `leanmatch-page ${registration.scope} ${VERSION}`;

// The runtime that this browser does not load (runtimeFile() of leanmatch.js) is not kept.
const RELAXED = WebAssembly.validate(new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 0, 253, 15, 65, 0, 253, 15, 253, 145, 2, 11,
]));
const OTHER = RELAXED ? "leanmatch.wasm" : "leanmatch-relaxed.wasm";

addEventListener("install", (event) => {
  skipWaiting();
  const kept = FILES.filter((file) => file !== OTHER);
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(kept.map((file) => new Request(file, { cache: "no-cache" })))));
});

addEventListener("activate", (event) => {
  const old = async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(`leanmatch-page ${registration.scope} `) && name !== NAME) await caches.delete(name);
    }
    await clients.claim();
  };
  event.waitUntil(old());
});

addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || !url.href.startsWith(registration.scope)) return;
  const file = url.pathname.slice(new URL(registration.scope).pathname.length) || "./";
  if (url.search || !FILES.includes(file)) return;
  const answer = async () => (await (await caches.open(NAME)).match(file)) ?? fetch(event.request);
  event.respondWith(answer());
});
