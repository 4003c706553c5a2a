// Norms over depth: how large the stream and what is added to it are, after each layer.

import { h } from "../dom.js";
import { lineChart } from "../draw/lines.js";
import { short } from "../draw/text.js";

const NAMES = 6; // of values at most
const HINT =
  "Root mean square of each vector, on a logarithmic axis. The first token is often far larger than the others.";

export const norms = { id: "norms", label: "Norms", show };

async function show(panel, { post, ids, shape, state, redraw, answer }) {
  const fit = Math.floor(shape.limits.numbers / (shape.n_layers * NAMES)); // of a long text, the end
  const data = await post("norms", { start: Math.max(0, ids.length - fit) });
  const chosen = state.normOf ?? "median";
  const token = chosen === "median" ? null : Number(chosen);
  const value = (row) => (!row ? null : token === null ? median(row) : (row[token - data.start] ?? null));
  const series = data.names.map((name) => ({ name, values: data.values[name].map(value) }));
  const picker = h(
    "select",
    {
      data: { key: "norm" },
      on: {
        change: ({ target }) => {
          state.normOf = target.value;
          redraw();
        },
      },
    },
    h("option", { value: "median", text: "median of all tokens" }),
    answer.tokens
      .slice(data.start)
      .map((token, i) => h("option", { value: i + data.start, text: `${i + data.start}: ${short(token, 16)}` })),
  );
  picker.value = chosen;
  panel.append(
    h("div", { class: "bar-row" }, h("label", { class: "inline" }, h("span", { text: "Token" }), picker)),
    h("p", { class: "hint", text: HINT }),
    lineChart({
      label: "Root mean square by layer",
      x: data.layers,
      xLabel: "layer",
      yLabel: "RMS",
      series,
      log: true,
    }),
  );
}

function median(values) {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!known.length) return null;
  const half = known.length >> 1;
  return known.length % 2 ? known[half] : (known[half - 1] + known[half]) / 2;
}
