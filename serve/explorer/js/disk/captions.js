/** Captions and thumbnails of points: what was fetched, what is asked for, and which of them fit on the screen. */

import { show } from "../text.js";
import { Boxes, firstPerCell } from "./boxes.js";
import { GROUP } from "./layout.js";

const BATCH = 256;
const KEPT = 600; // thumbnails in memory: 160 × 160 × 4 bytes each at most, 60 MB outside of the heap
const LINE = 16;
const LETTERS = 24;
const LEADING = 28; // labels laid out before pictures
const LABELS = 60; // most labels of the whole disk
export const FRAME = 4; // round a picture, half of it empty
const NAMED = [GROUP.above, GROUP.below, GROUP.nearAbove, GROUP.nearBelow];

/**
 * @typedef {{text: string, id: string, modality: string}} Caption
 * @typedef {{row: number, text: string, x: number, y: number, width: number, height: number}} Label
 * @typedef {{row: number, bitmap: ImageBitmap, x: number, y: number, width: number, height: number}} Picture
 */

/**
 * One kind of thing known by key, fetched in batches when asked for.
 * @template T
 */
export class Fetched {
  /**
   * @param {(keys: number[]) => Promise<Map<number, T>>} fetch
   * @param {() => void} arrived
   * @param {number} limit how many are kept
   */
  constructor(fetch, arrived, limit) {
    this.fetch = fetch;
    this.arrived = arrived;
    this.limit = limit;
    /** null: asked for, or not there. @type {Map<number, T | null>} */
    this.known = new Map();
    /** @type {Set<number>} */
    this.wanted = new Set();
    this.closed = false;
    this.timer = 0;
  }

  /**
   * What is known of a key; otherwise it is asked for.
   * @param {number} key
   * @returns {T | null}
   */
  get(key) {
    const found = this.known.get(key);
    if (found === undefined) {
      this.known.set(key, null);
      this.wanted.add(key);
      if (!this.timer) this.timer = window.setTimeout(() => this.#ask(), 30);
    } else if (found !== null) {
      this.known.delete(key); // the last one used is the last one dropped
      this.known.set(key, found);
    }
    return found ?? null;
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.known.clear();
  }

  async #ask() {
    this.timer = 0;
    const keys = [...this.wanted];
    this.wanted.clear();
    for (let i = 0; i < keys.length; i += BATCH) {
      const batch = keys.slice(i, i + BATCH);
      try {
        const found = await this.fetch(batch);
        if (this.closed) return;
        for (const [key, value] of found) this.known.set(key, value);
        if (found.size) this.arrived();
      } catch {
        for (const key of batch) this.known.delete(key); // asked again by the next picture of them
      }
    }
    for (const [key, value] of this.known) {
      if (this.known.size <= this.limit) break;
      if (value !== null) this.known.delete(key);
    }
  }
}

/** Chooses labels and thumbnails for a still picture, and lays the chosen ones out again while it moves. */
export class Captions {
  /**
   * @param {{labels: (keys: number[]) => Promise<Map<number, Caption>>,
   *          thumbnails: (keys: number[]) => Promise<Map<number, ImageBitmap>>}} callbacks
   * @param {() => void} arrived
   */
  constructor(callbacks, arrived) {
    this.texts = new Fetched((keys) => callbacks.labels(keys), arrived, 20000);
    this.pictures = new Fetched((keys) => callbacks.thumbnails(keys), arrived, KEPT);
    /** @type {Map<string, number>} */
    this.widths = new Map();
    /** @type {number[]} */
    this.labelRows = [];
    /** @type {number[]} */
    this.pictureRows = [];
  }

  close() {
    this.texts.close();
    this.pictures.close();
  }

  /** Forget everything: another collection's keys mean other points. */
  clear() {
    for (const kind of [this.texts, this.pictures]) {
      kind.known.clear();
      kind.wanted.clear();
    }
    this.labelRows = [];
    this.pictureRows = [];
  }

  /**
   * Caption of a key, or an empty string while it is not there.
   * @param {number} key
   */
  text(key) {
    const caption = this.texts.get(key);
    return caption ? show(caption.text) : "";
  }

