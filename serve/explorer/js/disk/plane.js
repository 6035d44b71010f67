/**
 * The hyperbolic plane through the root, the focus x and any other point: distances, cones and their outlines, exact.
 *
 * Radii here are ρ = √c times a true distance to the root, angles are between two points as seen from the root. The
 * formulas are those of hypclip.geometry (polar, cones, planes, entailment).
 *
 * @typedef {{form: "cone", eta: number, min_radius: number}} ConeRule
 * @typedef {{form: "plane", threshold: number}} PlaneRule
 * @typedef {ConeRule | PlaneRule} Rule
 * @typedef {{rho: number, theta: number}} Polar
 * @typedef {"all" | Polar[]} Region the whole plane, or an outline (empty: no point); ρ = Infinity is on the rim
 */

const SAMPLES = 200;
const FARTHEST = 300; // cosh of more overflows soon; it is drawn on the rim long before

/**
 * Distance of two points, times √c.
 * @param {number} rhoX
 * @param {number} rhoY
 * @param {number} theta
 */
export function distance(rhoX, rhoY, theta) {
  const radial = Math.sinh((rhoX - rhoY) / 2);
  const across = Math.sin(theta / 2);
  return 2 * Math.asinh(Math.sqrt(radial * radial + Math.sinh(rhoX) * Math.sinh(rhoY) * across * across));
}

/**
 * Half aperture of a cone before the factor η: asin(min(1, 2K/sinh ρ)).
 * @param {number} rho
 * @param {number} minRadius K
 */
export function halfAperture(rho, minRadius) {
  const sinh = Math.sinh(rho);
  return sinh <= 2 * minRadius ? Math.PI / 2 : Math.asin((2 * minRadius) / sinh);
}

/**
 * Angle at x between the ray away from the root and the geodesic to y, in [0, π]; 0 at x itself and from the root.
 * @param {number} rhoX
 * @param {number} rhoY
 * @param {number} theta
 */
export function exteriorAngle(rhoX, rhoY, theta) {
  if (rhoX === 0) return 0;
  return Math.atan2(Math.abs(Math.sinh(rhoY) * Math.sin(theta)), along(rhoX, rhoY, theta));
}

/**
 * Signed distance of y to the hyperplane through x across its ray, times √c; 0 where x is the root.
 * @param {number} rhoX
 * @param {number} rhoY
 * @param {number} theta
 */
export function height(rhoX, rhoY, theta) {
  return rhoX === 0 ? 0 : Math.asinh(along(rhoX, rhoY, theta));
}

/**
 * How far y lies outside of the region of x: ≤ 0 inside.
 * @param {Rule} rule
 * @param {number} rhoX
 * @param {number} rhoY
 * @param {number} theta
 */
export function margin(rule, rhoX, rhoY, theta) {
  if (rule.form === "plane") return rule.threshold - height(rhoX, rhoY, theta);
  return exteriorAngle(rhoX, rhoY, theta) - rule.eta * halfAperture(rhoX, rule.min_radius);
}

/**
 * Outline of the region of x: every point that x entails.
 * @param {Rule} rule
 * @param {number} rhoX
 * @param {number} far a typical ρ of the picture, by which the outline is sampled
 * @returns {Region}
 */
export function below(rule, rhoX, far) {
  if (rhoX === 0) return margin(rule, 0, 1, 0) <= 0 ? "all" : [];
  if (rule.form === "cone" && rule.eta * halfAperture(rhoX, rule.min_radius) >= Math.PI) return "all";
  /** @type {(t: number) => Polar} */
  let edge;
  let end;
  if (rule.form === "cone") {
    const alpha = rule.eta * halfAperture(rhoX, rule.min_radius);
    edge = (t) => seenFrom(rhoX, alpha, t);
    end = 2 * Math.atan2(Math.sin(alpha / 2) * Math.exp(-rhoX), Math.cos(alpha / 2));
  } else {
    const { threshold } = rule;
    edge = (t) => beyond(rhoX, threshold, t);
    end = Math.atan2(1, Math.sinh(rhoX));
  }
  const side = Array.from({ length: SAMPLES }, (_, i) => {
    const u = i / SAMPLES;
    return edge(Math.min(FARTHEST, 4 * far * u ** 1.5 + (2 * u ** 4) / (1 - u))); // as far as the points, then the rim
  });
  const rim = Array.from({ length: 33 }, (_, i) => ({ rho: Infinity, theta: end * (1 - i / 16) }));
  return [...side, ...rim, ...mirrored(side)];
}

/**
 * Outline of the set of points that entail x.
 * @param {Rule} rule
 * @param {number} rhoX
 * @param {number} far a ρ beyond which nothing is drawn
 * @returns {Region}
 */
