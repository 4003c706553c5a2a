// The logit lens: what each layer would say next, if the model ended there.

import { h } from "../dom.js";
import { cellStyle } from "../draw/colour.js";
import { legend } from "../draw/legend.js";
import { figure, percent, short, written } from "../draw/text.js";
import { candidates } from "./candidates.js";
import { layerGrid } from "./grid.js";
import { tokenWindow } from "./window.js";

const SHOWN = 24; // tokens side by side
const TOP = 5;
const LETTERS = 9; // of a token in a cell
const HINT =
  "Each row reads the stream after one layer through the model's last norm and matrix. Outlined: what came next.";

export const layers = { id: "layers", label: "Logit lens", show };

async function show(panel, { ids, post, shape, redraw, state, answer }) {
  const part = tokenWindow(state, ids.length, Math.min(SHOWN, shape.limits.layers_positions), redraw);
  const { layers: numbers, cells } = await post("layers", { top: TOP, start: part.start, stop: part.stop });
  const nextId = (t) => ids[part.start + t + 1] ?? null;
  const detail = h("aside", { class: "detail", "aria-label": "The layer's candidates" });

  const describe = (l, t) => {
    const { top, entropy, rank } = cells[l][t];
    const next = answer.tokens[part.start + t + 1];
    const facts = [
      ["position", String(part.start + t)],
      ["entropy", `${figure(entropy / Math.LN2)} bit`],
    ];
    if (next) facts.push(["came next", written(next)], ["its rank here", String(rank)]);
    const token = h("span", { class: "token-text", text: written(answer.tokens[part.start + t]) });
    const title = l < numbers.length ? `Layer ${numbers[l]} after ` : "Output after ";
    detail.replaceChildren(
      h("h3", {}, title, token),
      h(
        "dl",
        { class: "facts" },
        facts.map(([name, value]) => [h("dt", { text: name }), h("dd", { text: value })]).flat(),
      ),
      candidates(
        top.map((each) => ({ ...each, p: each.prob })),
        nextId(t),
      ),
    );
  };
  const cell = (l, t) => {
    const [best] = cells[l][t].top;
    const right = best.id === nextId(t);
    const label = `${written(best)}, ${percent(best.prob)}${right ? ", which came" : ""}`;
    const properties = { class: right && "right", style: cellStyle(best.prob), data: { id: String(best.id) } };
    return [{ ...properties, "aria-label": label }, h("span", { class: "token-text", text: short(best, LETTERS) })];
  };
  const grid = layerGrid({
    label: "Most probable next token, by layer and position",
    kind: "logits",
    tokens: answer.tokens.slice(part.start, part.stop),
    start: part.start,
    names: [...numbers.map(String), "output"],
    cell,
    point: describe,
    begin: -1,
  });
  describe(cells.length - 1, part.stop - part.start - 1);
  const scale = legend("probability of the best", [
    [0, "0"],
    [0.5, "50 %"],
    [1, "100 %"],
  ]);
  panel.append(
    h("div", { class: "bar-row" }, scale, part.element),
    h("p", { class: "hint", text: HINT }),
    h("div", { class: "split" }, grid, detail),
  );
}
