/** What the buttons, keys and gestures of the page do. */

import { ApiError, collectionPath } from "./api.js";
import { codeOf, csvOf, requestOf, save, tableOf } from "./exports.js";
import { same } from "./state.js";
import { show } from "./text.js";
import { toggleTheme } from "./theme.js";

/** @typedef {import("./state.js").Thing} Thing @typedef {import("./state.js").Place} Place */

const BRANCH = 8;
const FEWER = 12;
const MOST_SAVED = 256;
const TOAST_MS = 2500;
const NAMES = ["names", "caption", "text", "phrase"];
const MOST_NAMED = 100;

export class Actions {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    /** @type {((given: boolean) => void) | null} */
    this.keyGiven = null;
    /** @type {Promise<boolean> | null} */
    this.keyAsked = null;
  }

  get ui() {
    return this.app.ui;
  }

  get store() {
    return this.app.store;
  }

  get place() {
    return this.app.store.place;
  }

  // The query

  /** Search for the text of the bar. @param {boolean} adds whether it joins the parts there are */
  search(adds = false) {
    const field = /** @type {HTMLTextAreaElement} */ (document.getElementById("query"));
    const text = field.value.trim();
    if (!text) return;
    field.value = "";
    if (this.store.data("model")?.model === null) this.#find(text, adds);
    else if (adds) this.addPart({ kind: "text", text });
    else this.query({ kind: "text", text }, this.place.view === "map" ? "grid" : undefined);
  }

  /**
   * Search by the stored point of an id or a name, where there is no model for other texts. Of points of one name it
   * is the one whose id begins so, or the most general.
   * @param {string} text @param {boolean} adds
   */
  async #find(text, adds) {
    const { api, points, store } = this.app;
    const fields = (store.data("fields")?.fields ?? []).map((/** @type {any} */ field) => field.name);
    this.ui.queryError = null;
    try {
      let found = await points.ofIds([text]);
      for (const field of NAMES.filter((name) => fields.includes(name))) {
        if (found.length) break;
        const filter = JSON.stringify({ [field]: [text, text.toLowerCase()] });
        const asked = new URLSearchParams({ order: "radius", k: String(MOST_NAMED), filter });
        found = (await api.json("GET", collectionPath(this.place.collection, `/points?${asked}`))).points;
      }
      const ids = found.map((point) => point.id);
      const id = ids.filter((each) => each.startsWith(`${text.toLowerCase()}.`)).sort()[0] ?? ids[0];
      if (id === undefined) throw new ApiError(404, "unknown_point", `no point has the id or name “${show(text)}”`);
      if (ids.length > 1) this.toast(`One of ${ids.length} points of this name: ${id}`);
      if (adds) this.addPart({ kind: "id", id });
      else this.query({ kind: "id", id });
    } catch (error) {
      this.ui.queryError = /** @type {ApiError} */ (error);
      this.app.redraw();
    }
  }

  /** Make a thing the query. @param {Thing} thing @param {Place["view"]} [view] */
  query(thing, view) {
    const here = this.place.view;
    const next = view ?? (here === "map" || here === "collections" ? "focus" : here);
    this.ui.queryError = null;
    this.store.go({
      parts: [{ ...thing, weight: 1 }],
      view: next,
      selected: thing.kind === "id" ? thing.id : this.place.selected,
      other: next === "compare" ? this.place.other : null,
    });
  }

  /** @param {Thing[]} things @param {Place["verb"]} verb */
  ask(things, verb) {
    this.store.go({ parts: things.map((thing) => ({ ...thing, weight: 1 })), verb, view: "grid", other: null });
  }

  /** @param {Thing} thing */
  addPart(thing) {
    if (this.place.parts.some((part) => same(part, thing))) return;
    const view = this.place.view === "map" || this.place.view === "collections" ? "grid" : this.place.view;
    this.store.go({ parts: [...this.place.parts, { ...thing, weight: 1 }], view });
  }

  /** @param {number} i */
  removePart(i) {
    const parts = this.place.parts.filter((_, at) => at !== i);
    this.ui.queryError = null;
    this.store.go({
      parts,
      ...(!parts.length && this.place.view === "focus" && { view: /** @type {"map"} */ ("map") }),
    });
  }

  /** @param {number} i @param {string} weight */
  weigh(i, weight) {
    const value = Math.max(0, Number(weight) || 0);
    const parts = this.place.parts.map((part, at) => (at === i ? { ...part, weight: value } : part));
    if (parts.some((part) => part.weight > 0)) this.store.go({ parts }, { replace: true });
    else this.app.redraw();
  }

  /** @param {Place["verb"]} verb */
  setVerb(verb) {
    const view = this.place.parts.length ? "grid" : this.place.view;
    this.store.go({ verb, view });
  }

  /** @param {Place["verb"]} verb @param {Thing} thing */
  verb(verb, thing) {
    this.store.go({ parts: [{ ...thing, weight: 1 }], verb, view: "grid", other: null });
  }

  /** @param {Thing} thing */
  wayToRoot(thing) {
    this.store.go({ parts: [{ ...thing, weight: 1 }], view: "path", other: null });
  }

  /**
   * Compare with the query, or, where there is none or it is this, with the point that is chosen next.
   * @param {Thing} thing
   */
  compare(thing) {
    const { parts } = this.place;
    if (parts.length && !(parts.length === 1 && same(parts[0], thing))) {
      this.store.go({ other: thing, view: "compare" });
      return;
    }
    this.ui.isChoosing = true;
    this.store.go({ parts: [{ ...thing, weight: 1 }], other: null });
    this.toast("Choose the other point");
  }

  compareSelected() {
    if (this.place.selected !== null) this.compare({ kind: "id", id: this.place.selected });
  }

  /** @param {Thing} one @param {Thing} other */
  compareTwo(one, other) {
    this.store.go({ parts: [{ ...one, weight: 1 }], other, view: "compare" });
  }

  swap() {
    const { parts, other } = this.place;
    if (parts.length === 1 && other) this.store.go({ parts: [{ ...other, weight: 1 }], other: parts[0] });
  }

  /** @param {Thing} thing */
  classify(thing) {
    this.store.go({ parts: [{ ...thing, weight: 1 }], view: "classify" });
    if (this.ui.classes) this.app.inputs.runClassify();
  }

  // Points

  /** @param {string} id */
  select(id) {
    if (this.ui.isChoosing) {
      this.ui.isChoosing = false;
      this.compare({ kind: "id", id });
      return;
    }
    this.ui.set = null;
    this.store.go({ selected: id }, { replace: this.place.selected !== null });
  }

  /** A click in the disk: the first one turns it to the point. @param {number} key */
  async selectKey(key) {
    const [point] = await this.app.points.ofKeys([key]);
    if (!point) return;
    if (this.place.parts.length || this.ui.isChoosing) this.select(point.id);
    else this.query({ kind: "id", id: point.id });
  }

  /** @param {number} key */
  async openKey(key) {
    const [point] = await this.app.points.ofKeys([key]);
    if (point) this.query({ kind: "id", id: point.id });
  }

  /** @param {string | null} id */
  hover(id) {
    if (this.ui.hovered === id) return;
    this.ui.hovered = id;
    this.app.redraw();
  }

  /** Select what is next above or below the selected point. @param {"above" | "below"} verb */
  async step(verb) {
    const { selected, collection } = this.place;
    const item = selected !== null ? { id: selected } : this.store.data("item")?.item;
    if (!item) return;
    const path = verb === "above" ? "/hierarchy/ancestors" : "/hierarchy/descendants";
    const order_by = verb === "above" ? "distance" : "margin";
    try {
      const { hits } = await this.app.api.json("POST", path, { of: item, collection, k: 1, order_by });
      if (hits.length) this.select(hits[0].id);
      else this.toast(verb === "above" ? "Nothing is above it but the root" : "Nothing is below it");
    } catch (error) {
      this.toast(/** @type {Error} */ (error).message);
    }
  }

  /** Show and hide what else lies below a stop of the path. @param {string} id */
  async branch(id) {
    const { branches } = this.ui;
    if (branches.delete(id)) return this.app.redraw();
    /** @type {any} */
    const branch = {};
    branches.set(id, branch);
    this.app.redraw();
    try {
      const body = { of: { id }, collection: this.place.collection, k: BRANCH };
      branch.hits = (await this.app.api.json("POST", "/hierarchy/descendants", body)).hits;
    } catch (error) {
      branch.error = error;
    }
    return this.app.redraw();
  }

  async more() {
    const { ui, store, app } = this;
    const name = this.place.parts.length ? "hits" : "listing";
    const load = store.loads[name];
    ui.isMoreComing = true;
    app.redraw();
    try {
      if (name === "hits") {
        const page = await app.requests.hits(store.data("item").item, load.data.hits.length, load.abort.signal);
        load.data = { ...page, hits: [...load.data.hits, ...page.hits] };
      } else {
        const page = await app.requests.listed(load.data.next, load.abort.signal);
        load.data = { ...page, points: [...load.data.points, ...page.points] };
      }
    } catch (error) {
      if (/** @type {Error} */ (error).name !== "AbortError") this.toast(/** @type {Error} */ (error).message);
    } finally {
      ui.isMoreComing = false;
      app.redraw();
    }
  }

  // Filters

  /** @param {string} name @param {any} value */
  toggleValue(name, value) {
    const filter = this.place.fields[name];
    const chosen = filter && "values" in filter ? filter.values : [];
    const values = chosen.includes(value) ? chosen.filter((each) => each !== value) : [...chosen, value];
    const { [name]: _, ...rest } = this.place.fields;
    this.store.go({ fields: values.length ? { ...rest, [name]: { values } } : rest });
  }

  /** @param {string} name @param {"gte" | "lte"} end @param {string} text */
  boundField(name, end, text) {
    const { [name]: before, ...rest } = this.place.fields;
    const bounds = { ...(before && !("values" in before) ? before : {}) };
    if (text === "" || !Number.isFinite(Number(text))) delete bounds[end];
    else bounds[end] = Number(text);
    this.store.go({ fields: Object.keys(bounds).length ? { ...rest, [name]: bounds } : rest });
  }

  /** @param {string} name */
  wholeField(name) {
    this.ui.wholeFields.add(name);
    this.app.redraw();
  }

  // Collections

  /** @param {string} name */
  openCollection(name) {
    this.store.go({
      collection: name,
      view: "map",
      parts: [],
      other: null,
      selected: null,
      fields: {},
      modality: null,
      min: null,
      max: null,
      width: null,
    });
  }

  /** Load what the cards of the collections show besides, once each. */
  synced() {
    if (this.place.view !== "collections") return;
    for (const each of this.store.data("collections") ?? []) {
      if (this.ui.collections.has(each.name)) continue;
      this.ui.collections.set(each.name, null);
      this.#cardOf(each.name).then(
        (more) => {
          this.ui.collections.set(each.name, more);
          this.app.redraw();
        },
        () => {},
      );
    }
  }

  /** @param {string} name */
  async #cardOf(name) {
    const { app } = this;
    const map = await app.api.columns("GET", collectionPath(name, "/map"));
    const { points } = await app.api.json("GET", collectionPath(name, "/points?order=radius&k=6&modality=image"));
    const ids = points.map((/** @type {any} */ point) => point.id);
    const store = new /** @type {any} */ (app.points.constructor)(app.api, name, () => {});
    await store.loadThumbnails(ids);
    return {
      radius: map.radius,
      top: map.header.max_radius,
      images: ids.map((/** @type {string} */ id) => store.thumbnails.get(id)).filter(Boolean),
    };
  }

  async addLines() {
    const texts = this.ui.lines
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean);
    if (!texts.length) return;
    const points = texts.map((text) => ({ id: text.slice(0, 500), text, metadata: { caption: text } }));
    this.ui.writeError = null;
    try {
      await this.app.api.json("PUT", collectionPath(this.place.collection, "/points"), { points });
      this.retry(["collections", "map", "fields", "listing"]);
    } catch (error) {
      this.ui.writeError = /** @type {ApiError} */ (error);
      this.app.redraw();
    }
  }

  // Keys, errors, and the rest

  /** Ask for a key, once for all requests that want one. @returns {Promise<boolean>} */
  askForKey() {
    this.keyAsked ??= new Promise((resolve) => {
      this.keyGiven = resolve;
      this.ui.keyError = this.app.api.key ? "This key is not known to the server." : "";
      this.app.api.key = "";
      this.dialog("key-dialog");
    });
    return this.keyAsked;
  }

  /** @param {string | null} key */
  giveKey(key) {
    if (key?.trim()) this.app.api.key = key.trim();
    this.dialog("");
    this.keyAsked = null;
    this.keyGiven?.(!!key?.trim());
    this.keyGiven = null;
  }

  forgetKey() {
    this.app.api.key = "";
    location.reload();
  }

  /** @param {string[]} loads */
  async newKey(loads) {
    this.app.api.key = "";
    if (await this.askForKey()) this.retryFailed(loads);
  }

  /** @param {string[]} names */
  retry(names) {
    for (const name of names) this.store.forget(name);
    this.ui.queryError = null;
    this.store.changed();
  }

  /** @param {string[]} more */
  retryFailed(more = []) {
    const failed = Object.entries(this.store.loads)
      .filter(([, load]) => load.status === "failed")
      .map(([name]) => name);
    this.retry([...failed, ...more]);
  }

  /** @param {string[]} loads */
  askForFewer(loads) {
    this.app.requests.page = FEWER;
    this.retry(loads);
  }

  /** @param {string} view */
  view(view) {
    this.store.go({ view: /** @type {any} */ (view === "map" && this.place.parts.length ? "focus" : view) });
  }

  /** @param {string} id @param {string} [only] only where this one is open */
  dialog(id, only) {
    if (only && this.ui.dialog !== only) return;
    this.ui.dialog = id;
    this.app.redraw();
  }

  theme() {
    toggleTheme();
    this.app.redraw();
  }

  /** @param {boolean} isOpen */
  openTwin(isOpen) {
    if (this.ui.isTwinOpen === isOpen) return;
    this.ui.isTwinOpen = isOpen;
    this.app.bridge.list();
  }

  dropSet() {
    this.ui.set = null;
    this.app.redraw();
  }

  /** @param {string} text */
  toast(text) {
    this.ui.toast = show(text);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.ui.toast = "";
      this.app.redraw();
    }, TOAST_MS);
    this.app.redraw();
  }

  // Export

  /** @param {"curl" | "python"} language */
  code(language) {
    return codeOf(language, requestOf(this.app), this.app.api);
  }

  /** @param {string} text @param {string} what */
  async copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
      this.toast(`Copied: ${what}`);
    } catch {
      this.toast("The browser did not let this page copy");
    }
  }

  /** @param {"json" | "csv" | "png"} kind */
  async save(kind) {
    const name = `hypclip-${this.place.collection}-${this.place.view}`;
    if (kind === "png") {
      const disk = this.app.bridge.disk;
      return disk ? save(`${name}.png`, await disk.toPNG()) : undefined;
    }
    const table = tableOf(this.app);
    const text = kind === "csv" ? csvOf(table) : JSON.stringify({ request: requestOf(this.app), rows: table }, null, 1);
    return save(`${name}.${kind}`, new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }));
  }

  async exportSet() {
    const keys = this.ui.set?.keys ?? [];
    for (let i = 0; i < keys.length; i += MOST_SAVED) await this.app.points.ofKeys(keys.slice(i, i + MOST_SAVED));
    const rows = await this.app.points.ofKeys(keys);
    save("hypclip-set.csv", new Blob([csvOf(rows.map(({ thumbnail: _, ...row }) => row))], { type: "text/csv" }));
  }
}
