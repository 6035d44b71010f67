/**
 * The hyperbolic triangle of the root, a general and a specific point, from their radii and their distance.
 *
 * All lengths are true distances in the space of curvature −curv.
 */

/** @typedef {{form: "cone", eta: number, min_radius: number} | {form: "plane", threshold: number}} Rule */

/**
 * The exterior angle at the general point: between its outward ray and the way to the specific one, in [0, π].
 * @param {number} general radius @param {number} specific radius @param {number} distance @param {number} curv
 */
export function exteriorAngle(general, specific, distance, curv) {
  const k = Math.sqrt(curv);
  const a = k * general,
    b = k * distance,
    c = k * specific;
  if (a < 1e-9 || b < 1e-9) return 0;
  // tan²(C/2) by half sums, which keeps its digits where the law of cosines loses them.
  const s = (a + b + c) / 2;
  const above = Math.sinh(Math.max(s - a, 0)) * Math.sinh(Math.max(s - b, 0));
  const below = Math.sinh(s) * Math.sinh(Math.max(s - c, 0));
  return Math.PI - 2 * Math.atan2(Math.sqrt(above), Math.sqrt(below));
}

/** The half aperture of the cone of a point. @param {number} radius @param {number} minRadius @param {number} curv */
export function halfAperture(radius, minRadius, curv) {
  const norm = Math.sinh(Math.sqrt(curv) * radius);
  return Math.asin(Math.min(1, (2 * minRadius) / Math.max(norm, 1e-12)));
}

/**
 * How far the specific point lies beyond the plane through the general one, across its ray, in units of 1/√curv.
 * @param {number} general @param {number} specific @param {number} distance @param {number} curv
 */
export function planeHeight(general, specific, distance, curv) {
  return Math.asinh(Math.sinh(Math.sqrt(curv) * distance) * Math.cos(exteriorAngle(general, specific, distance, curv)));
}

/**
 * The relation of two points under a rule, where the one of the smaller radius counts as the general one.
 * @param {number} general @param {number} specific @param {number} distance @param {number} curv @param {Rule} rule
 * @param {number} scale factor on the width of cones
 */
export function relation(general, specific, distance, curv, rule, scale = 1) {
  const angle = exteriorAngle(general, specific, distance, curv);
  if (rule.form === "plane") {
    const height = planeHeight(general, specific, distance, curv);
    const margin = rule.threshold - height;
    return { angle, aperture: Math.PI / 2, bound: Math.PI / 2, height, margin, inside: margin <= 0 };
  }
  const aperture = halfAperture(general, rule.min_radius, curv);
  const bound = scale * rule.eta * aperture;
  return { angle, aperture, bound, height: NaN, margin: angle - bound, inside: angle <= bound };
}

/**
 * The width at which each point of a focus would just become an ancestor: a factor for cones, a threshold for planes.
 * @param {{header: any, radius: Float32Array, above: Float32Array, flags: Uint8Array}} focus
 * @param {number} curv @param {number} scale the factor that the margins are of
 * @returns {Float64Array} from the strictest on
 */
export function criticalScales(focus, curv, scale) {
  const { rule } = focus.header;
  const found = new Float64Array(focus.above.length);
  let count = 0;
  for (let i = 0; i < focus.above.length; i++) {
    if (focus.flags[i] & 4 || !Number.isFinite(focus.above[i])) continue;
    if (rule.form === "plane") {
      found[count++] = rule.threshold - focus.above[i];
    } else {
      // The rule in the header is the effective one: its eta has the factor in it.
      const bound = rule.eta * halfAperture(focus.radius[i], rule.min_radius, curv);
      found[count++] = (scale * (focus.above[i] + bound)) / Math.max(bound, 1e-12);
    }
  }
  const sorted = found.subarray(0, count).sort(); // without a function of its own it is ten times as fast
  return rule.form === "plane" ? sorted.reverse() : sorted;
}

/**
 * The distance of two points from their radii and the angle between them at the root.
 * @param {number} a radius @param {number} b radius @param {number} angle @param {number} curv
 */
export function distance(a, b, angle, curv) {
  const k = Math.sqrt(curv);
  const along = Math.sinh((k * (a - b)) / 2) ** 2;
  const across = Math.sinh(k * a) * Math.sinh(k * b) * Math.sin(angle / 2) ** 2;
  return (2 * Math.asinh(Math.sqrt(along + across))) / k;
}
