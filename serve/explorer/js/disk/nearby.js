/** Points by place on the screen: the nearest one, the next one in a direction, those inside a lasso. */

const CELL = 24;
const REACH = 18; // CSS pixels from the pointer within which a point is hit

/** Grid over the screen positions of the points drawn. */
export class Nearby {
  /**
   * @param {Uint32Array} rows the points drawn
   * @param {Float32Array} sx
   * @param {Float32Array} sy
   * @param {number} width
   * @param {number} height
   */
  constructor(rows, sx, sy, width, height) {
    this.sx = sx;
    this.sy = sy;
    this.columns = Math.max(1, Math.ceil(width / CELL));
    this.lines = Math.max(1, Math.ceil(height / CELL));
    const shown = rows.filter((r) => sx[r] >= 0 && sy[r] >= 0 && sx[r] < width && sy[r] < height);
    this.starts = new Uint32Array(this.columns * this.lines + 1);
    for (const row of shown) this.starts[this.#cell(row) + 1]++;
    for (let k = 1; k < this.starts.length; k++) this.starts[k] += this.starts[k - 1];
    const next = this.starts.slice();
    this.rows = new Uint32Array(shown.length);
    this.on = new Uint8Array(sx.length);
    for (const row of shown) {
      this.rows[next[this.#cell(row)]++] = row;
      this.on[row] = 1;
    }
  }

  /**
   * Whether a row is drawn on the screen.
   * @param {number} row
   */
  shown(row) {
    return this.on[row] === 1;
  }

  /**
   * Row of the nearest point within reach, or -1. Of points at one place the one drawn last.
   * @param {number} x
   * @param {number} y
   */
  at(x, y) {
    let [found, best] = [-1, REACH * REACH];
    const column = Math.floor(x / CELL);
    const line = Math.floor(y / CELL);
    for (let l = Math.max(0, line - 1); l <= Math.min(this.lines - 1, line + 1); l++) {
      for (let c = Math.max(0, column - 1); c <= Math.min(this.columns - 1, column + 1); c++) {
        const cell = l * this.columns + c;
        for (let k = this.starts[cell]; k < this.starts[cell + 1]; k++) {
          const row = this.rows[k];
          const squared = (this.sx[row] - x) ** 2 + (this.sy[row] - y) ** 2;
          if (squared <= best) [found, best] = [row, squared];
        }
      }
    }
    return found;
  }

  /**
   * Row of the point that one step in a direction leads to, or -1: near, and little off the direction.
   * @param {number} from
   * @param {number} dx direction on the screen, of length 1
   * @param {number} dy
   */
  towards(from, dx, dy) {
    let [found, best] = [-1, Infinity];
    for (const row of this.rows) {
      const [x, y] = [this.sx[row] - this.sx[from], this.sy[row] - this.sy[from]];
      const ahead = x * dx + y * dy;
      const aside = Math.abs(x * dy - y * dx);
      if (row === from || ahead < 1 || aside > ahead) continue;
      const cost = ahead + 2 * aside;
      if (cost < best) [found, best] = [row, cost];
    }
    return found;
  }

  /**
   * Rows inside a closed polygon, ascending.
   * @param {[number, number][]} polygon
   */
  inside(polygon) {
    return this.rows.filter((row) => contains(polygon, this.sx[row], this.sy[row])).sort();
  }

  /** @param {number} row */
  #cell(row) {
    return Math.floor(this.sy[row] / CELL) * this.columns + Math.floor(this.sx[row] / CELL);
  }
}

/**
 * Whether a point lies inside a polygon, by the number of edges to its right.
 * @param {[number, number][]} polygon
 * @param {number} x
 * @param {number} y
 */
export function contains(polygon, x, y) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [[ax, ay], [bx, by]] = [polygon[i], polygon[j]];
    if (ay > y !== by > y && x < ax + ((y - ay) / (by - ay)) * (bx - ax)) inside = !inside;
  }
  return inside;
}
