// Attention maps: a small one for each head, on a canvas, and a large one whose cells can be pointed at, as SVG.

import { h, s } from "../dom.js";
import { css, sequential } from "./colour.js";
import { short } from "./text.js";

const CELL_MIN = 7,
  CELL_MAX = 22,
  SIDE = 560; // pixels of the large map
const LABEL = 92; // pixels for the tokens' texts
const LABELS_FROM = 9; // pixels of a cell below which texts would lie on each other

/** Attention is spread over orders of magnitude: the colour follows the root of the weight, as the legend says. */
export const shade = (weight) => Math.sqrt(Math.max(0, weight));

/** Whether key j can be seen from query i at all: what lies ahead is not part of the picture. */
export const seen = (map, q, k, i, j) => k[j] <= q[i] || map[i][j] > 0;

/** A map on a canvas of `side` CSS pixels. */
export function smallMap(map, q, k, side) {
  const sharp = Math.ceil(devicePixelRatio);
  const cell = Math.max(1, Math.round((side * sharp) / Math.max(q.length, k.length)));
  const canvas = h("canvas", {
    width: k.length * cell,
    height: q.length * cell,
    "aria-hidden": "true",
    data: { cell: String(cell) },
    style: { width: `${side}px`, height: `${(side * q.length) / k.length}px` },
  });
  const pen = canvas.getContext("2d");
  map.forEach((row, i) =>
    row.forEach((weight, j) => {
      if (!seen(map, q, k, i, j)) return;
      pen.fillStyle = css(sequential(shade(weight)));
      pen.fillRect(j * cell, i * cell, cell, cell);
    }),
  );
  return canvas;
}

/** A map whose cells are pointed at. `chosen(i, j, event)`: the cell under the pointer or the arrow keys, or (null). */
export function largeMap(map, q, k, tokens, label, chosen) {
  const cell = Math.min(CELL_MAX, Math.max(CELL_MIN, Math.floor(SIDE / k.length)));
  const width = LABEL + k.length * cell + 8,
    height = LABEL + q.length * cell + 8;
  const cells = map.flatMap((row, i) =>
    row.map((weight, j) =>
      seen(map, q, k, i, j)
        ? s("rect", {
            class: "cell",
            x: LABEL + j * cell,
            y: LABEL + i * cell,
            width: cell - 0.5,
            height: cell - 0.5,
            fill: css(sequential(shade(weight))),
            data: { i: String(i), j: String(j) },
          })
        : null,
    ),
  );
  const cursor = s("rect", { class: "cursor", width: cell, height: cell, visibility: "hidden" });
  const svg = s(
    "svg",
    { class: "map", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": label },
    s("text", { class: "axis", x: LABEL - 6, y: LABEL - 8, "text-anchor": "end", text: "query ↓  key →" }),
    texts(q, k, tokens, cell),
    cells,
    cursor,
  );
  const point = (i, j, event) => {
    cursor.setAttribute("visibility", i === null ? "hidden" : "visible");
    if (i !== null) {
      cursor.setAttribute("x", LABEL + j * cell);
      cursor.setAttribute("y", LABEL + i * cell);
    }
    chosen(i, j, event);
  };
  listen(svg, map, q, k, point);
  return svg;
}

function texts(q, k, tokens, cell) {
  const every = Math.max(1, Math.ceil(LABELS_FROM / cell));
  const size = Math.min(12, Math.max(8, cell - 1));
  const text = (position, transform, anchor) =>
    s("text", {
      class: "token-label",
      "font-size": size,
      transform,
      "text-anchor": anchor,
      text: short(tokens[position], 11),
    });
  const middle = (n) => LABEL + n * cell + cell / 2 + size / 3;
  return [
    q.map((position, i) => (i % every ? null : text(position, `translate(${LABEL - 6} ${middle(i)})`, "end"))),
    k.map((position, j) =>
      j % every ? null : text(position, `translate(${middle(j)} ${LABEL - 6}) rotate(-90)`, "start"),
    ),
  ].flat();
}

function listen(svg, map, q, k, point) {
  let at = [q.length - 1, 0];
  const of = (event) =>
    event.target.dataset?.i === undefined ? null : [Number(event.target.dataset.i), Number(event.target.dataset.j)];
  svg.addEventListener("pointermove", (event) => {
    const cell = of(event);
    if (cell) at = cell;
    point(...(cell ?? [null, null]), event);
  });
  svg.addEventListener("pointerleave", () => point(null, null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [i, j] = [at[0] + step[0], at[1] + step[1]];
    if (map[i]?.[j] !== undefined && seen(map, q, k, i, j)) at = [i, j];
    point(...at);
  });
}
