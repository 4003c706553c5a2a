// Tokens: the text as the model reads it, each coloured by the probability it had, and what could have stood there.

import { wishes } from "../continuation.js";
import { h, roving } from "../dom.js";
import { cellStyle } from "../draw/colour.js";
import { legend } from "../draw/legend.js";
import { figure, percent, written } from "../draw/text.js";
import { foldedTable, table } from "../draw/table.js";
import { candidates } from "./candidates.js";

export const tokens = { id: "tokens", label: "Tokens", show };

function show(panel, { answer, coming, problem, state, ids, continueFrom }) {
  const detail = h("aside", { class: "detail", "aria-label": "What could have stood there" });
  const strip = h("div", { class: "strip", role: "group", "aria-label": "Tokens, in order" });
  const held = () => Math.min(state.held ?? answer.tokens.length - 1, answer.tokens.length - (answer.next ? 0 : 1));

  const describe = (at) => {
    const pick = coming ? null : (candidate) => continueFrom(at, candidate);
    detail.replaceChildren(
      ...(at < answer.tokens.length ? about(answer.tokens[at], at, pick) : aboutNext(answer.next, at, pick)),
    );
    for (const cell of strip.children) cell.setAttribute("aria-pressed", Number(cell.dataset.at) === at);
  };
  const add = (token, at) => {
    const cell = tokenCell(token, at);
    cell.tabIndex = at === held() ? 0 : -1;
    cell.addEventListener("click", () => describe((state.held = at)));
    cell.addEventListener("focus", () => describe((state.held = at)));
    cell.addEventListener("pointerenter", () => describe(at));
    strip.append(cell);
  };
  answer.tokens.forEach(add);
  if (answer.next) add({ text: "next", next: true, top: answer.next.top }, answer.tokens.length);
  strip.addEventListener("pointerleave", () => describe(held()));
  roving(strip, () => [...strip.children]);
  describe(held());
  panel.append(
    problem ? h("p", { class: "problem", role: "alert", text: problem }) : "",
    h(
      "div",
      { class: "bar-row" },
      legend("probability", [
        [0, "0"],
        [0.5, "50 %"],
        [1, "100 %"],
      ]),
      coming ? stopButton(coming) : continuing(),
    ),
    h(
      "div",
      { class: "split" },
      h(
        "div",
        {},
        strip,
        h("p", {
          class: "hint",
          text: coming
            ? "The model goes on…"
            : `${ids.length} tokens. Point at one to see what could have stood there; click to hold it; click an alternative to go on from it.`,
        }),
        foldedTable("As a table", () => asTable(answer)),
      ),
      detail,
    ),
  );
  if (coming) coming.onToken = (token) => add(token, answer.tokens.length - 1);
}

function tokenCell(token, at) {
  const known = token.logprob !== null && token.logprob !== undefined;
  const p = known ? Math.exp(token.logprob) : null;
  const parts = [h("span", { class: "token-text", text: token.next ? "next" : written(token) })];
  const label = token.next ? "what comes next" : `${at}: ${written(token)}${known ? `, ${percent(p)}` : ""}`;
  return h(
    "button",
    {
      type: "button",
      class: `token${token.next ? " next" : known ? "" : " given"}${/\n$/.test(token.text) ? " ends-line" : ""}`,
      "aria-label": label,
      data: { at: String(at), id: String(token.id ?? "") },
      style: known ? cellStyle(p) : {},
    },
    parts,
  );
}

const withP = (top) => top.map((each) => ({ ...each, p: Math.exp(each.logprob) }));

function about(token, at, pick) {
  const facts = [
    ["position", at],
    ["token id", token.id],
  ];
  if (token.logprob !== null && token.logprob !== undefined) {
    facts.push(
      ["probability", percent(Math.exp(token.logprob))],
      ["surprise", `${figure(-token.logprob / Math.LN2)} bit`],
    );
  }
  if (token.rank) facts.push(["rank", token.rank]);
  if (token.entropy !== null && token.entropy !== undefined)
    facts.push(["entropy there", `${figure(token.entropy / Math.LN2)} bit`]);
  return [
    h("h3", { class: "token-text", text: written(token) }),
    factList(facts),
    token.top?.length
      ? h("h4", { text: pick ? "Instead of it" : "Alternatives" })
      : h("p", { class: "hint", text: at ? "" : "The first token was given: nothing came before it." }),
    candidates(withP(token.top ?? []), token.id, pick),
  ];
}

function aboutNext(next, at, pick) {
  return [
    h("h3", { text: "What comes next" }),
    factList([
      ["position", at],
      ["entropy", `${figure(next.entropy / Math.LN2)} bit`],
    ]),
    h("h4", { text: "Go on with" }),
    candidates(withP(next.top), null, pick),
  ];
}

function factList(facts) {
  return h(
    "dl",
    { class: "facts" },
    facts.flatMap(([name, value]) => [h("dt", { text: name }), h("dd", { text: String(value) })]),
  );
}

function continuing() {
  const wish = wishes();
  const field = (name, label, props) =>
    h(
      "label",
      { class: "inline" },
      h("span", { text: label }),
      h("input", {
        type: "number",
        value: wish[name],
        ...props,
        on: {
          change: ({ target }) => {
            if (target.validity.valid && target.value !== "") wish[name] = Number(target.value);
          },
        },
      }),
    );
  return h(
    "div",
    { class: "wishes", role: "group", "aria-label": "Going on" },
    field("max_tokens", "tokens to go on for", { min: 1, max: 512, step: 1 }),
    field("temperature", "temperature", { min: 0, max: 5, step: "any" }),
  );
}

function stopButton(coming) {
  return h("button", {
    type: "button",
    class: "stop-going",
    text: "Stop",
    data: { key: "stop" },
    on: { click: () => coming.abort() },
  });
}

function asTable({ tokens: all }) {
  const known = (value, write) => (value === null || value === undefined ? "–" : write(value));
  return table(
    "Tokens",
    ["position", "token", "id", "probability", "rank", "entropy (bit)"],
    all.map((token, at) => [
      String(at),
      written(token),
      String(token.id),
      known(token.logprob, (x) => percent(Math.exp(x))),
      known(token.rank, String),
      known(token.entropy, (x) => figure(x / Math.LN2)),
    ]),
  );
}
