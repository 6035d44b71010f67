/** The page as one object: what the views read, and how they are drawn. */

import { render } from "../vendor/lit-html.js";
import { Actions } from "./actions.js";
import { Api } from "./api.js";
import { DiskBridge } from "./disk_bridge.js";
import { distance } from "./geometry.js";
import { Inputs } from "./inputs.js";
import { Points } from "./points.js";
import { Requests } from "./requests.js";
import { Store } from "./store.js";
import { counted, label, short, spoken } from "./text.js";
import { openDialogs } from "./views/dialogs.js";
import { thingName } from "./views/query.js";
import { shell } from "./views/shell.js";

/** @typedef {import("./api.js").ApiError} ApiError @typedef {import("./state.js").Thing} Thing */

/** State that no link shares. */
function startUi() {
  return {
    said: "",
    toast: "",
    dialog: "",
    keyError: "",
    explained: "",
    classesError: "",
    lines: "",
    classes: "",
    template: "a photo of a {}",
    least: 0.5,
    hovered: /** @type {string | null} */ (null),
    dragged: /** @type {{min?: number, max?: number} | null} */ (null),
    width: /** @type {number | null} */ (null),
    isDropping: false,
    isOffline: false,
    isMoreComing: false,
    isClassifying: false,
    isTwinOpen: false,
    isWide: true,
    areFiltersOpen: false,
    isChoosing: false,
    queryError: /** @type {ApiError | null} */ (null),
    classifyError: /** @type {ApiError | null} */ (null),
    writeError: /** @type {ApiError | null} */ (null),
    waiting: /** @type {import("./api.js").Waiting | null} */ (null),
    classified: /** @type {{edges: [string, string][] | null, scores: Record<string, number>, request: any} | null} */ (
      null
    ),
    set: /** @type {{keys: number[], shown: number[], min: number, max: number} | null} */ (null),
    twin: /** @type {number[]} */ ([]),
    wholeFields: /** @type {Set<string>} */ (new Set()),
    branches: /** @type {Map<string, any>} */ (new Map()),
    collections: /** @type {Map<string, any>} */ (new Map()),
  };
}

export class App {
  /** @param {HTMLElement} host */
  constructor(host) {
    this.host = host;
    this.ui = startUi();
    this.api = new Api(new URL(".", document.baseURI).href);
    this.store = new Store(
      () => this.#sync(),
      () => this.#draw(),
    );
    this.requests = new Requests(this.api, this.store);
    this.act = new Actions(this);
    this.inputs = new Inputs(this);
    /** @type {Map<string, {inputs: any[], value: any}>} */
    this.memos = new Map();
    /** The focus whose picture has been drawn, after which the rest of the page is made from it. @type {any} */
    this.drawnFocus = null;
    this.diskHost = document.createElement("div");
    this.diskHost.className = "disk";
    this.points = this.#newPoints();
    this.bridge = new DiskBridge(this);
    this.#watch();
    this.store.changed();
  }

