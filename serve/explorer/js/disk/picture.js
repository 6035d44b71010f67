/** The three canvases of a disk: regions and rings, the points, captions and marks. */

import { drawBackdrop, drawCaptions, onScreen, ringNotes } from "./draw.js";
import { drawMarks, drawWays } from "./marks.js";
import { pointSize, project, stamp } from "./points.js";

const MARGIN = 22; // CSS pixels round the disk
const SHARP = 2; // most pixels per CSS pixel

/**
 * @typedef {object} Scene
 * @property {import("./layout.js").Layout | null} layout
 * @property {import("./points.js").View} view
 * @property {Uint8Array} group by row of the map, see GROUP of layout.js
 * @property {import("./points.js").Looks} looks
 * @property {Uint8Array | null} visible
 * @property {import("./draw.js").Figures | null} figures
 * @property {number} strength of the regions, 0 to 1
 * @property {import("./disk.js").Marks} marks
 * @property {number} cursor row under the pointer or the keys, or -1
 * @property {import("./controls.js").Options} options
 * @property {[number, number][]} lasso
 * @property {import("./theme.js").Theme} theme
 */

/** Draws scenes, and knows where every point is on the screen. */
export class Picture {
  /**
   * @param {HTMLElement} host
   * @param {import("./captions.js").Captions} captions
   */
  constructor(host, captions) {
    this.host = host;
    this.captions = captions;
    this.frame = { cx: 0, cy: 0, radius: 1, width: 0, height: 0 };
    this.sx = new Float32Array(0);
    this.sy = new Float32Array(0);
    this.buffer = new ArrayBuffer(0);
    /** Places of the controls, which captions leave free. @type {import("./boxes.js").Box[]} */
    this.reserved = [];
    /** @type {ReturnType<import("./captions.js").Captions["layOut"]>} what the overlay shows */
    this.captioned = { labels: [], pictures: [], notes: [] };
    const layer = (/** @type {string} */ name) => {
      const canvas = document.createElement("canvas");
      canvas.className = `disk-layer disk-${name}`;
      canvas.setAttribute("aria-hidden", "true");
      host.append(canvas);
      return canvas;
    };
    this.backdrop = layer("backdrop");
    this.crowd = layer("crowd");
    this.overlay = layer("overlay");
  }

  /**
   * Take the size of the host, and that of what lies over it.
   * @param {HTMLElement[]} covers
   */
  measure(covers) {
    this.reserved = covers.map((each) => (
      { x: each.offsetLeft, y: each.offsetTop, width: each.offsetWidth, height: each.offsetHeight }));
    const { clientWidth: width, clientHeight: height } = this.host;
    const radius = Math.max(1, Math.min(width, height) / 2 - MARGIN);
    this.frame = { cx: width / 2, cy: height / 2, radius, width, height };
  }

  /**
   * Find where every point is on the screen.
   * @param {Scene} scene
   */
  project({ layout, view }) {
    const count = layout ? layout.x.length : 0;
    if (this.sx.length !== count) {
      this.sx = new Float32Array(count);
      this.sy = new Float32Array(count);
    }
    if (layout) project(layout, view, this.frame, this.sx, this.sy);
  }

  /**
   * Draw everything: coarsely while it moves, in full when it is still.
   * @param {Scene} scene
   * @param {{moving?: boolean, rough?: boolean, ratio?: number}} how rough: points without smooth edges, which takes a
   *   quarter of the time; ratio: pixels per CSS pixel
   */
  draw(scene, { moving = false, rough = false, ratio }) {
    if (!this.frame.width || !this.frame.height) return;
    const full = Math.min(SHARP, window.devicePixelRatio || 1);
    this.project(scene);
    const { layout, view, figures, theme, strength } = scene;
    const under = this.#pen(this.backdrop, ratio ?? (moving ? 1 : full));
    drawBackdrop(under, this.frame, view, layout, figures, theme.inks, strength);
    this.#points(scene, ratio ?? (moving || rough ? 1 : SHARP)); // pixels of their own edges: halves smooth them when still
    if (layout && !moving) {
      const screen = { ...this.#screen(), zoom: view.zoom };
      this.captions.choose(layout, layout.shown(scene.visible), scene.group, screen, scene.options);
    }
    this.drawOverlay(scene, ratio ?? (moving ? 1 : full));
  }

  /**
   * Draw captions and marks alone, which is all that hovering changes.
   * @param {Scene} scene
   * @param {number} [ratio]
   */
  drawOverlay(scene, ratio) {
    const context = this.#pen(this.overlay, ratio ?? Math.min(SHARP, window.devicePixelRatio || 1));
    context.clearRect(0, 0, this.frame.width, this.frame.height);
    const { layout, view, figures, options, theme } = scene;
    if (!layout) return;
    context.font = `12px ${theme.inks.font}`;
    const notes = ringNotes(layout, this.frame, view, figures);
    const screen = { ...this.#screen(), zoom: view.zoom };
    this.captioned = this.captions.layOut(context, layout, screen, options.thumbnailSize, this.reserved, notes);
    drawWays(context, this, scene);
    drawCaptions(context, layout, this.captioned, theme.inks);
    drawMarks(context, this, scene);
  }

  /**
   * Place of a row on the screen.
   * @param {number} row
   * @returns {[number, number]}
   */
  at(row) {
    return [this.sx[row], this.sy[row]];
  }

  /**
   * Place of a true radius and angle on the screen.
   * @param {Scene} scene
   * @param {number} radius
   * @param {number} angle
   */
  placeOf({ layout, view }, radius, angle) {
    return onScreen(layout ? layout.place(radius, angle) : [0, 0], view, this.frame);
  }

  /** Everything on one canvas. */
  flat() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.backdrop.width, this.backdrop.height];
    for (const layer of [this.backdrop, this.crowd, this.overlay]) pen(canvas).drawImage(layer, 0, 0);
    return canvas;
  }

  close() {
    for (const canvas of [this.backdrop, this.crowd, this.overlay]) canvas.remove();
  }

  #screen() {
    return { sx: this.sx, sy: this.sy, width: this.frame.width, height: this.frame.height };
  }

  /**
   * @param {Scene} scene
   * @param {number} ratio
   */
  #points({ looks, view, theme }, ratio) {
    const width = Math.round(this.frame.width * ratio);
    const height = Math.round(this.frame.height * ratio);
    sized(this.crowd, width, height);
    if (this.buffer.byteLength < width * height * 4) this.buffer = new ArrayBuffer(width * height * 4);
    const pixels = new Uint32Array(this.buffer, 0, width * height).fill(0);
    const style = { colours: theme.points, edge: theme.edge, size: pointSize(looks.rows.length, view.zoom) };
    stamp(pixels, { width, height, ratio }, looks, this.sx, this.sy, style);
    const bytes = new Uint8ClampedArray(this.buffer, 0, width * height * 4);
    pen(this.crowd).putImageData(new ImageData(bytes, width, height), 0, 0);
  }

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {number} ratio
   */
  #pen(canvas, ratio) {
    sized(canvas, Math.round(this.frame.width * ratio), Math.round(this.frame.height * ratio));
    const context = pen(canvas);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  }
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 */
function sized(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}

/** @param {HTMLCanvasElement} canvas */
function pen(canvas) {
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser draws no canvas");
  return context;
}
