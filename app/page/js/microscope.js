// What lies under the microscope, and the views of it. A view is asked to `show` itself on a panel and gets what it
// needs as `tools`; its requests are kept for as long as the text stays, and end when another view is opened.

import { post } from "./api.js";
import { continuation } from "./continuation.js";
import { announce, byId, h, roving } from "./dom.js";
import { hideTip } from "./draw/tip.js";
import { quoted, short } from "./draw/text.js";
import * as settings from "./settings.js";
import { onTheme } from "./theme.js";
import { attention } from "./views/attention.js";
import { experts } from "./views/experts.js";
import { layers } from "./views/layers.js";
import { memory } from "./views/memory.js";
import { norms } from "./views/norms.js";
import { times } from "./views/times.js";
import { tokens } from "./views/tokens.js";

const VIEWS = [tokens, layers, attention, experts, norms, times, memory];
const TOP = 10; // alternatives at each token

/** Gives {look(subject), stop()}. A subject: {model, title, and prompt and raw, or messages, or tokens}. */
export function mountMicroscope() {
  const panel = byId("view");
  let view = tokens;
  let trail = []; // what was looked at: the text, and its continuations
  let subject = null; // the one of them that is shown: also {answer, shape, cache, state}
  let work = new AbortController();
  let coming = null; // a continuation that is being generated

  const tabs = VIEWS.map(({ id, label }) =>
    h("button", {
      type: "button",
      role: "tab",
      id: `tab-${id}`,
      "aria-controls": "view",
      text: label,
      on: { click: () => open(VIEWS.find((other) => other.id === id)) },
    }),
  );
  byId("tabs").append(...tabs);
  roving(byId("tabs"), () => tabs);

  function look(wanted) {
    coming?.abort();
    trail = [wanted];
    byId("microscope").classList.add("in-use"); // as tall as the window, so that it can come to its top
    byId("microscope").scrollIntoView({ block: "start" });
    byId("microscope").focus({ preventScroll: true });
    return go(wanted);
  }

  /** Show one of the trail. Views stay as they were; a new text begins at its tokens. */
  function go(wanted) {
    if (!wanted.cache) Object.assign(wanted, { cache: new Map(), state: {} });
    if (!wanted.answer) view = tokens;
    subject = wanted;
    byId("subject").textContent = `${wanted.model} · ${wanted.title}`;
    showTrail();
    return open(view);
  }

  function showTrail() {
    byId("trail").hidden = trail.length < 2;
    byId("trail").replaceChildren(
      ...trail.map((each, i) =>
        h("button", {
          type: "button",
          class: "quiet",
          "aria-current": each === subject ? "true" : null,
          text: i ? each.step : "Original",
          on: { click: () => go(each) },
        }),
      ),
    );
  }

  async function open(wanted) {
    work.abort();
    work = new AbortController();
    const { signal } = work;
    view = wanted;
    hideTip();
    byId("tabs").hidden = panel.hidden = false;
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", VIEWS[i] === view);
      tab.tabIndex = VIEWS[i] === view ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `tab-${view.id}`);
    await shown(signal);
  }

  async function shown(signal) {
    const looked = subject;
    const focused = panel.contains(document.activeElement) ? (document.activeElement.dataset.key ?? "") : null;
    panel.setAttribute("aria-busy", "true");
    const waiting = setTimeout(() => panel.replaceChildren(h("p", { class: "waiting", text: "Computing…" })), 150);
    try {
      await known(looked, signal);
      const fresh = h("div", { class: `view-${view.id}` });
      await view.show(fresh, tools(looked, signal));
      if (signal.aborted) return;
      panel.replaceChildren(fresh);
      panel.dataset.shown = view.id;
      keepFocus(focused);
      announce(`${view.label} shown.`);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Error) || !error.status) console.warn(error);
      panel.replaceChildren(h("p", { class: "problem", role: "alert", text: error.message }));
      panel.dataset.shown = "error";
    } finally {
      clearTimeout(waiting);
      if (!signal.aborted) panel.removeAttribute("aria-busy");
    }
  }

  /** A view that draws itself anew must not lose the place of who works by keyboard. */
  function keepFocus(key) {
    if (key === null || (document.activeElement !== document.body && !panel.contains(document.activeElement))) return;
    const same = key && panel.querySelector(`[data-key="${key}"]`);
    (same || panel).focus({ preventScroll: true });
  }

  /** Everything that all views need: the tokens with their alternatives, and the shape of the model. */
  async function known(looked, signal) {
    const { model, prompt, raw, messages, tokens: ids } = looked;
    looked.shape ??= await post("/api/lens/shape", { model }, signal);
    looked.answer ??= await post("/api/lens/tokens", { model, prompt, raw, messages, tokens: ids, top: TOP }, signal);
    looked.ids = looked.answer.tokens.map(({ id }) => id);
  }

  function tools(looked, signal) {
    return {
      answer: looked.answer,
      ids: looked.ids,
      shape: looked.shape,
      problem: looked.problem,
      state: looked.state,
      coming: looked === coming?.branch ? coming : null,
      continueFrom: (position, candidate) => continueFrom(looked, position, candidate),
      redraw: () => open(view),
      /** The answer about these tokens; asked for once. */
      async post(name, extra = {}, { fresh = false } = {}) {
        const key = JSON.stringify([name, extra]);
        if (fresh || !looked.cache.has(key)) {
          looked.cache.set(
            key,
            await post(`/api/lens/${name}`, { model: looked.model, tokens: looked.ids, ...extra }, signal),
          );
        }
        return looked.cache.get(key);
      },
    };
  }

  /** Another token at a position, and what the model says after it. */
  async function continueFrom(looked, position, candidate) {
    coming?.abort();
    const { model, shape, ids, title } = looked;
    const kept = [...looked.answer.tokens.slice(0, position), { ...candidate, top: [] }];
    const branch = {
      model,
      shape,
      title,
      tokens: [...ids.slice(0, position), candidate.id],
      state: {},
      cache: new Map(),
      step: `${position}: ${short(candidate)}`,
      answer: { tokens: kept, next: null },
    };
    trail = [...trail.slice(0, trail.indexOf(looked) + 1), branch];
    view = tokens;
    const running = (coming = continuation(branch));
    running.ended = running.run().then((problem) => {
      if (coming === running) coming = null;
      branch.tokens = branch.answer.tokens.map(({ id }) => id);
      if (!problem) branch.answer = null; // to be asked for: ranks and entropies of the whole
      branch.problem = problem;
      if (subject === branch) open(view);
    });
    await go(branch);
  }

  function stop() {
    coming?.abort();
    return coming !== null;
  }

  byId("sample").addEventListener("submit", (event) => {
    event.preventDefault();
    const prompt = byId("text").value;
    if (!prompt || !settings.model()) return;
    look({ model: settings.model(), prompt, raw: byId("raw").value === "text", title: quoted(prompt) });
  });
  onTheme(() => subject && !coming && open(view));
  return { look, stop };
}
