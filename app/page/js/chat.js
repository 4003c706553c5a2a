// The conversation: what was said, the request that is under way, and its end.

import { ApiError, lines } from "./api.js";
import { announce, byId } from "./dom.js";
import { quoted } from "./draw/text.js";
import { copy, messageView } from "./message.js";
import * as settings from "./settings.js";

const NEAR_END = 40; // pixels: who has scrolled up further is reading, and is left there

/** `look(subject)` puts a message under the microscope. Gives {stop}: whether there was something to stop. */
export function mountChat(look) {
  const said = []; // {role, content, thinking, model, drawing, view}
  let running = null; // the AbortController of the answer that comes

  const log = byId("log");
  const prompt = byId("prompt");

  function show() {
    byId("send").hidden = running !== null;
    byId("stop").hidden = running === null;
    byId("clear").disabled = said.length === 0;
    byId("empty").hidden = said.length > 0;
  }

  function add(role, content, model) {
    const message = { role, content, thinking: "", model, drawing: null };
    const actions = [
      ["Look inside", () => look(subject(message))],
      ["Copy", (button) => copy(message.content, button)],
    ];
    if (role === "assistant") actions.push(["Retry", () => retry(message)]);
    message.view = messageView(role, role === "user" ? "You" : model.replace(/:latest$/, ""), content, actions);
    message.view.finish({});
    said.push(message);
    log.append(message.view.element);
    log.scrollTop = log.scrollHeight;
    return message;
  }

  /** A message for the microscope: the conversation up to and including it. */
  function subject(message) {
    const at = said.indexOf(message);
    const kind = message.role === "user" ? "prompt" : "reply";
    return { model: message.model, messages: history(at), title: `${kind} ${quoted(message.content)}` };
  }

  /** The system prompt and everything up to and including message `last`, as the API takes it. A question whose answer
   *  never came is left out with it: many templates want turns to alternate. */
  function history(last) {
    const system = settings.systemPrompt();
    const empty = (i) => i < last && said[i].role === "assistant" && !said[i].content;
    const told = said.slice(0, last + 1).filter((_, i) => !empty(i) && !empty(i + 1));
    const plain = told.map(({ role, content }) => ({ role, content }));
    return system ? [{ role: "system", content: system }, ...plain] : plain;
  }

  async function answer(options) {
    const messages = history(said.length - 1);
    const reply = add("assistant", "", settings.model());
    const control = (running = new AbortController());
    reply.view.finish({ busy: true });
    show();
    announce("The model is answering.");
    try {
      const request = { model: reply.model, messages, options, stream: true };
      let done = false;
      for await (const line of lines("/api/chat", request, control.signal)) done = receive(reply, line);
      if (!done) throw new ApiError("the answer was cut", 0);
      announce("The answer is complete.");
    } catch (error) {
      const stopped = error.name === "AbortError";
      end(reply, { said: stopped ? "Stopped." : error.message, bad: !stopped });
      announce(stopped ? "Stopped." : `Error: ${error.message}`);
    } finally {
      if (running === control) running = null;
      show();
    }
  }

  function receive(reply, line) {
    const { content = "", thinking = "" } = line.message ?? {};
    reply.content += content;
    reply.thinking += thinking;
    if (line.done) end(reply, { said: figures(line) });
    else reply.drawing ??= requestAnimationFrame(() => draw(reply)); // once a frame, however fast the model is
    return line.done;
  }

  function draw(reply) {
    const reading = log.scrollHeight - log.scrollTop - log.clientHeight > NEAR_END;
    cancelAnimationFrame(reply.drawing);
    reply.drawing = null;
    reply.view.show(reply);
    if (!reading) log.scrollTop = log.scrollHeight;
  }

  function end(reply, how) {
    reply.view.finish(how);
    draw(reply);
  }

  function figures({ eval_count: tokens, eval_duration: nanoseconds, done_reason: reason }) {
    const speed = nanoseconds > 0 ? ` · ${((tokens - 1) / (nanoseconds / 1e9)).toFixed(1)} tokens/s` : "";
    return `${tokens} tokens${tokens > 1 ? speed : ""}${reason === "length" ? " · cut at the limit" : ""}`;
  }

  /** The numbers as they are set; null, and said why, where one cannot be used. */
  function wished() {
    byId("trouble").hidden = true;
    try {
      return settings.options();
    } catch (error) {
      byId("trouble").textContent = error.message;
      byId("trouble").hidden = false;
      return null;
    }
  }

  function drop(from) {
    for (const { view } of said.splice(from)) view.element.remove();
    show();
  }

  function retry(message) {
    const options = wished();
    if (!options) return;
    stop();
    drop(said.indexOf(message));
    prompt.focus(); // the button that was pressed is gone
    answer(options);
  }

  function send() {
    const text = prompt.value.trim();
    if (!text || running || byId("send").disabled) return;
    const options = wished();
    if (!options) return;
    prompt.value = "";
    add("user", text, settings.model());
    answer(options);
  }

  function stop() {
    running?.abort();
    return running !== null;
  }

  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  byId("stop").addEventListener("click", () => {
    stop();
    prompt.focus();
  });
  byId("clear").addEventListener("click", () => {
    stop();
    drop(0);
    prompt.focus();
  });
  return { stop };
}
