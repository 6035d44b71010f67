/**
 * Translations of the unit disk: z → (z + a)/(1 + ā z), |a| < 1. They take circles to circles and turn nothing at 0.
 *
 * Points of the disk are pairs [re, im].
 *
 * @typedef {[number, number]} Complex
 */

/** Largest |a|: beyond it the whole picture is squeezed onto the rim. */
export const FAR = 0.97;

/**
 * Image of z under the translation by a. Translating by -a undoes it.
 * @param {Complex} z
 * @param {Complex} a
 * @returns {Complex}
 */
export function translate([x, y], [a, b]) {
  const re = 1 + a * x + b * y;
  const im = a * y - b * x;
  const size = re * re + im * im;
  return [((x + a) * re + (y + b) * im) / size, ((y + b) * re - (x + a) * im) / size];
}

/**
 * The one a whose translation takes z to w: a (1 − |wz|²) = q + wz q̄ with q = w − z.
 * @param {Complex} z
 * @param {Complex} w
 * @returns {Complex}
 */
export function translationBetween([x, y], [u, v]) {
  const re = u * x - v * y;
  const im = u * y + v * x;
  const q = u - x;
  const p = v - y;
  const size = 1 - re * re - im * im;
  return within([(q + re * q + im * p) / size, (p + im * q - re * p) / size], FAR);
}

/**
 * The nearest point whose distance from 0 is at most `limit`.
 * @param {Complex} z
 * @param {number} limit
 * @returns {Complex}
 */
export function within([x, y], limit) {
  const length = Math.hypot(x, y);
  return length <= limit ? [x, y] : [(x * limit) / length, (y * limit) / length];
}

/**
 * Image of the circle |z| = s: its centre and radius.
 * @param {number} s
 * @param {Complex} a
 * @returns {{centre: Complex, radius: number}}
 */
export function circle(s, [a, b]) {
  const squared = a * a + b * b;
  const size = 1 - squared * s * s;
  const shift = (1 - s * s) / size;
  return { centre: [a * shift, b * shift], radius: (s * (1 - squared)) / size };
}
