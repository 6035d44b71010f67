/**
 * Monotone scales: from true radii to radii of the picture, and from true angles to drawn angles.
 *
 * Radii and angles of a collection crowd into narrow bands. Each scale is half linear and half by quantiles, so that
 * crowded values are spread and the order is kept exactly: a larger value is always drawn further out.
 */

/** Where the largest radius of a collection is drawn; the rest of the unit disk is for points beyond it. */
export const EDGE = 0.92;

const SPREAD = 0.3; // radians

/**
 * @callback Scale draws a true value; strictly increasing
 * @param {number} value
 * @returns {number}
 */

/**
 * Scale of the picture: half linear, half by quantiles, `max` at EDGE and infinity at 1.
 * @param {number} max largest true radius
 * @param {ArrayLike<number>} quantiles true radii at equal fractions, ascending
 * @returns {Scale}
 */
export function stretched(max, quantiles) {
  const end = max > 0 ? max : 1;
  const inner = halfAndHalf(end, EDGE, smooth(...crowdKnots(end, quantiles)));
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
  // Smoothed over ± SPREAD: outlines of regions are drawn under this scale, and every bend in it would show in them.
  const sample = sampleOf(angles);
  const xs = Array.from({ length: 33 }, (_, i) => (Math.PI * i) / 32);
  const raw = xs.map((x) => sample.reduce((sum, a) => sum + Math.max(0, Math.min(1, (x - a) / (2 * SPREAD) + 0.5)), 0));
  const [low, high] = [raw[0], raw[32]];
  const shares = high > low ? raw.map((f) => (f - low) / (high - low)) : xs.map((x) => x / Math.PI);
  const half = halfAndHalf(Math.PI, Math.PI, smooth(xs, shares));
  return (angle) => (angle < 0 ? -half(-angle) : half(angle));
}

/**
 * 33 quantiles of absolute values, from a sample of them.
 * @param {ArrayLike<number>} values
 * @returns {Float64Array}
 */
export function quantilesOf(values) {
  const sample = sampleOf(values).sort();
  const found = new Float64Array(sample.length ? 33 : 0);
  return found.map((_, q) => sample[Math.round((q / 32) * (sample.length - 1))]);
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
function sampleOf(values) {
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
 * Knots of the share of values up to one, both columns ascending, the first strictly.
 * @param {number} end
 * @param {ArrayLike<number>} quantiles
 * @returns {[number[], number[]]}
 */
function crowdKnots(end, quantiles) {
  const xs = [0];
  const shares = [0];
  const last = Math.max(1, quantiles.length - 1);
  for (let i = 0; i < quantiles.length; i++) {
    const x = Math.min(quantiles[i], end);
    if (x > xs[xs.length - 1]) {
      xs.push(x);
      shares.push(i / last);
    } else if (xs.length > 1) shares[shares.length - 1] = i / last; // equal quantiles share a knot
  }
  if (xs[xs.length - 1] < end) {
    xs.push(end);
    shares.push(1);
  }
  shares[shares.length - 1] = 1;
  return [xs, shares];
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
