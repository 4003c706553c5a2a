// A line chart over layers: axes with numbers, a name at the end of each line, values under pointer and arrow keys.

import { h, s } from "../dom.js";
import { figure } from "./text.js";
import { foldedTable, table } from "./table.js";
import { hideTip, showTip } from "./tip.js";

const WIDTH = 760,
  HEIGHT = 320;
const EDGE = { left: 62, right: 118, top: 16, bottom: 44 };
const NAME_GAP = 14; // pixels between the names at the ends of lines

/** `x`: numbers of layers; `series`: [{name, values}], a value null where there is none; `log`: logarithmic y;
 *  `limit`: {value, name}, a dashed line that values cannot pass. Gives a figure with a table under it. */
export function lineChart({ label, x, xLabel, yLabel, series, log = false, limit = null }) {
  const all = series.flatMap(({ values }) => values).filter((y) => y !== null && (!log || y > 0));
  if (limit) all.push(limit.value);
  const y = log ? logScale(all) : linearScale(all);
  const inner = { width: WIDTH - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom };
  const px = (i) => EDGE.left + (x.length > 1 ? (i * inner.width) / (x.length - 1) : inner.width / 2);
  const py = (value) => EDGE.top + inner.height * (1 - y.place(value));
  const rule = s("line", { class: "rule", y1: EDGE.top, y2: EDGE.top + inner.height, visibility: "hidden" });
  const readout = h("p", { class: "readout", role: "status" });
  const svg = s(
    "svg",
    {
      class: "chart",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: "img",
      tabindex: 0,
      "aria-label": `${label}. Left and right arrows read the values; the same numbers are in the table below.`,
    },
    yAxis(y, py, yLabel),
    xAxis(x, px, xLabel),
    rule,
    limit
      ? s("line", { class: "limit", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: py(limit.value), y2: py(limit.value) })
      : null,
    series.map(({ values }, i) => s("path", { class: `line series-${i % 6}`, d: path(values, px, py, log) })),
    x.length === 1
      ? series
          .filter(({ values }) => values[0] !== null)
          .map(({ values }, i) => s("circle", { class: `dot series-${i % 6}`, cx: px(0), cy: py(values[0]), r: 3 }))
      : null,
    names(series, limit, py),
  );
  const at = (i) => series.map(({ name, values }) => `${name}  ${values[i] === null ? "–" : figure(values[i])}`);
  follow(svg, x.length, px, (i, event) => {
    rule.setAttribute("visibility", i === null ? "hidden" : "visible");
    if (i === null) return hideTip();
    rule.setAttribute("x1", px(i));
    rule.setAttribute("x2", px(i));
    if (event) showTip(event, `${xLabel} ${x[i]}`, ...at(i));
    else readout.textContent = `${xLabel} ${x[i]}: ${at(i).join(", ")}`;
  });
  const rows = () =>
    x.map((name, i) => [String(name), ...series.map(({ values }) => (values[i] === null ? "–" : figure(values[i])))]);
  return h(
    "figure",
    {},
    svg,
    readout,
    foldedTable("As a table", () => table(label, [xLabel, ...series.map(({ name }) => name)], rows())),
  );
}

/** Calls `chosen(index, event)` for the point nearest to the pointer, (index) for arrow keys, (null) when left. */
function follow(svg, n, px, chosen) {
  let at = -1;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) * WIDTH) / box.width;
    const nearest = Array.from({ length: n }, (_, i) => Math.abs(px(i) - x));
    chosen(nearest.indexOf(Math.min(...nearest)), event);
  });
  svg.addEventListener("pointerleave", () => chosen(null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    at = Math.min(n - 1, Math.max(0, at + step));
    chosen(at);
  });
}

function path(values, px, py, log) {
  let pen = "M";
  return values
    .map((value, i) => {
      if (value === null || (log && value <= 0)) {
        pen = "M";
        return "";
      }
      const point = `${pen}${px(i).toFixed(1)} ${py(value).toFixed(1)}`;
      pen = "L";
      return point;
    })
    .join("");
}

function linearScale(values) {
  const high = Math.max(...values, 1e-9);
  const raw = high / 4,
    ten = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * ten).find((m) => m >= raw);
  const top = Math.ceil(high / step - 1e-9) * step;
  return { place: (v) => v / top, ticks: Array.from({ length: Math.round(top / step) + 1 }, (_, i) => i * step) };
}

/** From one round number to another: 1, 2 and 5 of each decade, or its beginning alone where there are many. */
function logScale(values) {
  const [least, most] = values.length ? [Math.min(...values), Math.max(...values)] : [1, 1];
  const decades = Array.from(
    { length: Math.ceil(Math.log10(most)) - Math.floor(Math.log10(least)) + 2 },
    (_, i) => 10 ** (Math.floor(Math.log10(least)) + i),
  );
  const steps = decades.flatMap((ten) => (decades.length > 5 ? [ten] : [ten, 2 * ten, 5 * ten]));
  const from = steps.findLastIndex((step) => step <= least * 1.0001);
  const ticks = steps.slice(
    from,
    Math.max(
      steps.findIndex((step) => step >= most * 0.9999),
      from + 1,
    ) + 1,
  );
  const [low, high] = [Math.log10(ticks[0]), Math.log10(ticks.at(-1))];
  return { place: (v) => (Math.log10(v) - low) / (high - low), ticks };
}

function yAxis(y, py, label) {
  const tick = (value) =>
    s(
      "g",
      {},
      s("line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: py(value), y2: py(value) }),
      s("text", { class: "tick", x: EDGE.left - 8, y: py(value) + 4, "text-anchor": "end", text: figure(value) }),
    );
  const middle = (EDGE.top + HEIGHT - EDGE.bottom) / 2;
  return s(
    "g",
    {},
    y.ticks.map(tick),
    s("text", {
      class: "axis",
      x: 14,
      y: middle,
      "text-anchor": "middle",
      transform: `rotate(-90 14 ${middle})`,
      text: label,
    }),
  );
}

function xAxis(x, px, label) {
  const every = Math.ceil(x.length / 16);
  const ticks = x.map((value, i) =>
    i % every
      ? null
      : s("text", { class: "tick", x: px(i), y: HEIGHT - EDGE.bottom + 18, "text-anchor": "middle", text: value }),
  );
  return s(
    "g",
    {},
    ticks.filter(Boolean),
    s("text", {
      class: "axis",
      x: (EDGE.left + WIDTH - EDGE.right) / 2,
      y: HEIGHT - 6,
      "text-anchor": "middle",
      text: label,
    }),
  );
}

/** The names, each at the end of its line, moved apart where they would cover each other. */
function names(series, limit, py) {
  const last = (values) => values.findLast((value) => value !== null) ?? 0;
  const places = series.map(({ name, values }, i) => ({ name, y: py(last(values)), kind: `name series-${i % 6}` }));
  if (limit) places.push({ name: limit.name, y: py(limit.value), kind: "name limit" });
  places.sort((a, b) => a.y - b.y);
  for (let i = 0; i < places.length; i++) {
    const before = i ? places[i - 1].y + NAME_GAP : EDGE.top;
    places[i].y = Math.min(Math.max(places[i].y, before), HEIGHT);
  }
  const over = Math.max(0, (places.at(-1)?.y ?? 0) - (HEIGHT - EDGE.bottom));
  return s(
    "g",
    {},
    places.map(({ name, y, kind }) =>
      s("text", { class: kind, x: WIDTH - EDGE.right + 8, y: y - over + 4, text: name }),
    ),
  );
}
