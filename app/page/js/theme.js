// Light, dark, or as the system has it. Pictures that are painted in pixels ask here and are painted again.

const KEY = "ref-engine.theme";
const ORDER = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };
const system = matchMedia("(prefers-color-scheme: dark)");
const changed = new EventTarget();

let chosen = ORDER.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "auto";

export const isDark = () => (chosen === "auto" ? system.matches : chosen === "dark");

export function onTheme(handler) {
  changed.addEventListener("change", handler);
}

export function mountTheme(button) {
  const apply = () => {
    document.documentElement.dataset.theme = chosen;
    button.textContent = SIGNS[chosen];
    button.setAttribute("aria-label", `Theme: ${chosen}`);
    button.title = `Theme: ${chosen}`;
    changed.dispatchEvent(new Event("change"));
  };
  button.addEventListener("click", () => {
    chosen = ORDER[(ORDER.indexOf(chosen) + 1) % ORDER.length];
    localStorage.setItem(KEY, chosen);
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
