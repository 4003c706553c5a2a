// Experts of a mixture: which ones each token is sent to, how the load falls, how sure the router is.

import { h, roving } from "../dom.js";
import { blend, categorical, css, ink, paper } from "../draw/colour.js";
import { lineChart } from "../draw/lines.js";
import { barTable } from "../draw/table.js";
import { figure, percent, short, written } from "../draw/text.js";
import { tokenWindow } from "./window.js";

const SHOWN = 24; // tokens side by side
const LN2 = Math.log(2);
const FAINTEST = 0.15; // opacity of a weight of nothing, so that the cell can still be seen

export const experts = { id: "experts", label: "Experts", show };

async function show(panel, { post, shape, ids, state, redraw, answer }) {
  if (!shape.n_experts) {
    panel.append(h("p", { class: "empty", text: "This model is dense: it has no experts. Every token goes through every weight." }));
    return;
  }
  const data = await post("experts");
  const part = tokenWindow(state, ids.length, SHOWN, redraw);
  const readout = h("p", { class: "readout", role: "status", text: "Point at a cell, or move with the arrow keys." });
  const shown = answer.tokens.slice(part.start, part.stop);
  const strongest = Math.max(...data.layers.flatMap(({ weights }) => weights.flat()), Number.MIN_VALUE);

  const words = (row, t) => {
    const at = part.start + t;
    const sent = row.ids[at].map((id, n) => `expert ${id} at ${figure(row.weights[at][n])}`).join(", ");
    return `layer ${row.layer}, ${written(shown[t])} (${at}): ${sent}; router entropy ${figure(row.entropy[at] / LN2)} bit`;
  };
  const cell = (row, t) => {
    const at = part.start + t;
    const td = h("td", { role: "gridcell", tabindex: -1 }, h("span", { class: "sent" },
      row.ids[at].map((id, n) => chip(id, data.n_experts, row.weights[at][n] / strongest))));
    for (const event of ["pointerenter", "focus"]) td.addEventListener(event, () => (readout.textContent = words(row, t)));
    td.addEventListener("click", () => td.focus());
    return td;
  };
  const grid = h("table", { class: "lens routing", role: "grid", "aria-label": "Experts by layer and token" },
    h("thead", {}, h("tr", { role: "row" }, h("th", { scope: "col", class: "corner", text: "layer" }),
      shown.map((token, t) => h("th", { scope: "col", title: `${part.start + t}: ${written(token)}` }, h("span", { class: "token-text", text: short(token, 9) }))))),
    h("tbody", {}, data.layers.map((row) => h("tr", { role: "row" }, h("th", { scope: "row", text: String(row.layer) }), shown.map((_, t) => cell(row, t))))));
  const cells = [...grid.querySelectorAll("td")];
  cells[0].tabIndex = 0;
  roving(grid, () => cells, () => shown.length);
  panel.append(
    h("div", { class: "bar-row" }, h("p", { class: "fact-line", text: `${data.n_experts} experts, ${data.n_used} for each token` }), part.element),
    h("p", { class: "hint", text: "Numbers and colours name experts, in the order of the router's ranking; the stronger the colour, the larger the weight." }),
    h("div", { class: "scroll lens-scroll" }, grid), readout,
    h("div", { class: "pair" }, load(data, state, redraw), entropy(data)));
}

function chip(id, n, weight) {
  const colour = blend(categorical(id, n), paper(), FAINTEST + (1 - FAINTEST) * Math.min(1, Math.max(0, weight)));
  return h("span", { class: "chip", text: String(id), data: { expert: String(id) }, style: { "background-color": css(colour), color: ink(colour) } });
}

function load(data, state, redraw) {
  const chosen = state.loadOf ?? "all";
  const rows = chosen === "all" ? data.layers : data.layers.filter(({ layer }) => String(layer) === chosen);
  const sums = Array.from({ length: data.n_experts }, (_, e) => rows.reduce((sum, { load: each }) => sum + (each[e] ?? 0), 0));
  const total = sums.reduce((a, b) => a + b, 0) || 1;
  const picker = h("select", { data: { key: "load" }, on: { change: ({ target }) => {
    state.loadOf = target.value;
    redraw();
  } } }, h("option", { value: "all", text: "all layers" }), data.layers.map(({ layer }) => h("option", { value: layer, text: `layer ${layer}` })));
  picker.value = chosen;
  return h("section", { class: "load" },
    h("div", { class: "bar-row" }, h("h3", { text: "Load" }), h("label", { class: "inline" }, h("span", { text: "of" }), picker)),
    h("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "Load of each expert" },
      barTable("Tokens sent to each expert", ["expert", "load", "share"], sums.map((sum, e) => [String(e), sum, figure(sum), percent(sum / total)]))));
}

function entropy(data) {
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const of = (pick) => data.layers.map(({ entropy: all }) => pick(all) / LN2);
  return h("section", {}, h("h3", { text: "Router entropy" }),
    lineChart({ label: "Entropy of the router's distribution, by layer", x: data.layers.map(({ layer }) => layer), xLabel: "layer", yLabel: "entropy (bit)",
      series: [{ name: "highest", values: of((all) => Math.max(...all)) }, { name: "mean", values: of(mean) }, { name: "lowest", values: of((all) => Math.min(...all)) }],
      limit: { value: Math.log2(data.n_experts), name: "all equal" } }));
}