  #newPoints() {
    this.points?.close();
    const points = new Points(this.api, this.store.place.collection, () => this.redraw());
    this.points = points;
    this.requests.points = points;
    return points;
  }

  #watch() {
    const { api, ui } = this;
    api.askForKey = () => this.act.askForKey();
    api.onOffline = (isOffline) => {
      if (ui.isOffline === isOffline) return;
      ui.isOffline = isOffline;
      this.redraw();
    };
    /** @type {any} */
    let clock = null;
    api.onWaiting = (waiting) => {
      clearInterval(clock);
      ui.waiting = waiting;
      if (waiting) clock = setInterval(() => this.redraw(), 500);
      this.redraw();
    };
    const wide = matchMedia("(min-width: 900px)");
    ui.isWide = wide.matches;
    wide.addEventListener("change", () => {
      ui.isWide = wide.matches;
      this.redraw();
    });
  }

  redraw() {
    this.store.redraw();
  }

  #sync() {
    if (this.points.collection !== this.store.place.collection) {
      this.#newPoints();
      Object.assign(this.ui, { twin: [], set: null, branches: new Map(), classified: null });
      for (const name of ["map", "focus", "fields", "starters"]) this.store.forget(name);
    }
    this.requests.needs();
    this.act.synced();
  }

  #draw() {
    this.ui.said = this.#announcement();
    document.title = this.#title();
    render(shell(this), this.host);
    openDialogs(this);
    this.bridge.update();
    const focus = this.store.data("focus");
    if (focus !== this.drawnFocus) {
      requestAnimationFrame(() =>
        setTimeout(() => {
          this.drawnFocus = focus;
          this.redraw();
        }),
      );
    }
  }

  #title() {
    const { parts, view } = this.store.place;
    const names = parts.map((part) => thingName(this, part)).join(" + ");
    return `${names ? `${short(names, 60)} – ${view}` : view} – hypclip explorer`;
  }

  /** What a screen reader is told after a load. @returns {string} */
  #announcement() {
    const { store } = this;
    const loads = ["hits", "listing", "focus", "path", "compare"].map((name) => store.loads[name]);
    const [hits, listing, focus, path, compare] = loads.map((load) => (load?.status === "done" ? load.data : null));
    switch (store.place.view) {
      case "grid":
        if (store.place.parts.length) return hits ? counted(hits.total ?? hits.hits.length, "point") + " found" : "";
        return listing ? counted(listing.total, "point") : "";
      case "focus": {
        const counts = focus?.header.counts;
        return counts ? `${counted(counts.ancestors, "ancestor")}, ${counted(counts.descendants, "descendant")}` : "";
      }
      case "path":
        return path ? counted(path.path.length, "stop") : "";
      case "compare":
        return compare ? `${counted(compare.common.total, "ancestor")} in common` : "";
      default:
        return "";
    }
  }

  /**
   * A value that is made anew only when an input of it is another.
   * @template T @param {string} name @param {any[]} inputs @param {() => T} make @returns {T}
   */
  memo(name, inputs, make) {
    const kept = this.memos.get(name);
    if (kept && kept.inputs.length === inputs.length && kept.inputs.every((each, i) => each === inputs[i]))
      return kept.value;
    const value = make();
    this.memos.set(name, { inputs, value });
    return value;
  }

  /** The collection that is shown, as the server describes it. */
  collection() {
    return this.store.data("collections")?.find((/** @type {any} */ each) => each.name === this.store.place.collection);
  }

  /** @returns {number} 0 when unknown */
  maxRadius() {
    return this.store.data("map")?.header.max_radius ?? 0;
  }

  /** Whether images were asked for and none of them had a thumbnail. @param {any[]} hits */
  lacksThumbnails(hits) {
    const images = hits.filter((hit) => hit.modality === "image");
    return images.length > 0 && images.every((hit) => this.points.thumbnails.get(hit.id) === null);
  }

  /**
   * Two ends under the rule that holds now, for `why`.
   * @param {import("./views/why.js").End} general @param {import("./views/why.js").End} specific @param {number} far
   */
  ruleCase(general, specific, far) {
    const model = this.store.data("model");
    if (!model || !Number.isFinite(general.radius) || !Number.isFinite(specific.radius)) return null;
    const { width } = this.store.place;
    const isPlane = model.entailment.form === "plane";
    const rule = isPlane && width !== null ? { ...model.entailment, threshold: width } : model.entailment;
    return { general, specific, distance: far, curv: model.curv, rule, scale: isPlane ? 1 : (width ?? 1) };
  }

  /** The relation of a point to the query, if its distance is known. @param {any} point */
  relationToQuery(point) {
    const { place } = this.store;
    const query = this.store.data("item");
    if (
      !query ||
      !place.parts.length ||
      (place.parts.length === 1 && /** @type {any} */ (place.parts[0]).id === point.id)
    )
      return null;
    const far = this.#distanceToQuery(point, query.radius);
    if (far === null) return null;
    const name = place.parts.map((part) => thingName(this, part)).join(" + ");
    const ends = [
      { name, spoken: `“${short(name, 40)}”`, radius: query.radius },
      { name: label(point), spoken: spoken(point), radius: point.radius },
    ];
    const [general, specific] = query.radius <= point.radius ? ends : [ends[1], ends[0]];
    return this.ruleCase(general, specific, far);
  }

  /** @param {any} point @param {number} radius of the query @returns {number | null} */
  #distanceToQuery(point, radius) {
    const hit =
      this.store.place.view === "grid" &&
      this.store.data("hits")?.hits.find((/** @type {any} */ each) => each.id === point.id);
    if (hit) return hit.distance;
    const focus = this.store.data("focus");
    if (!focus || point.key === undefined) return null;
    const row = rowOf(focus.key, point.key);
    if (row < 0) return null;
    if (focus.header.target) return focus.radius[row];
    return distance(radius, focus.radius[row], focus.angle[row], focus.header.curv);
  }
}

/** The row of a key in ascending keys, -1 if it is not there. @param {Uint32Array} keys @param {number} key */
export function rowOf(keys, key) {
  let [low, high] = [0, keys.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle] < key) low = middle + 1;
    else high = middle;
  }
  return keys[low] === key ? low : -1;
}
