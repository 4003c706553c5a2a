// The dialog that asks for the API key, where the server was started with one.

import { byId } from "./dom.js";

/** Shows the dialog; gives the key, or null where it was cancelled. `problem`: why it asks again. */
export function askForKey(problem) {
  const dialog = byId("key");
  const form = dialog.querySelector("form");
  const field = byId("key-value");
  byId("key-problem").textContent = problem ?? "";
  byId("key-problem").hidden = problem === null;
  field.value = "";
  return new Promise((resolve) => {
    const events = new AbortController();
    const end = (key) => {
      events.abort();
      if (dialog.open) dialog.close();
      resolve(key);
    };
    const on = (target, name, handler) => target.addEventListener(name, handler, { signal: events.signal });
    on(form, "submit", (event) => {
      event.preventDefault();
      end(field.value.trim());
    });
    on(byId("key-cancel"), "click", () => end(null));
    on(dialog, "close", () => end(null)); // Esc
    dialog.showModal();
  });
}
