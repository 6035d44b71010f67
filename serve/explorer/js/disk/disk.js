/**
 * The disk of the explorer: the map of a collection, and the exact view of one focus.
 *
 * The host is an empty, positioned element of some size; the disk makes its own canvases and controls in it and follows
 * its size. Data and requests stay outside: captions and pictures come through the callbacks.
 */

import { Captions } from "./captions.js";
import { Controls } from "./controls.js";
import { figures } from "./draw.js";
import { Frames } from "./frames.js";
import { Gestures } from "./gestures.js";
import { Layout } from "./layout.js";
import { sameSet } from "./marks.js";
import { translate, translationBetween, within } from "./mobius.js";
import { Nearby } from "./nearby.js";
import { Picture } from "./picture.js";
import { Looks, shapesOf } from "./points.js";
import { readTheme, watchTheme } from "./theme.js";
import { tip } from "./tip.js";
import { Turning } from "./turning.js";

/**
 * @typedef {import("./layout.js").MapData} MapData
 * @typedef {import("./layout.js").FocusData} FocusData
 * @typedef {import("./controls.js").Options} Options
 * @typedef {import("./points.js").View} View
 * @typedef {import("./gestures.js").Place} Place
 * @typedef {object} Callbacks
 * @property {(key: number | null) => void} onHover
 * @property {(key: number) => void} onSelect
 * @property {(key: number) => void} onOpen
 * @property {(keys: Uint32Array) => void} onLasso
 * @property {(keys: number[]) => Promise<Map<number, import("./captions.js").Caption>>} labels
 * @property {(keys: number[]) => Promise<Map<number, ImageBitmap>>} thumbnails
 * @typedef {{selected: number | null, hovered: number | null, query: {radius: number, angle: number} | null,
 *            set: Set<number> | null, path: number[]}} Marks
 */

const [LEAST_ZOOM, MOST_ZOOM] = [0.6, 60];
const HELD = 0.98; // how far out the pointer can hold the disk
const NAME = "Disk of the collection: arrow keys go to the next point, Space selects it, Enter opens it, "
  + "plus and minus zoom, 0 shows the whole disk, Escape clears.";
/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @returns {View} */
const whole = () => ({ a: [0, 0], zoom: 1 });

/** A disk in a host element. */
export class Disk {
  /** @type {import("./picture.js").Scene} */
  #scene;
  /** @type {View} the view of the map while a focus is shown */
  #mapView = whole();
  /** @type {Turning | null} */
  #turning = null;
  /** @type {Nearby | null} */
  #grid = null;
  #shapes = new Uint8Array(0);
  /** @type {import("./mobius.js").Complex} what the pointer holds, before the view moves it */
  #held = [0, 0];
  #lassoing = false;

