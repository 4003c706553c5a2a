// Attention: which earlier tokens a head looks at. All heads of a layer side by side, or one, cell by cell.

import { h } from "../dom.js";
import { legend } from "../draw/legend.js";
import { largeMap, shade, smallMap } from "../draw/maps.js";
import { foldedTable, table } from "../draw/table.js";
import { figure, written } from "../draw/text.js";
import { hideTip, showTip } from "../draw/tip.js";

const small = (heads) => (heads <= 12 ? 168 : 116); // pixels of a small map

export const attention = { id: "attention", label: "Attention", show };

async function show(panel, { post, shape, state, redraw, answer }) {
  const layersWith = shape.has_attention;
  if (!layersWith.length) {
    panel.append(h("p", { class: "empty", text: "No layer of this model has attention." }));
    return;
  }
  const chosen = (state.attention ??= { layer: layersWith[0], head: null });
  const { layer, head } = chosen;
  const data = await post("attention", { layer, ...(head === null ? {} : { head }) });
  const picker = (label, values, value, set) =>
    h(
      "label",
      { class: "inline" },
      h("span", { text: label }),
      select(label, values, value, (picked) => {
        set(picked);
        redraw();
      }),
    );
  const heads = Array.from({ length: data.n_heads }, (_, i) => [String(i), `head ${i}`]);
  panel.append(
    h(
      "div",
      { class: "bar-row" },
      picker(
        "Layer",
        layersWith.map((l) => [String(l), String(l)]),
        String(layer),
        (value) => {
          chosen.layer = Number(value);
          if (chosen.head !== null && chosen.head >= (shape.n_heads[chosen.layer] ?? Infinity)) chosen.head = null;
        },
      ),
      picker(
        "Head",
        [["all", "all"], ...heads],
        head === null ? "all" : String(head),
        (value) => (chosen.head = value === "all" ? null : Number(value)),
      ),
      legend(
        "weight",
        [0, 0.1, 0.5, 1].map((weight) => [shade(weight), String(weight)]),
      ),
    ),
    data.downsampled
      ? h("p", { class: "hint", text: `Too long to draw each token: a cell shows the ${data.how} of several.` })
      : "",
    data.sinks
      ? h("p", {
          class: "hint",
          text: "Part of every row goes to a sink, which is no token: the weights add up to less than 1.",
        })
      : "",
    head === null
      ? allHeads(data, answer.tokens, (picked) => {
          chosen.head = picked;
          redraw();
        })
      : oneHead(data, answer.tokens),
  );
}

function select(key, values, value, picked) {
  const element = h(
    "select",
    { data: { key }, on: { change: ({ target }) => picked(target.value) } },
    values.map(([each, text]) => h("option", { value: each, text })),
  );
  element.value = value;
  return element;
}

function words(data, tokens, i, j, weight) {
  const at = (position) => `${written(tokens[position])} (${position})`;
  return [`query ${at(data.q[i])}`, `key ${at(data.k[j])}`, `weight ${figure(weight)}`];
}

function allHeads(data, tokens, pick) {
  const button = (map, head) => {
    const canvas = smallMap(map, data.q, data.k, small(data.maps.length));
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const i = Math.floor(((event.clientY - box.top) * data.q.length) / box.height);
      const j = Math.floor(((event.clientX - box.left) * data.k.length) / box.width);
      const weight = map[i]?.[j];
      if (weight === undefined || data.k[j] > data.q[i]) hideTip();
      else showTip(event, `head ${head}`, ...words(data, tokens, i, j, weight));
    });
    canvas.addEventListener("pointerleave", hideTip);
    return h(
      "button",
      {
        type: "button",
        class: "head",
        data: { head: String(head) },
        "aria-label": `Head ${head}: show it alone`,
        on: {
          click: () => {
            hideTip();
            pick(head);
          },
        },
      },
      canvas,
      h("span", { text: String(head) }),
    );
  };
  const strongest = (map) => {
    const last = map.at(-1);
    const j = last.indexOf(Math.max(...last));
    return [written(tokens[data.k[j]]), String(data.k[j]), figure(last[j])];
  };
  const caption = `Layer ${data.layer}: where the last query of each head looks most`;
  return h(
    "div",
    {},
    h("div", { class: "heads", role: "group", "aria-label": `Heads of layer ${data.layer}` }, data.maps.map(button)),
    h("p", {
      class: "hint",
      text: "Rows are queries, from top to bottom; columns are the keys they look at. Click a head to see it alone.",
    }),
    foldedTable("As a table", () =>
      table(
        caption,
        ["head", "key", "position", "weight"],
        data.maps.map((map, head) => [String(head), ...strongest(map)]),
      ),
    ),
  );
}

function oneHead(data, tokens) {
  const [map] = data.maps;
  const readout = h("p", { class: "readout", role: "status", text: "Point at a cell, or move with the arrow keys." });
  const label = `Attention of layer ${data.layer}: ${data.q.length} queries by ${data.k.length} keys. Arrow keys read the weights; the table below has them all.`;
  const svg = largeMap(map, data.q, data.k, tokens, label, (i, j, event) => {
    if (i === null) return hideTip();
    const lines = words(data, tokens, i, j, map[i][j]);
    readout.textContent = lines.join(", ");
    if (event) showTip(event, ...lines);
  });
  const heading = (position) => `${position} ${written(tokens[position])}`;
  const all = () =>
    table(
      "Weights: a query in each row, a key in each column",
      ["query", ...data.k.map(heading)],
      data.q.map((position, i) => [
        heading(position),
        ...map[i].map((weight, j) => (data.k[j] <= position || weight > 0 ? figure(weight) : "")),
      ]),
    );
  return h("div", {}, h("div", { class: "scroll map-scroll" }, svg), readout, foldedTable("As a table", all));
}
