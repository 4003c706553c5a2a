// One message as it is drawn: who, the text, the thinking folded above it, what went wrong, and its buttons.

import { h } from "./dom.js";

/** Gives {element, show, finish}. `who`: "You", or the model; `actions`: [label, handler] of its buttons. */
export function messageView(role, who, text, actions) {
  const body = h("div", { class: "text said" }, document.createTextNode(text));
  const thinking = h("div", { class: "text" }, document.createTextNode(""));
  const folded = h("details", { class: "thinking", hidden: true }, h("summary", { text: "Thinking" }), thinking);
  const note = h("p", { class: "note", hidden: true });
  const buttons = h("div", { class: "actions" });
  for (const [label, handler] of actions) {
    buttons.append(
      h("button", { type: "button", class: "quiet", text: label, on: { click: (event) => handler(event.target) } }),
    );
  }
  const element = h(
    "article",
    { class: `message ${role}`, "aria-label": who },
    h("p", { class: "who", text: who }),
    folded,
    body,
    note,
    buttons,
  );
  return {
    element,
    /** What has been said by now: what was shown before, and more. */
    show({ content, thinking: thoughts }) {
      grow(body.firstChild, content);
      grow(thinking.firstChild, thoughts);
      folded.hidden = !thoughts;
    },
    /** `busy`: more is coming. `said`: a line under the message; `bad`: it is an error. */
    finish({ busy = false, said = "", bad = false }) {
      element.classList.toggle("busy", busy);
      element.setAttribute("aria-busy", busy);
      buttons.hidden = busy;
      note.textContent = said;
      note.hidden = !said;
      note.classList.toggle("bad", bad);
    },
  };
}

const grow = (node, text) => text.length > node.length && node.appendData(text.slice(node.length));

/** Copies text, also where the page came over plain http and the clipboard is not offered. */
export async function copy(text, button) {
  const label = button.textContent;
  let done = true;
  if (navigator.clipboard) {
    done = await navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  } else {
    const area = h("textarea", { class: "hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = done ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = label), 1500);
}
