import { load, openCatalogue } from "./leanmatch.js";
const [model, catalogue] = await Promise.all([load("model/"), openCatalogue("catalogue/")]);
const search = async (text) => (text ? await model.search(catalogue, text, { k: 5 }) : []);
const show = (results) => found.replaceChildren(...results.map(({ id, text }) => new Option(text, id)));
query.oninput = async () => show(await search(query.value.trim()));

// What follows belongs to this example page alone.
Object.assign(query, { disabled: false, placeholder: catalogue.samples[0] ?? "" });
document.getElementById("script").textContent = (await (await fetch("example.js")).text()).split("\n\n")[0];
