// Memory by part of the model, as it is loaded now.

import { h } from "../dom.js";
import { barTable } from "../draw/table.js";
import { bytes, percent } from "../draw/text.js";

export const memory = { id: "memory", label: "Memory", show };

async function show(panel, { post }) {
  const { parts, total } = await post("memory");
  const rows = [...parts]
    .sort((a, b) => b.bytes - a.bytes)
    .map((part) => [part.name, part.bytes, bytes(part.bytes), percent(total ? part.bytes / total : 0)]);
  panel.append(
    h("p", { class: "fact-line", text: `${bytes(total)} in all.` }),
    barTable("Memory of each part", ["part", "size", "share"], rows),
  );
}
