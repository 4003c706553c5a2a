// What the colours mean: a strip of the scale with its numbers.

import { h } from "../dom.js";
import { css, sequential } from "./colour.js";

const STEPS = 24;

/** `ticks`: [place from 0 to 1, text]. */
export function legend(label, ticks) {
  const stops = Array.from({ length: STEPS + 1 }, (_, i) => `${css(sequential(i / STEPS))} ${(100 * i) / STEPS}%`);
  const strip = h("span", {
    class: "legend-strip",
    style: { background: `linear-gradient(to right, ${stops.join(",")})` },
  });
  const marks = ticks.map(([at, text]) => h("span", { text, style: { left: `${100 * at}%` } }));
  return h(
    "div",
    { class: "legend", role: "img", "aria-label": `${label}: ${ticks.map(([, text]) => text).join(" to ")}` },
    h("span", { class: "legend-label", text: label }),
    h("span", { class: "legend-scale" }, strip, h("span", { class: "legend-ticks" }, marks)),
  );
}