  /**
   * @param {HTMLElement} host
   * @param {Callbacks} callbacks
   */
  constructor(host, callbacks) {
    this.host = host;
    this.callbacks = callbacks;
    host.classList.add("disk-host");
    host.tabIndex = 0;
    host.setAttribute("role", "application");
    host.setAttribute("aria-label", NAME);
    this.#scene = {
      layout: null,
      view: whole(),
      group: new Uint8Array(0),
      looks: new Looks(new Uint8Array(0), new Uint8Array(0), null),
      visible: null,
      figures: null,
      strength: 1,
      marks: { selected: null, hovered: null, query: null, set: null, path: [] },
      cursor: -1,
      options: { trueScale: false, thumbnails: true, thumbnailSize: 48, labels: true },
      lasso: [],
      theme: readTheme(host),
    };
    this.frames = new Frames((how) => this.frame(how), () => this.picture.drawOverlay(this.#scene));
    this.captions = new Captions(callbacks, () => {
      this.frames.requestTop();
      this.#tip();
    });
    this.picture = new Picture(host, this.captions);
    this.controls = new Controls(host, {
      home: () => this.home(),
      zoom: (factor) => this.#zoom(factor),
      lasso: () => this.#lasso(!this.#lassoing),
      set: (options) => this.setOptions(options),
    }, this.#scene.options);
    this.gestures = new Gestures(this.picture.overlay, this.#meanings());
    this.unwatch = watchTheme(() => {
      this.#scene.theme = readTheme(host);
      this.frames.request(false);
    });
    this.resized = new ResizeObserver(() => {
      this.picture.measure([this.controls.bar]);
      this.frames.request(false);
    });
    this.resized.observe(host);
    this.pressed = (/** @type {KeyboardEvent} */ event) => this.#key(event);
    host.addEventListener("keydown", this.pressed);
    this.picture.measure([this.controls.bar]);
  }

  /**
   * Show a collection. Another state of the same one keeps view and focus; what is visible is to be set again.
   * @param {MapData} map
   */
  setMap(map) {
    const scene = this.#scene;
    const same = scene.layout?.map.header.collection === map.header.collection;
    if (!same) this.captions.clear();
    if (!same) scene.view = whole();
    scene.layout = new Layout(map, scene.options.trueScale, same ? scene.layout?.focus : null);
    Object.assign(scene, { visible: null, cursor: -1, strength: 1, figures: figures(scene.layout) });
    this.#turning = null;
    const numbers = shapesOf(map.header.modalities);
    this.#shapes = map.modality.map((m) => numbers[m] ?? 2);
    this.#sort();
    this.frames.request(false);
  }

  /**
   * Show the plane of a focus, or the map again; points turn along their rings on the way.
   * @param {FocusData | null} focus
   */
  setFocus(focus) {
    const { layout, view } = this.#scene;
    if (!layout || (!focus && !layout.focus)) return;
    if (!layout.focus) this.#mapView = view;
    layout.setFocus(focus);
    this.#sort();
    this.#turn(focus ? whole() : this.#mapView, true);
  }

  /**
   * Show only some points.
   * @param {Uint8Array | null} mask by row of the map, not 0 for those shown
   */
  setVisible(mask) {
    this.#scene.visible = mask;
    this.#sort();
    this.frames.request(false);
  }

  /** @param {Partial<Marks>} marks */
  setMarks(marks) {
    const scene = this.#scene;
    const before = scene.marks;
    scene.marks = { ...before, ...marks };
    if (!sameSet(scene.marks.set, before.set)) {
      this.#sort();
      this.frames.request(false);
    } else this.frames.requestTop();
  }

  /** @param {Partial<Options>} options */
  setOptions(options) {
    const scene = this.#scene;
    const before = scene.options;
    scene.options = { ...before, ...options };
    this.controls.show(scene.options, this.#lassoing);
    if (scene.layout && scene.options.trueScale !== before.trueScale) {
      scene.layout.setTrueScale(scene.options.trueScale);
      this.controls.explain(scene.layout, this.#lassoing);
      this.#turn(scene.view, true);
    } else this.frames.request(false);
  }

  /** Show the whole disk, the root in its centre. */
  home() {
    this.#turn(whole(), false);
  }

  /**
   * Keys of the points on the screen, most general first.
   * @param {number} limit
   * @returns {number[]}
   */
  visibleByGenerality(limit) {
    const { layout } = this.#scene;
    if (!layout) return [];
    const near = this.#nearby();
    return [...layout.byRadius.filter((row) => near.shown(row)).subarray(0, limit)].map((row) => layout.map.key[row]);
  }

  /**
   * The picture, with two pixels for each CSS pixel.
   * @returns {Promise<Blob>}
   */
  toPNG() {
    this.picture.draw(this.#scene, { ratio: 2 });
    const canvas = this.picture.flat();
    this.frames.request(false);
    return new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large"))), "image/png"));
  }

  /** End everything and leave the host empty. */
  destroy() {
    this.resized.disconnect();
    this.unwatch();
    for (const part of [this.frames, this.gestures, this.captions, this.controls, this.picture]) part.close();
    this.host.removeEventListener("keydown", this.pressed);
    this.host.classList.remove("disk-host", "disk-lassoing");
  }

  /**
   * Draw a frame now.
   * @param {{moving: boolean, rough?: boolean}} how
   */
  frame({ moving, rough }) {
    const scene = this.#scene;
    if (this.#turning) {
      const { moves } = this.#turning;
      const { view, share } = this.#turning.now();
      scene.view = view;
      scene.strength = moves ? share : 1;
      if (moves) scene.layout?.step(share);
      if (share === 1) this.#turning = null;
    }
    this.#grid = null;
    this.picture.draw(scene, { moving: moving || this.#turning !== null, rough });
    if (this.#turning) this.frames.request(true);
  }

  /** Sort the points by how they look. */
  #sort() {
    const { layout, visible, marks } = this.#scene;
    if (!layout) return;
    this.#grid = null;
    this.#scene.group = layout.groups(marks.set);
    this.#scene.looks = new Looks(this.#scene.group, this.#shapes, layout.shown(visible));
    this.controls.explain(layout, this.#lassoing);
  }

  /**
   * Go to another view, and to the places that the layout has now if `moves`.
   * @param {View} to
   * @param {boolean} moves
   */
  #turn(to, moves) {
    const scene = this.#scene;
    if (!scene.layout) return;
    moves ||= this.#turning?.moves ?? false;
    if (moves) {
      scene.layout.aim();
      scene.figures = figures(scene.layout);
    }
    this.controls.tip(null, this.picture.frame);
    this.#turning = new Turning(scene.view, to, moves);
    this.frames.request(!this.#turning.isInstant);
  }

  /** @param {number} factor */
  #zoom(factor) {
    const { view } = this.#scene;
    this.#look({ a: view.a, zoom: Math.max(LEAST_ZOOM, Math.min(MOST_ZOOM, view.zoom * factor)) });
  }

  /** @param {View} view */
  #look(view) {
    if (this.#turning?.moves) return; // it ends in a view of its own
    this.#turning = null;
    this.#scene.view = view;
    this.controls.tip(null, this.picture.frame);
    this.frames.request(true);
  }

  /** @param {boolean} on */
  #lasso(on) {
    this.#lassoing = on;
    this.host.classList.toggle("disk-lassoing", on);
    this.controls.show(this.#scene.options, on);
    if (this.#scene.layout) this.controls.explain(this.#scene.layout, on);
  }

  #nearby() {
    if (!this.#grid) {
      const { width, height } = this.picture.frame;
      this.picture.project(this.#scene);
      this.#grid = new Nearby(this.#scene.looks.rows, this.picture.sx, this.picture.sy, width, height);
    }
    return this.#grid;
  }

  /**
   * Place in the disk, after the view has moved it, of a place on the screen.
   * @param {Place} at
   * @returns {import("./mobius.js").Complex}
   */
  #inDisk([x, y]) {
    const { cx, cy, radius } = this.picture.frame;
    const scale = radius * this.#scene.view.zoom;
    return within([(x - cx) / scale, (cy - y) / scale], HELD);
  }

  /**
   * Put the cursor on a row and tell of it.
   * @param {number} row
   * @param {boolean} aloud
   */
  #point(row, aloud) {
    const scene = this.#scene;
    if (row === scene.cursor && !aloud) return;
    scene.cursor = row;
    this.frames.requestTop();
    const key = row >= 0 && scene.layout ? scene.layout.map.key[row] : null;
    const shown = this.#tip();
    if (aloud && shown) this.controls.say([shown.caption, ...shown.lines].join(", "));
    this.callbacks.onHover(key);
  }

  /** Say what is known of the point under the cursor. */
  #tip() {
    const { cursor } = this.#scene;
    const shown = cursor >= 0 ? tip(this.#scene, this.picture, this.captions, cursor) : null;
    this.controls.tip(shown, this.picture.frame);
    return shown;
  }

  /** @returns {import("./gestures.js").Meanings} */
  #meanings() {
    const scene = this.#scene;
    /** @type {number | null} */
    let clicked = null;
    const key = (/** @type {Place} */ at) => {
      const row = this.#nearby().at(...at);
      return row >= 0 && scene.layout ? scene.layout.map.key[row] : null;
    };
    return {
      lassoing: () => this.#lassoing,
      grab: (from) => {
        const { a } = scene.view;
        this.#held = translate(this.#inDisk(from), [-a[0], -a[1]]);
      },
      drag: (to) => this.#look({ a: translationBetween(this.#held, this.#inDisk(to)), zoom: scene.view.zoom }),
      zoom: (factor) => this.#zoom(factor),
      hover: (at) => this.#point(at && !this.#turning ? this.#nearby().at(...at) : -1, false),
      click: (at) => {
        clicked = key(at);
        if (clicked !== null) this.callbacks.onSelect(clicked);
      },
      open: () => {
        if (clicked !== null) this.callbacks.onOpen(clicked); // the first click may have set the points moving
      },
      lasso: (outline, ended) => {
        scene.lasso = ended ? [] : outline;
        this.frames.requestTop();
        if (!ended) return;
        this.#lasso(false);
        if (!outline.length || !scene.layout) return;
        const { key: keys } = scene.layout.map;
        this.callbacks.onLasso(this.#nearby().inside(outline).map((row) => keys[row]));
      },
    };
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const scene = this.#scene;
    if (event.target !== this.host || event.ctrlKey || event.metaKey || event.altKey || !scene.layout) return;
    const { key } = event;
    const row = scene.cursor >= 0 ? scene.cursor : scene.layout.row(scene.marks.selected);
    if (key in ARROWS) {
      const near = this.#nearby();
      const first = scene.layout.byRadius.find((r) => near.shown(r)) ?? -1;
      const next = near.shown(row) ? near.towards(row, ...ARROWS[key]) : first;
      this.#point(next >= 0 ? next : row, true);
    } else if (key === "Enter" && row >= 0) this.callbacks.onOpen(scene.layout.map.key[row]);
    else if (key === " " && row >= 0) this.callbacks.onSelect(scene.layout.map.key[row]);
    else if (key === "0") this.home();
    else if (key === "+" || key === "=") this.#zoom(1.25);
    else if (key === "-") this.#zoom(0.8);
    else if (key !== "Escape" || !this.#escape()) return;
    event.preventDefault();
  }

  /** Leave the lasso, or else the cursor; say whether there was one to leave. */
  #escape() {
    const { cursor } = this.#scene;
    const lassoing = this.gestures.cancel() || this.#lassoing;
    if (lassoing) this.#lasso(false);
    else if (cursor >= 0) this.#point(-1, false);
    return lassoing || cursor >= 0;
  }
}
