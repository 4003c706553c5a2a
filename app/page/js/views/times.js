// Time per operation of one pass over these tokens.

import { h } from "../dom.js";
import { barTable } from "../draw/table.js";
import { count, milliseconds, percent } from "../draw/text.js";

export const times = { id: "times", label: "Time", show };

async function show(panel, { post, state, redraw }) {
  const data = await post("times", {}, { fresh: state.measureAgain });
  state.measureAgain = false;
  const again = () => {
    state.measureAgain = true;
    redraw();
  };
  const rows = [...data.operations]
    .sort((a, b) => b.ms - a.ms)
    .map(({ name, tensors, calls, ms, share }) => [
      [name, tensors].filter(Boolean).join(" "),
      ms,
      milliseconds(ms),
      percent(share),
      count(calls),
    ]);
  panel.append(
    h(
      "div",
      { class: "bar-row" },
      h("p", {
        class: "fact-line",
        text: `One pass over ${count(data.tokens)} tokens took ${milliseconds(data.total_ms)} on ${data.backend}, ${data.activations}.`,
      }),
      h("button", { type: "button", text: "Measure again", data: { key: "again" }, on: { click: again } }),
    ),
    barTable("Time of each operation", ["operation", "time", "share", "calls"], rows),
  );
}
