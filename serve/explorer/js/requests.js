/** What each view asks the server for, from the place alone. */

import { ApiError, collectionPath } from "./api.js";
import { fieldFilter, itemOf, where } from "./state.js";

/** @typedef {import("./state.js").Place} Place @typedef {import("./store.js").Store} Store */

const RELATED = 8;
const LISTED = 1000;
const MOST_LISTED = 50_000;

/** The request of a list of hits. @param {Place} place @param {any} item
 * @param {{k: number, offset: number}} page @param {any} rule */
export function hitsRequest(place, item, { k, offset }, rule) {
  const common = { ...where(place), k, offset };
  if (place.verb === "near") {
    return { path: "/retrieve", body: { query: item, ...common, ...(place.exact && { exact: true }) } };
  }
  const path = place.verb === "above" ? "/hierarchy/ancestors" : "/hierarchy/descendants";
  return { path, body: { of: item, ...common, order_by: place.sort, ...width(place, rule) } };
}

/** The fields that make the rule stricter or laxer. @param {Place} place @param {any} rule of the model */
export function width(place, rule) {
  if (place.width === null || !rule) return {};
  return rule.form === "plane" ? { rule: { form: "plane", threshold: place.width } } : { aperture_scale: place.width };
}

/** @param {Place} place @param {any} item @param {any} target @param {any} rule */
export function pathRequest(place, item, target, rule) {
  const body = {
    source: item,
    target,
    ...where(place),
    steps: place.everyStop ? null : 50,
    entailment: place.entailed,
    ...(place.entailed ? width(place, rule) : {}),
  };
  return { path: "/hierarchy/traverse", body };
}

/** Loads of the page. `needs` starts those of the place; what is there already is left alone. */
export class Requests {
  /** @param {import("./api.js").Api} api @param {Store} store */
  constructor(api, store) {
    this.api = api;
    this.store = store;
    /** Hits of a page. */
    this.page = 48;
    /** @type {import("./points.js").Points} */
    this.points = /** @type {any} */ (null);
  }

  get rule() {
    return this.store.data("model")?.entailment ?? null;
  }

  needs() {
    const { store, api } = this;
    const { place } = store;
    const name = place.collection;
    store.need("model", [name], (signal) => this.#model(name, signal));
    store.need(
      "collections",
      1,
      async (signal) => (await api.json("GET", "/collections", undefined, signal)).collections,
    );
    if (place.view === "collections" || !this.#exists()) return;
    store.need("map", [name], (signal) => api.columns("GET", collectionPath(name, "/map"), undefined, signal));
    if (!place.parts.length && (place.view === "map" || place.view === "grid")) {
      store.need("starters", [name], (signal) => this.#starters(signal));
    }
    store.need("fields", [name], (signal) => api.json("GET", collectionPath(name, "/fields"), undefined, signal));
    const filter = fieldFilter(place);
    if (filter) store.need("kept", [name, filter, place.modality], (signal) => this.#keysOf(filter, signal));
    else store.forget("kept");
    this.#name();
    if (store.data("model")) {
      if (place.parts.length) this.#query();
      else {
        for (const each of ["item", "hits", "focus", "path", "compare"]) store.forget(each);
        if (place.view === "grid") {
          store.need("listing", [name, where(place)], (signal) => this.listed(null, signal));
        }
      }
    }
    // After what fills the middle of the page: the server answers in the order in which it is asked.
    if (place.selected !== null) this.#inspect(place.selected);
  }

  /** Whether the picture around the focus has been answered, or there is none to wait for. */
  get isSeen() {
    return this.store.place.view !== "focus" || this.store.loads.focus?.status !== "loading";
  }

  /** Have the points known by name and key that the page speaks of. */
  #name() {
    const { store } = this;
    const { place } = store;
    const things = [...place.parts, ...(place.other ? [place.other] : [])];
    const ids = new Set(things.flatMap((thing) => (thing.kind === "id" ? [thing.id] : [])));
    if (place.selected !== null) ids.add(place.selected);
    if (place.view === "focus") for (const stop of store.data("path")?.path ?? []) if (stop.modality) ids.add(stop.id);
    const asked = [...ids];
    if (asked.length) store.need("named", [place.collection, asked], () => this.points.ofIds(asked));
  }

  /** Whether the collection is there; what is asked of one that is not would be refused. */
  #exists() {
    const { loads, place } = this.store;
    const { data, status } = loads.collections;
    if (!data) return status === "failed";
    return data.some((/** @type {any} */ each) => each.name === place.collection);
  }

  /**
   * The server's model; of a server without one the space of the collection, with `model` null.
   * @param {string} name of the collection @param {AbortSignal} signal
   */
  async #model(name, signal) {
    try {
      return await this.api.json("GET", "/model", undefined, signal);
    } catch (error) {
      if (/** @type {ApiError} */ (error).type !== "no_model") throw error;
    }
    const all = (await this.api.json("GET", "/collections", undefined, signal)).collections;
    const found = all.find((/** @type {any} */ each) => each.name === name);
    return found ? { model: null, curv: found.curv, dim: found.dim, entailment: found.entailment } : null;
  }

  /** Words and images for first questions. @param {AbortSignal} signal */
  async #starters(signal) {
    const ask = (/** @type {string} */ modality) =>
      this.api.json(
        "GET",
        collectionPath(this.store.place.collection, `/points?order=radius&k=12&modality=${modality}`),
        undefined,
        signal,
      );
    const [words, images] = await Promise.all([ask("text"), ask("image")]);
    for (const point of [...words.points, ...images.points]) this.points.keep(point);
    return { words: words.points.slice(0, 4), images: [images.points[0], images.points[11]].filter(Boolean) };
  }