  /**
   * Choose the rows to be captioned, most general first, and those to be drawn as pictures.
   * @param {import("./layout.js").Layout} layout
   * @param {Uint8Array | null} visible
   * @param {Uint8Array} group by row: the dim ones are left out
   * @param {Screen} screen
   * @param {import("./controls.js").Options} options
   * @typedef {{sx: Float32Array, sy: Float32Array, width: number, height: number, zoom: number}} Screen
   */
  choose(layout, visible, group, { sx, sy, width, height }, { labels, thumbnails, thumbnailSize: size }) {
    const { modality, header } = layout.map;
    const [text, image] = ["text", "image"].map((name) => header.modalities.indexOf(name));
    const shown = layout.byRadius.filter((r) => (!visible || visible[r] !== 0) && group[r] !== GROUP.dim);
    const foci = layout.foci.filter((r) => !visible || visible[r] !== 0);
    this.labelRows = [];
    this.pictureRows = [];
    if (labels) {
      const named = layout.focus
        ? [foci, ...NAMED.map((g) => shown.filter((r) => group[r] === g))].flatMap((rows) => [...rows])
        : shown.filter((r) => modality[r] === text);
      const grid = { width, height, columns: 44, lines: LINE + 2, limit: BATCH };
      this.labelRows = firstPerCell(named.length ? named : shown, sx, sy, grid);
    }
    if (thumbnails && image >= 0) {
      const drawn = [...foci, ...shown].filter((r) => modality[r] === image);
      const half = size / 2; // a cell whose first picture has no room may have it for another
      this.pictureRows = firstPerCell(drawn, sx, sy, { width, height, columns: half, lines: half, limit: BATCH });
    }
  }

  /**
   * Lay the chosen ones out without overlaps.
   * @param {CanvasRenderingContext2D} context whose font the labels have
   * @param {import("./layout.js").Layout} layout
   * @param {Screen} screen
   * @param {number} size side of a thumbnail's cell
   * @param {import("./boxes.js").Box[]} reserved boxes kept free
   * @param {import("./draw.js").Note[]} notes
   * @returns {{labels: Label[], pictures: Picture[], notes: import("./draw.js").Note[]}}
   */
  layOut(context, layout, { sx, sy, width, height, zoom }, size, reserved, notes) {
    const { foci } = layout;
    const boxes = new Boxes(width, height);
    for (const box of reserved) boxes.add(box);
    const drawable = new Set(this.pictureRows.filter((row) => this.pictures.get(layout.map.key[row])));
    /** @type {Label[]} */
    const labels = [];
    const most = Math.min(200, LABELS * Math.max(1, zoom));
    const label = (/** @type {number} */ row) => {
      const full = labels.length < most ? this.text(layout.map.key[row]) : "";
      if (!full || drawable.has(row)) return; // a picture says what it is
      const text = full.length > LETTERS ? `${full.slice(0, LETTERS - 1).trimEnd()}…` : full;
      const wide = this.#width(context, text) + 4;
      const [x, y] = [sx[row], sy[row]];
      const gap = !foci.includes(row) ? 5 : pictures.some((each) => each.row === row) ? size / 2 : 12;
      const [middle, centre] = [y - LINE / 2, x - wide / 2];
      const places = [[x + gap, middle], [x - wide - gap, middle], [centre, y - LINE - gap], [centre, y + gap]];
      for (const [left, top] of places) {
        const box = { x: left, y: top, width: wide, height: LINE };
        if (!boxes.add(box)) continue;
        labels.push({ row, text, ...box });
        return;
      }
    };
    /** @type {Picture[]} */
    const pictures = [];
    const picture = (/** @type {number} */ row) => {
      const bitmap = this.pictures.get(layout.map.key[row]);
      if (!bitmap) return;
      const scale = (size - 2 * FRAME) / Math.max(bitmap.width, bitmap.height);
      const [wide, high] = [bitmap.width * scale + 2 * FRAME, bitmap.height * scale + 2 * FRAME];
      const box = { x: sx[row] - wide / 2, y: sy[row] - high / 2, width: wide, height: high };
      if (boxes.add(box)) pictures.push({ row, bitmap, ...box });
    };
    for (const row of foci) if (drawable.delete(row)) picture(row);
    const kept = notes.filter(({ x, y }) => boxes.add({ x: x - 22, y: y - LINE / 2, width: 44, height: LINE }));
    this.labelRows.slice(0, LEADING).forEach(label); // names of what is most general, pictures, and further names
    drawable.forEach(picture);
    this.labelRows.slice(LEADING).forEach(label);
    return { labels, pictures, notes: kept };
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {string} text
   */
  #width(context, text) {
    let width = this.widths.get(text);
    if (width === undefined) {
      width = context.measureText(text).width;
      if (this.widths.size > 20000) this.widths.clear();
      this.widths.set(text, width);
    }
    return width;
  }
}
