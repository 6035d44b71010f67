/** Rectangles on the screen that do not overlap. */

const CELL = 64;

/** @typedef {{x: number, y: number, width: number, height: number}} Box */

/** The rectangles placed so far. */
export class Boxes {
  /**
   * @param {number} width
   * @param {number} height
   */
  constructor(width, height) {
    this.width = width;
    this.height = height;
    /** @type {Map<number, Box[]>} */
    this.cells = new Map();
  }

  /**
   * Place a box where it is wholly on the screen and touches no other one; say whether it was.
   * @param {Box} box
   */
  add(box) {
    if (box.x < 0 || box.y < 0 || box.x + box.width > this.width || box.y + box.height > this.height) return false;
    const cells = cellsOf(box);
    if (cells.some((cell) => this.cells.get(cell)?.some((other) => overlap(box, other)))) return false;
    for (const cell of cells) {
      const held = this.cells.get(cell);
      if (held) held.push(box);
      else this.cells.set(cell, [box]);
    }
    return true;
  }
}

/**
 * Whether two boxes share a point inside both.
 * @param {Box} a
 * @param {Box} b
 */
export function overlap(a, b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

/**
 * The first rows of a sequence that fall into each cell of a grid over the screen, in the order of the sequence.
 * @param {Iterable<number>} rows
 * @param {Float32Array} sx
 * @param {Float32Array} sy
 * @param {{width: number, height: number, columns: number, lines: number, limit: number}} grid cell sizes, most rows
 */
export function firstPerCell(rows, sx, sy, { width, height, columns, lines, limit }) {
  const across = Math.ceil(width / columns);
  const taken = new Uint8Array(across * Math.ceil(height / lines));
  /** @type {number[]} */
  const found = [];
  for (const row of rows) {
    const [x, y] = [sx[row], sy[row]];
    if (!(x >= 0 && y >= 0 && x < width && y < height)) continue;
    const cell = Math.floor(y / lines) * across + Math.floor(x / columns);
    if (taken[cell]) continue;
    taken[cell] = 1;
    found.push(row);
    if (found.length === limit) break;
  }
  return found;
}

/** @param {Box} box */
function cellsOf({ x, y, width, height }) {
  const cells = [];
  for (let line = Math.floor(y / CELL); line <= Math.floor((y + height) / CELL); line++) {
    for (let column = Math.floor(x / CELL); column <= Math.floor((x + width) / CELL); column++) {
      cells.push(line * 4096 + column);
    }
  }
  return cells;
}
