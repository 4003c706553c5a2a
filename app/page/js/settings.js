// The model and the numbers of a request. Kept in this browser, so that a reload keeps them.

import { get } from "./api.js";
import { byId, h } from "./dom.js";

const KEY = "ref-engine.settings";
const FIELDS = ["system", "temperature", "seed", "num_predict"];
const NUMBERS = ["temperature", "seed", "num_predict"];

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // somebody else's writing
  }
}

function keep() {
  const values = Object.fromEntries([...FIELDS, "model"].map((name) => [name, byId(name).value]));
  localStorage.setItem(KEY, JSON.stringify(values));
}

/** Fills the fields and the list of models. Gives how many models there are. */
export async function mountSettings() {
  const before = stored();
  for (const name of FIELDS) byId(name).value = typeof before[name] === "string" ? before[name] : "";
  for (const name of [...FIELDS, "model"]) byId(name).addEventListener("change", keep);
  const { models } = await get("/api/tags");
  const picker = byId("model");
  const option = ({ name, details }) => h("option", { value: name, text: optionText(name, details) });
  picker.replaceChildren(...(models.length ? models.map(option) : [h("option", { text: "none" })]));
  if (models.some(({ name }) => name === before.model)) picker.value = before.model;
  picker.disabled = models.length === 0;
  return models.length;
}

function optionText(name, details) {
  const facts = [details?.parameter_size, details?.quantization_level].filter(Boolean);
  return [name, ...facts].join("  ·  ");
}

export const model = () => byId("model").value;
export const systemPrompt = () => byId("system").value.trim();

/** Ollama's `options`, of which only those that were given. Throws a RangeError that names a field out of range. */
export function options() {
  const given = {};
  for (const name of NUMBERS) {
    const field = byId(name);
    if (!field.validity.valid)
      throw new RangeError(`${field.labels[0].firstChild.data.trim()}: ${field.validationMessage}`);
    if (field.value !== "") given[name] = Number(field.value);
  }
  return given;
}
