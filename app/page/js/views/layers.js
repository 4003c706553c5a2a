// The logit lens: what each layer would say next, if the model ended there.

import { h, roving } from "../dom.js";
import { cellStyle } from "../draw/colour.js";
import { legend } from "../draw/legend.js";
import { figure, percent, short, written } from "../draw/text.js";
import { candidates } from "./candidates.js";
import { tokenWindow } from "./window.js";

const SHOWN = 24; // tokens side by side
const TOP = 5;

export const layers = { id: "layers", label: "Logit lens", show };

async function show(panel, { ids, post, redraw, state, answer }) {
  const part = tokenWindow(state, ids.length, SHOWN, redraw);
  const data = await post("layers", { top: TOP, start: part.start, stop: part.stop });
  const shown = answer.tokens.slice(part.start, part.stop);
  const nextId = (t) => ids[part.start + t + 1] ?? null;
  const detail = h("aside", { class: "detail", "aria-label": "The layer's candidates" });
  const name = (l) => (l < data.layers.length ? String(data.layers[l]) : "output");

  const describe = (l, t) => {
    const { top, entropy, rank } = data.cells[l][t];
    const next = answer.tokens[part.start + t + 1];
    detail.replaceChildren(
      h("h3", {}, l < data.layers.length ? `Layer ${name(l)}` : "Output", " after ", h("span", { class: "token-text", text: written(shown[t]) })),
      h("dl", { class: "facts" },
        h("dt", { text: "position" }), h("dd", { text: String(part.start + t) }),
        h("dt", { text: "entropy" }), h("dd", { text: `${figure(entropy / Math.log(2))} bit` }),
        next ? [h("dt", { text: "came next" }), h("dd", { class: "token-text", text: written(next) })] : null,
        next ? [h("dt", { text: "its rank here" }), h("dd", { text: String(rank) })] : null),
      candidates(top.map((each) => ({ ...each, p: each.prob })), nextId(t)));
  };
  const cell = (l, t) => {
    const best = data.cells[l][t].top[0];
    const right = best.id === nextId(t);
    const td = h("td", { role: "gridcell", tabindex: -1, class: right ? "right" : null, style: cellStyle(best.prob), data: { l: String(l), t: String(t), id: String(best.id) },
      "aria-label": `${written(best)}, ${percent(best.prob)}${right ? ", which came" : ""}` }, h("span", { class: "token-text", text: short(best, 9) }));
    td.addEventListener("pointerenter", () => describe(l, t));
    td.addEventListener("focus", () => describe(l, t));
    td.addEventListener("click", () => td.focus());
    return td;
  };
  const grid = h("table", { class: "lens", role: "grid", "aria-label": "Most probable next token, by layer and position" },
    h("thead", {}, h("tr", { role: "row" }, h("th", { scope: "col", class: "corner", text: "layer" }),
      shown.map((token, t) => h("th", { scope: "col", title: `${part.start + t}: ${written(token)}` }, h("span", { class: "token-text", text: short(token, 9) }))))),
    h("tbody", {}, data.cells.map((row, l) => h("tr", { role: "row" }, h("th", { scope: "row", text: name(l) }), row.map((_, t) => cell(l, t))))));
  const cells = [...grid.querySelectorAll("td")];
  roving(grid, () => cells, () => shown.length);
  const last = cells.at(-1);
  last.tabIndex = 0;
  describe(data.cells.length - 1, shown.length - 1);
  panel.append(
    h("div", { class: "bar-row" }, legend("probability of the best", [[0, "0"], [0.5, "50 %"], [1, "100 %"]]), part.element),
    h("p", { class: "hint", text: "Each row reads the stream after one layer through the model's last norm and matrix. Outlined: the token that really came next." }),
    h("div", { class: "split" }, h("div", { class: "scroll lens-scroll" }, grid), detail));
}
