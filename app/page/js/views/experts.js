// Experts of a mixture: which ones each token is sent to, how the load falls, how sure the router is.

import { h } from "../dom.js";
import { blend, categorical, css, ink, paper } from "../draw/colour.js";
import { lineChart } from "../draw/lines.js";
import { barTable } from "../draw/table.js";
import { figure, percent, written } from "../draw/text.js";
import { layerGrid } from "./grid.js";
import { tokenWindow } from "./window.js";

const SHOWN = 24; // tokens side by side
const HINT =
  "Numbers and colours name experts, in the order of the router's ranking; the stronger, the larger the weight.";
const FAINTEST = 0.15; // opacity of a weight of nothing, so that the cell can still be seen

export const experts = { id: "experts", label: "Experts", show };

async function show(panel, { post, shape, ids, state, redraw, answer }) {
  if (!shape.n_experts) {
    panel.append(
      h("p", {
        class: "empty",
        text: "This model is dense: it has no experts. Every token goes through every weight.",
      }),
    );
    return;
  }
  const part = tokenWindow(state, ids.length, SHOWN, redraw);
  const whole = shape.n_layers * (ids.length * (2 * shape.n_used + 1) + shape.n_experts) <= shape.limits.numbers;
  const data = await post("experts", whole ? {} : { start: part.start, stop: part.stop });
  const readout = h("p", { class: "readout", role: "status", text: "Point at a cell, or move with the arrow keys." });
  const strongest = data.layers.flatMap(({ weights }) => weights.flat()).reduce((a, b) => Math.max(a, b), 1e-9);
  const sent = (l, t) => {
    const row = data.layers[l];
    const at = part.start + t - data.start;
    return { layer: row.layer, ids: row.ids[at], weights: row.weights[at], entropy: row.entropy[at] };
  };

  const words = (l, t) => {
    const { layer, ids: to, weights, entropy: unsure } = sent(l, t);
    const at = part.start + t;
    const each = to.map((id, n) => `expert ${id} at ${figure(weights[n])}`).join(", ");
    const token = `${written(answer.tokens[at])} (${at})`;
    return `layer ${layer}, ${token}: ${each}; router entropy ${figure(unsure / Math.LN2)} bit`;
  };
  const cell = (l, t) => {
    const { ids: to, weights } = sent(l, t);
    const chips = to.map((id, n) => chip(id, data.n_experts, weights[n] / strongest));
    return [{}, h("span", { class: "sent" }, chips)];
  };
  const grid = layerGrid({
    label: "Experts by layer and token",
    kind: "routing",
    tokens: answer.tokens.slice(part.start, part.stop),
    start: part.start,
    names: data.layers.map(({ layer }) => String(layer)),
    cell,
    point: (l, t) => (readout.textContent = words(l, t)),
    begin: 0,
  });
  const facts = `${data.n_experts} experts, ${data.n_used} for each token`;
  panel.append(
    h("div", { class: "bar-row" }, h("p", { class: "fact-line", text: facts }), part.element),
    h("p", { class: "hint", text: HINT }),
    grid,
    readout,
    h("div", { class: "pair" }, load(data, whole, state, redraw), entropy(data)),
  );
}

function chip(id, n, weight) {
  const colour = blend(categorical(id, n), paper(), FAINTEST + (1 - FAINTEST) * Math.min(1, Math.max(0, weight)));
  return h("span", {
    class: "chip",
    text: String(id),
    data: { expert: String(id) },
    style: { "background-color": css(colour), color: ink(colour) },
  });
}

function load(data, whole, state, redraw) {
  const chosen = state.loadOf ?? "all";
  const rows = chosen === "all" ? data.layers : data.layers.filter(({ layer }) => String(layer) === chosen);
  const sums = Array.from({ length: data.n_experts }, (_, e) =>
    rows.reduce((sum, { load: each }) => sum + (each[e] ?? 0), 0),
  );
  const total = sums.reduce((a, b) => a + b, 0) || 1;
  const picker = h(
    "select",
    {
      data: { key: "load" },
      on: {
        change: ({ target }) => {
          state.loadOf = target.value;
          redraw();
        },
      },
    },
    h("option", { value: "all", text: "all layers" }),
    data.layers.map(({ layer }) => h("option", { value: layer, text: `layer ${layer}` })),
  );
  picker.value = chosen;
  return h(
    "section",
    { class: "load" },
    h(
      "div",
      { class: "bar-row" },
      h("h3", { text: "Load" }),
      h("label", { class: "inline" }, h("span", { text: "of" }), picker),
    ),
    h(
      "div",
      { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "Load of each expert" },
      barTable(
        `Tokens sent to each expert${whole ? "" : ", of those above"}`,
        ["expert", "load", "share"],
        sums.map((sum, e) => [String(e), sum, figure(sum), percent(sum / total)]),
      ),
    ),
  );
}

function entropy(data) {
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const of = (pick) => data.layers.map(({ entropy: all }) => pick(all) / Math.LN2);
  return h(
    "section",
    {},
    h("h3", { text: "Router entropy" }),
    lineChart({
      label: "Entropy of the router's distribution, by layer",
      x: data.layers.map(({ layer }) => layer),
      xLabel: "layer",
      yLabel: "entropy (bit)",
      series: [
        { name: "highest", values: of((all) => Math.max(...all)) },
        { name: "mean", values: of(mean) },
        { name: "lowest", values: of((all) => Math.min(...all)) },
      ],
      limit: { value: Math.max(...data.layers.map((row) => row.most_entropy)) / Math.LN2, name: "at most" },
    }),
  );
}
