// A grid with a row for each layer and a column for each token; pointer and arrow keys move over its cells alike.

import { h, roving } from "../dom.js";
import { short, written } from "../draw/text.js";

const LETTERS = 9; // of a token at the head of its column

/** `tokens`: those shown, the first of which is at position `start`; `names`: of the rows; `cell(l, t)`: [properties,
 *  children] of a cell; `point(l, t)` is called for the cell that is pointed at; `begin`: the cell that Tab reaches. */
export function layerGrid({ label, kind, tokens, start, names, cell, point, begin }) {
  const column = (token, t) => {
    const text = h("span", { class: "token-text", text: short(token, LETTERS) });
    return h("th", { scope: "col", title: `${start + t}: ${written(token)}` }, text);
  };
  const field = (l, t) => {
    const [properties, ...children] = cell(l, t);
    const td = h("td", { role: "gridcell", tabindex: -1, ...properties }, children);
    for (const event of ["pointerenter", "focus"]) td.addEventListener(event, () => point(l, t));
    td.addEventListener("click", () => td.focus());
    return td;
  };
  const row = (name, l) => {
    const fields = tokens.map((_, t) => field(l, t));
    return h("tr", { role: "row" }, h("th", { scope: "row", text: name }), fields);
  };
  const corner = h("th", { scope: "col", class: "corner", text: "layer" });
  const head = h("thead", {}, h("tr", { role: "row" }, corner, tokens.map(column)));
  const grid = h(
    "table",
    { class: `lens ${kind}`, role: "grid", "aria-label": label },
    head,
    h("tbody", {}, names.map(row)),
  );
  const fields = [...grid.querySelectorAll("td")];
  fields.at(begin).tabIndex = 0;
  roving(
    grid,
    () => fields,
    () => tokens.length,
  );
  return h("div", { class: "scroll lens-scroll" }, grid);
}