  #query() {
    const { store } = this;
    const { place } = store;
    const parts = place.parts.map((part) => [itemOf(part), part.weight]);
    store.need("item", [place.collection, parts], (signal) => this.#resolve(signal));
    const load = store.loads.item;
    const [first, ...others] = place.parts;
    // A point by id needs no answer first, so that a focus comes as soon as it is clicked.
    const item = first.kind === "id" && !others.length ? itemOf(first) : load.status === "done" ? load.data.item : null;
    if (!item) return;
    const narrow = [item, where(place), width(place, this.rule)];
    if (place.view === "grid") {
      const key = [narrow, place.verb, place.sort, place.exact, this.page];
      store.need("hits", key, (signal) => this.hits(item, 0, signal));
    }
    if (place.view === "focus") {
      store.need("focus", [item, place.collection, width(place, this.rule), 0], (signal) =>
        this.#focus(item, null, signal),
      );
      if (!this.isSeen) return; // what stands beside the picture is asked for when it is there
    }
    if (place.view === "focus" || place.view === "path") {
      const target = place.view === "path" && place.other ? itemOf(place.other) : null;
      const { path, body } = pathRequest(place, item, target, this.rule);
      store.need("path", body, (signal) => this.api.json("POST", path, body, signal));
    }
    if (place.view === "compare" && place.other) {
      const other = itemOf(place.other);
      store.need("compare", [narrow, other], (signal) => this.#compare(item, other, signal));
      store.need("focus", [item, place.collection, other], (signal) => this.#focus(item, other, signal));
    }
    if (place.selected === null) this.#relate(item, null);
  }

  /**
   * One item of all parts, and its radius: a text is embedded once, several parts are averaged.
   * @param {AbortSignal} signal @returns {Promise<{item: any, radius: number}>}
   */
  async #resolve(signal) {
    const { parts, collection } = this.store.place;
    if (parts.length > 1) {
      const inputs = parts.map(itemOf);
      const body = { inputs, weights: parts.map((part) => part.weight), collection };
      const { embedding, radius } = await this.api.json("POST", "/hierarchy/mean", body, signal);
      return { item: { embedding }, radius };
    }
    const [part] = parts;
    const item = itemOf(part);
    switch (part.kind) {
      case "text": {
        const [{ embedding, radius }] = (await this.api.json("POST", "/embed", { inputs: [item] }, signal)).data;
        return { item: { embedding }, radius };
      }
      case "id": {
        const [point] = await this.points.ofIds([part.id]);
        return { item, radius: point?.radius ?? NaN };
      }
      case "vector": {
        const root = Math.sqrt(this.store.data("model").curv);
        return { item, radius: Math.asinh(root * Math.hypot(...part.embedding)) / root };
      }
      default:
        return { item, radius: 0 };
    }
  }

  /** @param {any} item @param {number} offset @param {AbortSignal} [signal] */
  async hits(item, offset, signal) {
    const { path, body } = hitsRequest(this.store.place, item, { k: this.page, offset }, this.rule);
    return this.api.json("POST", path, body, signal);
  }

  /**
   * A page of the points of the collection, most general first. @param {string | null} after
   * @param {AbortSignal} [signal]
   */
  async listed(after, signal) {
    const { place } = this.store;
    const asked = new URLSearchParams({ order: "radius", k: String(this.page) });
    if (after !== null) asked.set("after", after);
    const { collection, filter, ...plain } = where(place);
    for (const [name, value] of Object.entries(plain)) asked.set(name, String(value));
    if (filter) asked.set("filter", JSON.stringify(filter));
    return this.api.json("GET", collectionPath(collection, `/points?${asked}`), undefined, signal);
  }

  /** The keys of the points that a filter of fields leaves. @param {any} filter @param {AbortSignal} signal */
  async #keysOf(filter, signal) {
    const { collection, modality } = this.store.place;
    const keys = new Set();
    let after = null;
    do {
      const asked = new URLSearchParams({ order: "id", k: String(LISTED), filter: JSON.stringify(filter) });
      if (modality) asked.set("modality", modality);
      if (after !== null) asked.set("after", after);
      const page = await this.api.json("GET", collectionPath(collection, `/points?${asked}`), undefined, signal);
      for (const point of page.points) keys.add(point.key);
      after = page.next;
    } while (after !== null && keys.size < MOST_LISTED);
    return keys;
  }

