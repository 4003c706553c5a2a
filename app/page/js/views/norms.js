// Norms over depth: how large the stream and what is added to it are, after each layer.

import { h } from "../dom.js";
import { lineChart } from "../draw/lines.js";
import { short } from "../draw/text.js";

export const norms = { id: "norms", label: "Norms", show };

async function show(panel, { post, state, redraw, answer }) {
  const data = await post("norms");
  const chosen = state.normOf ?? "median";
  const token = chosen === "median" ? null : Number(chosen);
  const value = (row) => (!row ? null : token === null ? median(row) : row[token] ?? null);
  const series = data.names.map((name) => ({ name, values: data.values[name].map(value) }));
  const picker = h("select", { data: { key: "norm" }, on: { change: ({ target }) => {
    state.normOf = target.value;
    redraw();
  } } }, h("option", { value: "median", text: "median of all tokens" }),
    answer.tokens.map((token, t) => h("option", { value: t, text: `${t}: ${short(token, 16)}` })));
  picker.value = chosen;
  panel.append(
    h("div", { class: "bar-row" }, h("label", { class: "inline" }, h("span", { text: "Token" }), picker)),
    h("p", { class: "hint", text: "Root mean square of each vector, on a logarithmic axis. The first token is often far larger than the others: heads rest on it." }),
    lineChart({ label: "Root mean square by layer", x: data.layers, xLabel: "layer", yLabel: "RMS", series, log: true }));
}

function median(values) {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!known.length) return null;
  const half = known.length >> 1;
  return known.length % 2 ? known[half] : (known[half - 1] + known[half]) / 2;
}
