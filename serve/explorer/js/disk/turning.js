/** The short way from one view to another, and from one layout to the next. */

const LASTING = 400; // milliseconds

/** @typedef {import("./points.js").View} View */

/** One such way; without motion it is over at once. */
export class Turning {
  /**
   * @param {View} from
   * @param {View} to
   * @param {boolean} moves whether the points change places, and not only the view
   */
  constructor(from, to, moves) {
    this.from = from;
    this.to = to;
    this.moves = moves;
    this.isInstant = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.start = performance.now();
  }

  /** View and share of the way at present; 1 is exact, and the end. */
  now() {
    const past = this.isInstant ? 1 : (performance.now() - this.start) / LASTING;
    if (past >= 1) return { view: this.to, share: 1 };
    const share = past < 0.5 ? 4 * past ** 3 : 1 - 4 * (1 - past) ** 3;
    const { from, to } = this;
    const between = (/** @type {0 | 1} */ i) => from.a[i] + share * (to.a[i] - from.a[i]);
    /** @type {View} */
    const view = { a: [between(0), between(1)], zoom: from.zoom * (to.zoom / from.zoom) ** share };
    return { view, share };
  }
}
