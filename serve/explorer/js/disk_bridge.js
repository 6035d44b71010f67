/** What the disk is told, and what it tells: only what has changed since it was last told. */

import { Disk } from "./disk/disk.js";
import { label } from "./text.js";

const TWIN = 60;
const SET_SHOWN = 200;
/** How long the pointer rests on a point before it is asked for. */
const RESTING_MS = 120;

/** @typedef {import("./app.js").App} App */

export class DiskBridge {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    /** @type {Record<string, any>} */
    this.told = {};
    /** @type {Disk | null} */
    this.disk = null;
  }

  /** The disk reads colours and sizes of its host, so it is made when that is part of the page. */
  #make() {
    const { app } = this;
    const disk = new Disk(app.diskHost, {
      onHover: (/** @type {number | null} */ key) => this.#hovered(key),
      onSelect: (/** @type {number} */ key) => app.act.selectKey(key),
      onOpen: (/** @type {number} */ key) => app.act.openKey(key),
      onLasso: (/** @type {Uint32Array} */ keys) => this.#caught(keys),
      labels: (/** @type {Iterable<number>} */ keys) => this.#labels(keys),
      thumbnails: (/** @type {Iterable<number>} */ keys) => this.#thumbnails(keys),
    });
    for (const name of ["pointerup", "wheel", "keyup"]) {
      app.diskHost.addEventListener(name, () => this.#listLater(), { passive: true });
    }
    return disk;
  }

  /** Tell the disk what is new. */
  update() {
    const { app } = this;
    const { store } = app;
    if (!app.diskHost.isConnected) return;
    const disk = (this.disk ??= this.#make());
    const map = store.data("map");
    if (map && this.#isNew("map", [map])) {
      disk.setMap(map);
      this.told = { map: this.told.map }; // the disk forgets the rest with the old map
    }
    if (!map) return;
    const isFocus = store.place.view === "focus" || store.place.view === "compare";
    const focus = isFocus ? store.data("focus") : null;
    if (this.#isNew("focus", [focus])) {
      const of = focus?.header.of;
      disk.setMarks({ query: of ? { radius: of.radius, angle: of.angle } : null });
      disk.setFocus(focus);
    }
    const mask = this.#mask(map);
    if (this.#isNew("mask", [mask])) disk.setVisible(mask);
    const { place } = store;
    const marked = [
      place.selected,
      place.view,
      app.ui.hovered,
      focus,
      app.ui.set,
      store.data("path"),
      app.points.byId.size,
    ];
    if (this.#isNew("marks", marked)) disk.setMarks(this.#marks());
    if (this.told.list !== `${map.header.version}${!!focus}${place.view}`) {
      this.told.list = `${map.header.version}${!!focus}${place.view}`;
      this.#listLater();
    }
  }

  /** @param {string} name @param {any[]} values */
  #isNew(name, values) {
    const before = this.told[name];
    this.told[name] = values;
    return !before || values.some((value, i) => value !== before[i]);
  }

  /** @param {any} map @returns {Uint8Array | null} */
  #mask(map) {
    const { place } = this.app.store;
    const kept = this.app.store.data("kept");
    const isFree = place.min === null && place.max === null && !place.modality && !Object.keys(place.fields).length;
    if (isFree) return null;
    return this.app.memo("mask", [map, kept, place.min, place.max, place.modality], () => {
      const kind = map.header.modalities.indexOf(place.modality ?? "");
      const [low, high] = [place.min ?? 0, place.max ?? Infinity];
      return Uint8Array.from(map.radius, (/** @type {number} */ radius, /** @type {number} */ i) =>
        Number(
          radius >= low && radius <= high && (kind < 0 || map.modality[i] === kind) && (!kept || kept.has(map.key[i])),
        ),
      );
    });
  }

  #marks() {
    const { store, points, ui } = this.app;
    const keyOf = (/** @type {string | null} */ id) => (id === null ? null : (points.byId.get(id)?.key ?? null));
    const keysOf = (/** @type {any[]} */ all) => all.map((each) => keyOf(each.id)).filter((key) => key !== null);
    return {
      selected: keyOf(store.place.selected),
      hovered: keyOf(ui.hovered),
      set: ui.set ? new Set(ui.set.keys) : null,
      path: keysOf(store.place.view === "focus" ? (store.data("path")?.path ?? []) : []),
    };
  }

  /** @param {number | null} key */
  #hovered(key) {
    clearTimeout(this.resting);
    const known = key === null ? null : this.app.points.byKey.get(key);
    if (known !== undefined) return this.app.act.hover(known?.id ?? null);
    this.resting = setTimeout(async () => {
      const [point] = await this.app.points.ofKeys([/** @type {number} */ (key)]);
      this.app.act.hover(point?.id ?? null);
    }, RESTING_MS);
  }

  /** @param {Uint32Array} keys */
  async #caught(keys) {
    const map = this.app.store.data("map");
    const wanted = new Set(keys);
    const rows = [...map.key.keys()]
      .filter((i) => wanted.has(map.key[i]))
      .sort((a, b) => map.radius[a] - map.radius[b]);
    if (!rows.length) return;
    const shown = rows.slice(0, SET_SHOWN).map((i) => map.key[i]);
    const [min, max] = [map.radius[rows[0]], map.radius[rows[rows.length - 1]]];
    this.app.ui.set = { keys: rows.map((i) => map.key[i]), shown, min, max };
    this.app.redraw();
    await this.app.points.ofKeys(shown);
    this.app.redraw();
  }

  /** @param {Iterable<number>} keys */
  async #labels(keys) {
    const points = await this.app.points.ofKeys(keys);
    return new Map(points.map((point) => [point.key, { text: label(point), id: point.id, modality: point.modality }]));
  }

  /** @param {Iterable<number>} keys */
  async #thumbnails(keys) {
    const points = await this.app.points.ofKeys(keys);
    await this.app.points.loadThumbnails(points.map((point) => point.id));
    const found = new Map();
    await Promise.all(
      points.map(async ({ key, id }) => {
        const thumbnail = this.app.points.thumbnails.get(id);
        if (thumbnail) found.set(key, await createImageBitmap(thumbnail.blob));
      }),
    );
    return found;
  }

  #listLater() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.list(), 250);
  }

  /** Bring the list of the points in sight up to date. */
  async list() {
    if (!this.disk || !this.app.ui.isTwinOpen) return;
    this.app.ui.twin = this.disk.visibleByGenerality(TWIN);
    await this.app.points.ofKeys(this.app.ui.twin);
    this.app.redraw();
  }
}
