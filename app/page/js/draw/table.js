// Tables: the other form of every picture, and bars, which are tables to begin with.

import { h } from "../dom.js";

/** `head`: texts; `rows`: lists of texts, the first of which names its row. */
export function table(caption, head, rows) {
  const line = ([first, ...rest]) =>
    h(
      "tr",
      {},
      h("th", { scope: "row", text: first }),
      rest.map((text) => h("td", { text })),
    );
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      { class: "data" },
      h("caption", { text: caption }),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          head.map((text) => h("th", { scope: "col", text })),
        ),
      ),
      h("tbody", {}, rows.map(line)),
    ),
  );
}

/** A table behind a fold, made when it is opened. */
export function foldedTable(label, make) {
  const folded = h("details", { class: "as-table" }, h("summary", { text: label }));
  folded.addEventListener("toggle", () => {
    if (folded.open && folded.childElementCount === 1) folded.append(make());
  });
  return folded;
}

/** Rows of [name, value, texts...], each with a bar as long as its value is of the largest. */
export function barTable(caption, head, rows) {
  const largest = Math.max(...rows.map(([, value]) => value), Number.MIN_VALUE);
  const line = ([name, value, ...texts]) =>
    h(
      "tr",
      {},
      h("th", { scope: "row", text: name }),
      h(
        "td",
        { class: "bar-cell", "aria-hidden": "true" },
        h("span", { class: "bar", style: { width: `${(100 * value) / largest}%` } }),
      ),
      texts.map((text) => h("td", { class: "number", text })),
    );
  const [first, ...rest] = head;
  return h(
    "table",
    { class: "bars" },
    h("caption", { text: caption }),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col", text: first }),
        h("td", { "aria-hidden": "true" }),
        rest.map((text) => h("th", { scope: "col", class: "number", text })),
      ),
    ),
    h("tbody", {}, rows.map(line)),
  );
}
