// The most probable tokens of one distribution, as a list of bars; each can be a button.

import { h } from "../dom.js";
import { percent, written } from "../draw/text.js";

/** `top`: [{id, text, p}]; `real`: the id that really came; `pick(candidate)`: what a click does, or null. */
export function candidates(top, real = null, pick = null) {
  return h(
    "ol",
    { class: "candidates" },
    top.map((candidate) => {
      const { id, p } = candidate;
      const parts = [
        h("span", { class: "candidate-text token-text", text: written(candidate) }),
        h("span", { class: "candidate-bar" }, h("span", { class: "bar", style: { width: `${100 * p}%` } })),
        h("span", { class: "number", text: percent(p) }),
      ];
      const shown = pick
        ? h(
            "button",
            {
              type: "button",
              class: "candidate",
              title: `Continue with ${written(candidate)} (token ${id})`,
              data: { id: String(id) },
              on: { click: () => pick(candidate) },
            },
            parts,
          )
        : h("span", { class: "candidate", data: { id: String(id) } }, parts);
      return h("li", { class: id === real ? "real" : null }, shown);
    }),
  );
}
