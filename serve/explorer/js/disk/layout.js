/**
 * Where every point is drawn in the unit disk, before the view's translation: map, focus, and the way between them.
 */

import { angleScale, poincare, sampleOf, roundSteps, stretched } from "./scale.js";

/**
 * @typedef {import("./mobius.js").Complex} Complex
 * @typedef {import("./scale.js").Scale} Scale
 * @typedef {{header: any, key: Uint32Array, radius: Float32Array, angle: Float32Array, modality: Uint8Array}} MapData
 * @typedef {{header: any, key: Uint32Array, radius: Float32Array, angle: Float32Array, flags: Uint8Array,
 *            above: Float32Array, below: Float32Array}} FocusData
 */

export const ANCESTOR = 1;
export const DESCENDANT = 2;
export const SELF = 4;

const TURN = 2 * Math.PI;
/** What groups of points there are, in the order in which they are drawn. */
export const GROUP = { dim: 0, plain: 1, nearBelow: 2, nearAbove: 3, below: 4, above: 5 };

/** The points' places, by row of the map. */
export class Layout {
  /**
   * @param {MapData} map
   * @param {boolean} trueScale
   * @param {FocusData | null} [focus]
   */
  constructor(map, trueScale, focus = null) {
    const count = map.key.length;
    this.map = map;
    /** @type {FocusData | null} */
    this.focus = null;
    /** Row of the focus for each row of the map, -1 where it has none. @type {Int32Array | null} */
    this.joined = null;
    this.self = -1;
    this.target = -1;
    this.axis = 0;
    this.trueScale = trueScale;
    this.rows = rowsByKey(map.key);
    this.itself = Int32Array.from(map.key.keys());
    /** @type {Scale} of radii */
    this.scale = poincare(map.header.curv);
    /** @type {Scale} of angles from the axis */
    this.warp = (angle) => angle;
    /** @type {number[]} true radii of the rings */
    this.rings = map.header.rings;
    this.byRadius = new Uint32Array(count).map((_, i) => i).sort((a, b) => map.radius[a] - map.radius[b]);
    this.group = new Uint8Array(count).fill(GROUP.plain);
    this.x = new Float64Array(count);
    this.y = new Float64Array(count);
    this.drawn = { radius: new Float64Array(count), angle: new Float64Array(count) };
    this.from = { radius: new Float64Array(count), angle: new Float64Array(count) };
    this.to = { radius: new Float64Array(count), angle: new Float64Array(count) };
    this.setFocus(focus);
    this.aim();
    this.step(1);
  }

  /** Whether distances in the picture are from the focus, with its target on the axis, rather than from the root. */
  get twoFoci() {
    return Boolean(this.focus?.header.target);
  }

  /** Rows of the focus and of its target, where they are points of the map. */
  get foci() {
    return [this.self, this.target].filter((row) => row >= 0);
  }

  /** √c, which takes a true radius to the ρ of plane.js. */
  get root() {
    return Math.sqrt(this.map.header.curv);
  }

  /**
   * Take another focus, or none: `aim` and `step` then move the points.
   * @param {FocusData | null} focus
   */
  setFocus(focus) {
    this.focus = focus;
    this.joined = focus && this.#join(focus);
    this.self = focus ? this.#rowOf(focus.flags, SELF) : -1;
    const { target } = focus?.header ?? {};
    this.target = target ? this.#rowAt(target.distance) : -1;
    if (focus) this.axis = this.self >= 0 ? this.map.angle[this.self] : focus.header.of.angle ?? 0;
    this.#scales();
    this.#groups();
  }

  /** @param {boolean} on */
  setTrueScale(on) {
    this.trueScale = on;
    this.#scales();
  }

  /** Set out from the places of now to those of the present focus and scale. */
  aim() {
    const { map, focus, joined, drawn, from, to } = this;
    from.radius.set(drawn.radius);
    from.angle.set(drawn.angle);
    for (let i = 0; i < map.key.length; i++) {
      const j = joined ? joined[i] : -1;
      const inFocus = focus !== null && j >= 0;
      to.radius[i] = this.scale(inFocus ? focus.radius[j] : map.radius[i]);
      const angle = inFocus ? this.axis + this.warp(focus.angle[j]) : map.angle[i];
      const turn = (((angle - from.angle[i]) % TURN) + TURN) % TURN;
      to.angle[i] = from.angle[i] + (turn > Math.PI ? turn - TURN : turn); // the short way round
    }
  }

  /**
   * Move every point to a fraction of its way; 1 is exact.
   * @param {number} fraction
   */
  step(fraction) {
    const { drawn, from, to, x, y } = this;
    for (let i = 0; i < x.length; i++) {
      const radius = fraction >= 1 ? to.radius[i] : from.radius[i] + fraction * (to.radius[i] - from.radius[i]);
      const angle = fraction >= 1 ? to.angle[i] : from.angle[i] + fraction * (to.angle[i] - from.angle[i]);
      drawn.radius[i] = radius;
      drawn.angle[i] = angle;
      x[i] = radius * Math.cos(angle);
      y[i] = radius * Math.sin(angle);
    }
  }

