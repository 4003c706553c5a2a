// A window over a long text: views that draw every token draw this many at once.

import { h } from "../dom.js";

/** {start, stop, element}: the part that is shown, and the buttons that move it; `element` is null where all fits.
 *  The window belongs to the text (`state`), so that views show the same part; at first it is the end. */
export function tokenWindow(state, total, size, redraw) {
  if (total <= size) return { start: 0, stop: total, element: null };
  const start = Math.min(Math.max(0, state.window ?? total - size), total - size);
  const move = (by) => () => {
    state.window = Math.min(Math.max(0, start + by), total - size);
    redraw();
  };
  const button = (text, by, off) =>
    h("button", { type: "button", text, disabled: off, data: { key: text }, on: { click: move(by) } });
  const element = h(
    "div",
    { class: "window", role: "group", "aria-label": "Part of the text" },
    button("‹ Earlier", -size, start === 0),
    h("span", { text: `tokens ${start}–${start + size - 1} of ${total}` }),
    button("Later ›", size, start + size >= total),
  );
  return { start, stop: start + size, element };
}
