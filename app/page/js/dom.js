// Elements from descriptions. Text always goes in as text: nothing here, and nothing on this page, parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `props`: class, text, on {event: handler}, style {property: value}, data {name: value}; the rest are
 *  attributes, of which null, undefined and false are left out. Children: nodes and strings; null ones are left out. */
export function h(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function s(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.setAttribute("class", value);
    else if (name === "text") element.textContent = value;
    else if (name === "on")
      for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "style")
      for (const [property, of] of Object.entries(value)) element.style.setProperty(property, of);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Say something to screen readers, once. */
export function announce(text) {
  byId("status").textContent = text;
}

/** Arrow keys, Home and End among the elements that `cells()` gives, of which one can be reached by Tab.
 *  `across`: how many lie in a row, for up and down. */
export function roving(container, cells, across = () => 1) {
  container.addEventListener("keydown", (event) => {
    const all = cells();
    const at = all.indexOf(event.target);
    if (at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -across(),
      ArrowDown: across(),
      Home: -at,
      End: all.length - 1 - at,
    };
    const next = all[at + step[event.key]];
    if (!(event.key in step) || !next) return;
    event.preventDefault();
    all[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
