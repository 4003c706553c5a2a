// Numbers and tokens as they are written.

const MARKS = { " ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥", "": "∅", "\u00a0": "⍽" };

/** A token so that all of it can be seen: spaces and line ends as signs, control and direction characters by number. */
export function visible(text) {
  if (text === "") return MARKS[""];
  return text.replace(/[\s\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu, (c) => {
    if (MARKS[c]) return MARKS[c];
    const code = c.codePointAt(0);
    return code < 32 ? String.fromCodePoint(0x2400 + code) : `‹${code.toString(16).toUpperCase().padStart(4, "0")}›`;
  });
}

/** A token's text, or its bytes in hexadecimal where they are no whole characters. */
export function written({ text, bytes }) {
  return bytes ? `‹${bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ")}›` : visible(text);
}

/** The same for a label: cut where it is longer than `length` characters. */
export function short(token, length = 12) {
  const shown = [...written(token)];
  return shown.length > length ? `${shown.slice(0, length - 1).join("")}…` : shown.join("");
}

/** Words in quotation marks: one line, cut where it is longer than `length` characters. */
export function quoted(text, length = 60) {
  const words = [...text.trim().replace(/[\s\p{Cc}\p{Cf}]+/gu, " ")];
  return `“${words.length > length ? `${words.slice(0, length - 1).join("")}…` : words.join("")}”`;
}

export function percent(p) {
  if (p >= 0.9995) return "100 %";
  if (p >= 0.0995) return `${(100 * p).toFixed(1)} %`;
  if (p >= 0.00995) return `${(100 * p).toFixed(2)} %`;
  if (p >= 0.00001) return `${(100 * p).toPrecision(2)} %`;
  return p > 0 ? "< 0.001 %" : "0 %";
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i === 0 ? n : n.toFixed(n < 10 ? 2 : 1)} ${units[i]}`;
}

export const milliseconds = (ms) => `${ms >= 100 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(2) : ms.toFixed(3)} ms`;

export const count = (n) => n.toLocaleString("en");

/** Four digits at most, as a scientist would write them. */
export function figure(x) {
  if (x === 0) return "0";
  const size = Math.abs(x);
  return size >= 1e5 || size < 1e-3 ? x.toExponential(2) : String(Number(x.toPrecision(4)));
}
