import { load, openCatalogue } from "./leanmatch.js";
const [model, catalogue] = await Promise.all([load("model/"), openCatalogue("catalogue/")]);
const show = (results) => found.replaceChildren(...results.map(({ id, text }) => new Option(text, id)));
query.oninput = async () => show(await model.search(catalogue, query.value, { k: 5 }));

// What follows belongs to this example page alone.
Object.assign(query, { disabled: false, placeholder: catalogue.samples[0] ?? "" });
document.getElementById("script").textContent = (await (await fetch("example.js")).text()).split("\n\n")[0];