  /** @param {any} item @param {any} target @param {AbortSignal} signal */
  async #focus(item, target, signal) {
    const { place } = this.store;
    const body = { of: item, target, ...(target ? {} : width(place, this.rule)) };
    return this.api.columns("POST", collectionPath(place.collection, "/focus"), body, signal);
  }

  /** @param {any} item @param {any} other @param {AbortSignal} signal */
  async #compare(item, other, signal) {
    const { place } = this.store;
    const scope = where(place);
    const rule = width(place, this.rule);
    const collection = place.collection;
    const ask = (/** @type {string} */ path, /** @type {any} */ body) => this.api.json("POST", path, body, signal);
    const [common, order, mean] = await Promise.all([
      ask("/hierarchy/common_ancestors", { of: [item, other], k: 24, ...scope, ...rule }),
      ask("/hierarchy/order", { first: item, second: other, collection, ...rule }),
      ask("/hierarchy/mean", { inputs: [item, other], collection }),
    ]);
    const middle = await ask("/retrieve", { query: { embedding: mean.embedding }, k: 12, ...scope });
    return { common, order, mean, middle };
  }

  /** @param {string} id */
  #inspect(id) {
    const { store } = this;
    store.need("point", [store.place.collection, id], async () => {
      const [point] = await this.points.ofIds([id]);
      if (!point) throw new ApiError(404, "unknown_point", `the collection has no point ${JSON.stringify(id)}`);
      return point;
    });
    if (store.data("model") && this.isSeen) this.#relate({ id }, id);
  }

  /** What is above and below an item. @param {any} item @param {string | null} id of a stored one */
  #relate(item, id) {
    const { store, api } = this;
    const { collection } = store.place;
    const rule = width(store.place, this.rule);
    store.need("relatives", [collection, item, rule], async (signal) => {
      const body = { of: item, collection, k: RELATED, order_by: "margin", ...rule };
      const [above, below] = await Promise.all([
        api.json("POST", "/hierarchy/ancestors", body, signal),
        api.json("POST", "/hierarchy/descendants", body, signal),
      ]);
      return { id, above, below };
    });
  }
}