  /**
   * Place in the disk of a true radius and an angle, which in the focus view is the one from the axis.
   * @param {number} radius
   * @param {number} angle
   * @returns {Complex}
   */
  place(radius, angle) {
    const drawn = this.scale(radius);
    const turned = this.focus ? this.axis + this.warp(angle) : angle;
    return [drawn * Math.cos(turned), drawn * Math.sin(turned)];
  }

  /**
   * Row of a key, or -1.
   * @param {number | null | undefined} key
   */
  row(key) {
    return key === null || key === undefined ? -1 : this.rows.get(key) ?? -1;
  }

  /**
   * What the focus view knows of a row, or null.
   * @param {number} row
   */
  member(row) {
    const { focus, joined } = this;
    const j = joined ? joined[row] : -1;
    if (!focus || j < 0) return null;
    const { radius, angle, flags, above, below } = focus;
    return { radius: radius[j], angle: angle[j], flags: flags[j], above: above[j], below: below[j] };
  }

  /**
   * Groups of all rows; in the map the points outside of a marked set are dimmed.
   * @param {Set<number> | null} set keys
   */
  groups(set) {
    if (this.focus || !set || !set.size) return this.group;
    return this.group.map((group, i) => (set.has(this.map.key[i]) ? group : GROUP.dim));
  }

  /**
   * Rows that are drawn: those that filters leave, and in the focus view only those it knows.
   * @param {Uint8Array | null} visible
   */
  shown(visible) {
    const { joined } = this;
    if (!joined) return visible;
    return this.group.map((_, i) => (joined[i] >= 0 && (!visible || visible[i]) ? 1 : 0));
  }

  /**
   * Row of the point on the axis at a distance from the focus, as the target is, or -1.
   * @param {number} distance
   */
  #rowAt(distance) {
    const { focus, joined } = this;
    const found = focus?.radius.findIndex((r, j) => Math.abs(r - distance) < 1e-5 && Math.abs(focus.angle[j]) < 1e-4);
    return found === undefined || found < 0 || !joined ? -1 : joined.indexOf(found);
  }

  /** @param {FocusData} focus */
  #join(focus) {
    const { header, key } = this.map;
    const isSame = focus.header.version === header.version && focus.key.length === key.length;
    return isSame ? this.itself : join(key, focus.key);
  }

  #scales() {
    const { header } = this.map;
    const target = this.twoFoci && this.focus;
    this.warp = this.focus ? angleScale(this.focus.angle) : (angle) => angle;
    this.scale = poincare(header.curv);
    this.rings = header.rings;
    if (target) {
      const max = target.radius.reduce((most, radius) => Math.max(most, radius), target.header.target.distance);
      this.rings = roundSteps(max, 5);
      if (!this.trueScale) this.scale = stretched(max, sampleOf(target.radius));
    } else if (!this.trueScale) this.scale = stretched(header.max_radius, header.quantiles);
  }

  #groups() {
    const { group, focus, joined } = this;
    if (!focus || !joined) {
      group.fill(GROUP.plain);
      return;
    }
    const mostAbove = focus.header.near_misses.above ?? -Infinity;
    const mostBelow = focus.header.near_misses.below ?? -Infinity;
    for (let i = 0; i < group.length; i++) {
      const j = joined[i];
      if (j < 0) group[i] = GROUP.dim;
      else if (focus.flags[j] & ANCESTOR) group[i] = GROUP.above;
      else if (focus.flags[j] & DESCENDANT) group[i] = GROUP.below;
      else if (focus.flags[j] & SELF) group[i] = GROUP.plain;
      else if (focus.above[j] <= mostAbove) group[i] = GROUP.nearAbove;
      else if (focus.below[j] <= mostBelow) group[i] = GROUP.nearBelow;
      else group[i] = GROUP.dim;
    }
  }

  /**
   * @param {Uint8Array} flags
   * @param {number} flag
   */
  #rowOf(flags, flag) {
    const found = flags.findIndex((f) => (f & flag) !== 0);
    return found < 0 || !this.joined ? -1 : this.joined.indexOf(found);
  }
}

/** @param {Uint32Array} keys */
function rowsByKey(keys) {
  return {
    /** @param {number} key */
    get(key) {
      let [low, high] = [0, keys.length - 1];
      while (low <= high) {
        const middle = (low + high) >> 1;
        if (keys[middle] === key) return middle;
        if (keys[middle] < key) low = middle + 1;
        else high = middle - 1;
      }
      return undefined;
    },
  };
}

/**
 * For each of one ascending column its index in another, -1 where it is not there.
 * @param {Uint32Array} keys
 * @param {Uint32Array} others
 */
function join(keys, others) {
  const found = new Int32Array(keys.length).fill(-1);
  for (let i = 0, j = 0; i < keys.length; i++) {
    while (j < others.length && others[j] < keys[i]) j++;
    if (j < others.length && others[j] === keys[i]) found[i] = j;
  }
  return found;
}