export function above(rule, rhoX, far) {
  const last = reach(rule, rhoX, far);
  if (rhoX === 0 || last < 0) return [];
  const outer = [];
  const inner = [];
  // The outline bends at x, and where cones cease to be half-spaces: it is sampled densely at the ends of each part.
  const edge = rule.form === "cone" ? Math.asinh(2 * rule.min_radius) : 0;
  const bends = [rhoX, edge].filter((rho) => rho > 0 && rho < last);
  const stops = [0, ...bends, last].sort((a, b) => a - b);
  for (let k = 1; k < stops.length; k++) {
    for (let i = 0; i <= SAMPLES; i++) {
      const rho = stops[k - 1] + ((stops[k] - stops[k - 1]) * (1 - Math.cos((Math.PI * i) / SAMPLES))) / 2;
      const band = holders(rule, rhoX, rho);
      if (!band) continue;
      outer.push({ rho, theta: band[1] });
      if (rho > rhoX) inner.push({ rho, theta: band[0] });
    }
  }
  const side = [...outer, ...inner.reverse()];
  return [...side, ...mirrored(side)];
}

/**
 * The angles [low, high] at which points of one radius entail x, or null where none does.
 * @param {Rule} rule
 * @param {number} rhoX
 * @param {number} rho
 * @returns {[number, number] | null}
 */
export function holders(rule, rhoX, rho) {
  if (rho === 0) return margin(rule, 0, rhoX, 0) <= 0 ? [0, Math.PI] : null;
  // A point at (ρ, θ) entails x where A cos θ − B sin θ ≥ C, by cot φ for cones and by sinh height for planes.
  let [a, b, c] = [Math.cosh(rho), 0, Math.sinh(rho) / Math.tanh(rhoX)];
  if (rule.form === "plane") c += Math.sinh(rule.threshold) / Math.sinh(rhoX);
  else {
    const alpha = rule.eta * halfAperture(rho, rule.min_radius);
    if (alpha >= Math.PI) return [0, Math.PI];
    b = Math.cos(alpha) / Math.sin(alpha);
  }
  const cosine = c / Math.hypot(a, b);
  if (cosine > 1 + 1e-12) return null;
  if (cosine <= -1) return [0, Math.PI];
  const [turn, half] = [Math.atan2(b, a), Math.acos(Math.min(1, cosine))];
  const [low, high] = [Math.max(0, -turn - half), Math.min(Math.PI, half - turn)];
  return high >= low ? [low, high] : null;
}

/**
 * Circle of true radius about x.
 * @param {number} rhoX
 * @param {number} d its radius, times √c
 * @returns {Polar[]}
 */
export function contour(rhoX, d) {
  return Array.from({ length: 2 * SAMPLES + 1 }, (_, i) => seenFrom(rhoX, Math.PI * (1 - i / SAMPLES), d));
}

/**
 * The point at distance t from x in the direction that makes the angle alpha with the ray away from the root.
 * @param {number} rhoX
 * @param {number} alpha
 * @param {number} t
 * @returns {Polar}
 */
export function seenFrom(rhoX, alpha, t) {
  const [forward, sideways] = [Math.sinh(t) * Math.cos(alpha), Math.sinh(t) * Math.sin(alpha)];
  return polar(Math.sinh(rhoX) * Math.cosh(t) + Math.cosh(rhoX) * forward, sideways);
}

/**
 * The point at height `threshold` over the hyperplane of x whose foot is t from x.
 * @param {number} rhoX
 * @param {number} threshold
 * @param {number} t
 * @returns {Polar}
 */
function beyond(rhoX, threshold, t) {
  const base = Math.cosh(threshold) * Math.cosh(t);
  const forward = Math.sinh(threshold) * Math.cosh(rhoX) + base * Math.sinh(rhoX);
  return polar(forward, Math.cosh(threshold) * Math.sinh(t));
}

/**
 * The largest ρ at which some point entails x; negative where none does.
 * @param {Rule} rule
 * @param {number} rhoX
 * @param {number} far
 */
function reach(rule, rhoX, far) {
  if (rule.form === "plane") return Math.min(far, rhoX - rule.threshold);
  if (rule.eta <= 1) return rhoX; // beyond x the angle is more than π/2
  let [low, high] = [rhoX, far];
  if (high <= low || holders(rule, rhoX, high)) return Math.max(low, high);
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (holders(rule, rhoX, middle)) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * @param {number} rhoX
 * @param {number} rhoY
 * @param {number} theta
 */
function along(rhoX, rhoY, theta) {
  const half = Math.sin(theta / 2);
  return Math.sinh(rhoY - rhoX) - Math.cosh(rhoX) * Math.sinh(rhoY) * 2 * half * half;
}

/**
 * @param {number} x
 * @param {number} y
 * @returns {Polar}
 */
function polar(x, y) {
  return { rho: Math.asinh(Math.hypot(x, y)), theta: Math.atan2(y, x) };
}

/** @param {Polar[]} side */
function mirrored(side) {
  return side.map(({ rho, theta }) => ({ rho, theta: -theta })).reverse();
}
