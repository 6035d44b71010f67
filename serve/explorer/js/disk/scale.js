/**
 * Monotone scales: from true radii to radii of the picture, and from true angles to drawn angles.
 *
 * Radii and angles of a collection crowd into narrow bands. Each scale is half linear and half by quantiles, so that
 * crowded values are spread and the order is kept exactly: a larger value is always drawn further out.
 */

/** Where the largest radius of a collection is drawn; the rest of the unit disk is for points beyond it. */
export const EDGE = 0.92;

const SPREAD = 0.06; // over which crowding is smoothed to each side, as a part of the whole
const KNOTS = 41;

/**
 * @callback Scale draws a true value; strictly increasing
 * @param {number} value
 * @returns {number}
 */

/**
 * Scale of the picture: half linear, half by quantiles, `max` at EDGE and infinity at 1.
 * @param {number} max largest true radius
 * @param {ArrayLike<number>} quantiles of true radii, or a sample of them
 * @returns {Scale}
 */
export function stretched(max, quantiles) {
  const end = max > 0 ? max : 1;
  const inner = halfAndHalf(end, EDGE, crowding(end, quantiles));
  const slope = (EDGE - inner(end * (1 - 1e-6))) / (end * 1e-6);
  return (r) => (r <= end ? inner(r) : 1 - (1 - EDGE) * Math.exp((slope * (end - r)) / (1 - EDGE)));
}

/**
 * Literal Poincaré disk: a point at true distance r is drawn at tanh(√c r / 2).
 * @param {number} curv c > 0
 * @returns {Scale}
 */
export function poincare(curv) {
  const half = Math.sqrt(curv) / 2;
  return (r) => Math.tanh(half * r);
}

/**
 * Scale of the angle to the focus, odd, [-π, π] onto itself.
 * @param {ArrayLike<number>} angles signed true angles; a sample of them is enough
 * @returns {Scale}
 */
export function angleScale(angles) {
  const half = halfAndHalf(Math.PI, Math.PI, crowding(Math.PI, sampleOf(angles)));
  return (angle) => (angle < 0 ? -half(-angle) : half(angle));
}

/**
 * Round numbers in (0, max], at most `count` of them: steps of 1, 2 or 5 times a power of ten.
 * @param {number} max
 * @param {number} count
 * @returns {number[]}
 */
export function roundSteps(max, count) {
  if (!(max > 0) || !Number.isFinite(max)) return [];
  const power = 10 ** Math.floor(Math.log10(max / count));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => max / s <= count) ?? 10 * power;
  return Array.from({ length: Math.floor(max / step + 1e-9) }, (_, i) => Number(((i + 1) * step).toPrecision(6)));
}

/**
 * Absolute values of at most 2,048 numbers at equal steps.
 * @param {ArrayLike<number>} values
 */
export function sampleOf(values) {
  const step = Math.max(1, Math.ceil(values.length / 2048));
  return new Float64Array(Math.ceil(values.length / step)).map((_, i) => Math.abs(values[i * step]));
}

/**
 * @param {number} end
 * @param {number} top what `end` is drawn at
 * @param {Scale} crowd share of the values up to one, from 0 to 1 at `end`
 * @returns {Scale}
 */
function halfAndHalf(end, top, crowd) {
  return (x) => (top / 2) * (x / end + crowd(x));
}

/**
 * Share of a sample up to a value, from 0 at 0 to 1 at `end`, smoothed: outlines of regions are drawn under the scales,
 * and every bend in these would show in them.
 * @param {number} end
 * @param {ArrayLike<number>} sample
 * @returns {Scale}
 */
function crowding(end, sample) {
  const xs = Array.from({ length: KNOTS }, (_, i) => (end * i) / (KNOTS - 1));
  const counts = xs.map((x) => {
    let sum = 0;
    for (let k = 0; k < sample.length; k++) sum += clamped((x - sample[k]) / (2 * SPREAD * end) + 0.5);
    return sum;
  });
  const [low, high] = [counts[0], counts[KNOTS - 1]];
  return smooth(xs, counts.map((count, i) => (high > low ? (count - low) / (high - low) : i / (KNOTS - 1))));
}

/** @param {number} value */
function clamped(value) {
  return Math.max(0, Math.min(1, value));
}

/**
 * Smooth curve through knots that never falls where they do not: cubic, with Fritsch and Carlson's slopes.
 * @param {number[]} xs strictly increasing
 * @param {number[]} ys
 * @returns {Scale}
 */
function smooth(xs, ys) {
  const steps = xs.slice(1).map((x, i) => (ys[i + 1] - ys[i]) / (x - xs[i]));
  const slopes = xs.map((_, i) => {
    const [before, after] = [steps[i - 1], steps[i]];
    if (before === undefined || after === undefined) return before ?? after ?? 0;
    return before * after > 0 ? (2 * before * after) / (before + after) : 0;
  });
  return (x) => {
    let low = 0;
    let high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] <= x) low = middle;
      else high = middle;
    }
    const width = xs[high] - xs[low];
    const t = (x - xs[low]) / width;
    const rest = 1 - t;
    return ys[low] * (1 + 2 * t) * rest * rest + ys[high] * (3 - 2 * t) * t * t
      + width * t * rest * (slopes[low] * rest - slopes[high] * t);
  };
}
