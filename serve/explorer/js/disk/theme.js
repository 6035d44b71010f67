/** Colours of the disk, read from the custom properties of disk.css, as #rrggbb, whenever the theme changes. */

import { GROUP } from "./layout.js";

const NAMES = ["surface", "ground", "ink", "muted", "text", "image", "embedding", "above", "below", "mark"];
const SHAPES = ["text", "image", "embedding"];

/**
 * @typedef {Record<string, string>} Inks CSS colours by name, and the font
 * @typedef {{inks: Inks, points: Uint32Array, edge: number}} Theme points by group and shape
 */

/**
 * Read the colours of an element, and mix those of the points.
 * @param {HTMLElement} host
 * @returns {Theme}
 */
export function readTheme(host) {
  const style = getComputedStyle(host);
  /** @type {Inks} */
  const inks = { font: style.fontFamily };
  for (const name of NAMES) inks[name] = style.getPropertyValue(`--disk-${name}`).trim();
  const points = new Uint32Array(6 * SHAPES.length);
  SHAPES.forEach((shape, s) => {
    const set = (/** @type {number} */ group, /** @type {string} */ name, /** @type {number} */ share) => {
      points[group * SHAPES.length + s] = pixel(mix(inks[name], inks.surface, share));
    };
    set(GROUP.dim, shape, 0.3);
    set(GROUP.plain, shape, 1);
    set(GROUP.nearBelow, "below", 0.55);
    set(GROUP.nearAbove, "above", 0.55);
    set(GROUP.below, "below", 1);
    set(GROUP.above, "above", 1);
  });
  return { inks, points, edge: pixel(channels(inks.surface)) };
}

/**
 * Call back when the page changes its theme.
 * @param {() => void} changed
 * @returns {() => void} what ends it
 */
export function watchTheme(changed) {
  const observer = new MutationObserver(changed);
  observer.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  return () => observer.disconnect();
}

/**
 * Red, green and blue of #rrggbb.
 * @param {string} colour
 * @returns {number[]}
 */
function channels(colour) {
  const value = Number.parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/**
 * @param {string} colour
 * @param {string} ground
 * @param {number} share
 */
function mix(colour, ground, share) {
  const under = channels(ground);
  return channels(colour).map((c, i) => Math.round(share * c + (1 - share) * under[i]));
}

/**
 * A pixel of an image buffer on a little-endian machine: every one that runs a browser.
 * @param {number[]} channels
 */
function pixel([red, green, blue]) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
