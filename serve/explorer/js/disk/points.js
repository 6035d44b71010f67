/**
 * Points as pixels: one pass that moves them into the view, one that stamps them into an image buffer.
 *
 * The modality of a point is its shape: text a disc, image a square, embedding a triangle.
 */

/** @typedef {{a: import("./mobius.js").Complex, zoom: number}} View */

const SHAPES = 3;
const OUTLINED = 20000; // with more points than this the outlines would hide them

/**
 * Shape number of each modality of a map.
 * @param {string[]} modalities
 */
export function shapesOf(modalities) {
  return modalities.map((name) => Math.max(0, ["text", "image", "embedding"].indexOf(name)));
}

/**
 * Write screen coordinates in CSS pixels.
 * @param {{x: Float64Array, y: Float64Array}} places
 * @param {View} view
 * @param {{cx: number, cy: number, radius: number}} frame
 * @param {Float32Array} sx
 * @param {Float32Array} sy
 */
export function project({ x, y }, { a: [a, b], zoom }, { cx, cy, radius }, sx, sy) {
  const scale = radius * zoom;
  for (let i = 0; i < x.length; i++) {
    const [u, v] = [x[i], y[i]];
    const re = 1 + a * u + b * v;
    const im = a * v - b * u;
    const size = scale / (re * re + im * im);
    sx[i] = cx + ((u + a) * re + (v + b) * im) * size;
    sy[i] = cy - ((v + b) * re - (u + a) * im) * size;
  }
}

/** Points sorted by how they look, so that each look is drawn in one run. */
export class Looks {
  /**
   * @param {Uint8Array} group by row, see GROUP of layout.js
   * @param {Uint8Array} shape by row
   * @param {Uint8Array | null} visible by row
   */
  constructor(group, shape, visible) {
    const starts = new Uint32Array(6 * SHAPES + 1);
    for (let i = 0; i < group.length; i++) if (!visible || visible[i]) starts[group[i] * SHAPES + shape[i] + 1]++;
    for (let k = 1; k < starts.length; k++) starts[k] += starts[k - 1];
    const next = starts.slice();
    this.starts = starts;
    this.rows = new Uint32Array(starts[starts.length - 1]);
    for (let i = 0; i < group.length; i++) {
      if (!visible || visible[i]) this.rows[next[group[i] * SHAPES + shape[i]]++] = i;
    }
  }
}

/**
 * Half-width in CSS pixels of the points of a crowd.
 * @param {number} count
 * @param {number} zoom
 */
export function pointSize(count, zoom) {
  const size = count > 20000 ? 1 : count > 2500 ? 2 : 3;
  return size + (zoom >= 3 ? 1 : 0);
}

/**
 * Stamp the points into a buffer of 32-bit pixels, which must be clear.
 * @param {Uint32Array} pixels
 * @param {{width: number, height: number, ratio: number}} frame the buffer, in device pixels, and pixels per CSS pixel
 * @param {Looks} looks
 * @param {Float32Array} sx
 * @param {Float32Array} sy
 * @param {{colours: Uint32Array, edge: number, size: number}} style colours by group and shape, size from `pointSize`
 */
export function stamp(pixels, { width, height, ratio }, looks, sx, sy, { colours, edge, size }) {
  const outlined = looks.rows.length <= OUTLINED;
  for (let look = 0; look + 1 < looks.starts.length; look++) {
    const [from, to] = [looks.starts[look], looks.starts[look + 1]];
    if (from === to) continue;
    const larger = look >= 4 * SHAPES ? 1 : 0; // members of a cone
    const half = Math.round((size + larger) * ratio);
    const [body, rim] = offsets(half, look % SHAPES, width);
    const [margin, colour] = [half + 1, colours[look]];
    const border = outlined ? rim.length : 0;
    for (let i = from; i < to; i++) {
      const row = looks.rows[i];
      const px = (sx[row] * ratio + 0.5) | 0;
      const py = (sy[row] * ratio + 0.5) | 0;
      if (px < margin || py < margin || px >= width - margin || py >= height - margin) continue;
      const at = py * width + px;
      for (let k = 0; k < border; k++) pixels[at + rim[k]] = edge;
      for (let k = 0; k < body.length; k++) pixels[at + body[k]] = colour;
    }
  }
}

/**
 * Offsets of the pixels of a shape, and of those just outside.
 * @param {number} half
 * @param {number} shape
 * @param {number} width
 * @returns {[Int32Array, Int32Array]}
 */
function offsets(half, shape, width) {
  const inside = (/** @type {number} */ dx, /** @type {number} */ dy) => {
    if (shape === 0) return dx * dx + dy * dy <= (half + 0.3) ** 2;
    if (shape === 1) return Math.max(Math.abs(dx), Math.abs(dy)) <= half - (half > 2 ? 0.5 : 0);
    return dy <= half && Math.abs(dx) <= (dy + half + 1) / 2;
  };
  /** @type {number[]} */
  const body = [];
  /** @type {number[]} */
  const rim = [];
  for (let dy = -half - 1; dy <= half + 1; dy++) {
    for (let dx = -half - 1; dx <= half + 1; dx++) {
      const at = dy * width + dx;
      if (inside(dx, dy)) body.push(at);
      else if (inside(dx + 1, dy) || inside(dx - 1, dy) || inside(dx, dy + 1) || inside(dx, dy - 1)) rim.push(at);
    }
  }
  return [Int32Array.from(body), Int32Array.from(rim)];
}
