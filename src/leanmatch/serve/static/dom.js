// A small way to make elements; text is always text, never markup.

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const find = (id) => document.getElementById(id);

// A whole number with commas. The first number that a browser formats for a locale takes it 10 ms and more.
export const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");

export function meter(share, label) {
  const bar = make("i");
  bar.style.setProperty("--part", `${Math.max(0, Math.min(1, share)) * 100}%`);
  return make("span", { class: "meter", role: "img", "aria-label": label }, bar);
}
