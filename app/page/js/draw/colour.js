// Colours that stand for numbers. Scales run evenly in OKLab and steadily in lightness, so they can be read without
// telling red from green, and in grey. Ink on them is black or white, whichever has the more contrast (4.58 at least).
// Source of OKLab: B. Ottosson, "A perceptual color space for image processing" (2020).

import { isDark } from "../theme.js";

// lightness, chroma, hue (degrees) from 0 to 1
const LIGHT = [
  [0.985, 0.005, 95],
  [0.9, 0.055, 205],
  [0.72, 0.115, 228],
  [0.5, 0.125, 252],
  [0.3, 0.095, 268],
];
const DARK = [
  [0.245, 0.012, 265],
  [0.38, 0.085, 268],
  [0.55, 0.12, 245],
  [0.75, 0.12, 205],
  [0.95, 0.1, 110],
];

function lab([lightness, chroma, hue]) {
  const angle = (hue * Math.PI) / 180;
  return [lightness, chroma * Math.cos(angle), chroma * Math.sin(angle)];
}

function srgb([L, a, b]) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const n = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * n,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * n,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * n,
  ];
  return linear.map((c) => Math.round(255 * gamma(Math.min(1, Math.max(0, c)))));
}

const gamma = (c) => (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055);

/** [red, green, blue], 0..255, of a number from 0 to 1, in the theme of the moment. */
export function sequential(value) {
  const stops = (isDark() ? DARK : LIGHT).map(lab);
  const at = Math.min(1, Math.max(0, value)) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return srgb(stops[low].map((from, i) => from + (stops[low + 1][i] - from) * (at - low)));
}

/** A colour for the i-th of `n` kinds. Neighbours differ in lightness as well as in hue. */
export function categorical(i, n) {
  const hue = n <= 10 ? (i * 360) / n + 25 : (i * 137.508) % 360; // the golden angle spreads any number
  return srgb(lab([[0.8, 0.62, 0.71][i % 3], 0.125, hue]));
}

/** `over` at an opacity on `under`, as one colour. */
export const blend = (over, under, opacity) => over.map((c, i) => Math.round(c * opacity + under[i] * (1 - opacity)));

export const paper = () => sequential(0);

export const css = (rgb) => `rgb(${rgb.join(" ")})`;

/** "#000" or "#fff": the one that can be read on a colour. Source of luminance: WCAG 2.2. */
export function ink(rgb) {
  const [r, g, b] = rgb.map((c) => (c <= 10.31 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/** Style properties of a cell that shows a number from 0 to 1. */
export function cellStyle(value) {
  const rgb = sequential(value);
  return { "background-color": css(rgb), color: ink(rgb) };
}
