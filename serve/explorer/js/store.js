/** The state of the page: the place of the address bar, and what was loaded for it. */

import { fromHash, toHash } from "./state.js";

/**
 * @typedef {import("./state.js").Place} Place
 * @typedef {{key: string, status: "loading" | "done" | "failed", data: any, error: any, abort: AbortController}} Load
 */

export class Store {
  /** @param {() => void} sync starts what the place needs @param {() => void} draw */
  constructor(sync, draw) {
    this.sync = sync;
    this.draw = draw;
    /** @type {Place} */
    this.place = fromHash(location.hash);
    /** @type {Record<string, Load>} */
    this.loads = {};
    this.asked = false;
    addEventListener("hashchange", () => {
      if (location.hash === toHash(this.place)) return;
      this.place = fromHash(location.hash);
      this.changed();
    });
  }

  /**
   * Go to another place.
   * @param {Partial<Place>} patch @param {{replace?: boolean}} options replace: no step of the history
   */
  go(patch, { replace = false } = {}) {
    this.place = { ...this.place, ...patch };
    const hash = toHash(this.place);
    if (hash !== location.hash) history[replace ? "replaceState" : "pushState"](null, "", hash);
    this.changed();
  }

  /** Load what has changed, and draw. */
  changed() {
    this.sync();
    this.redraw();
  }

  /** Draw once in this turn of the loop, however often it is asked for. */
  redraw() {
    if (this.asked) return;
    this.asked = true;
    queueMicrotask(() => {
      this.asked = false;
      this.draw();
    });
  }

  /**
   * Have something loaded, unless it is already, or is under way, for the same key; what is out of date is stopped.
   * @param {string} name @param {any} key what it depends on @param {(signal: AbortSignal) => Promise<any>} run
   */
  need(name, key, run) {
    const written = JSON.stringify(key);
    const before = this.loads[name];
    if (before?.key === written) return;
    before?.abort.abort();
    const abort = new AbortController();
    /** @type {Load} */
    const load = { key: written, status: "loading", data: before?.data ?? null, error: null, abort };
    this.loads[name] = load;
    run(abort.signal).then(
      (data) => this.#settle(name, load, { status: "done", data, error: null }),
      (error) => this.#settle(name, load, { status: "failed", data: null, error }),
    );
  }

  /** @param {string} name @param {Load} load @param {Partial<Load>} outcome */
  #settle(name, load, outcome) {
    if (this.loads[name] !== load) return;
    Object.assign(load, outcome);
    this.changed();
  }

  /** Let something be loaded anew. @param {string} name */
  forget(name) {
    this.loads[name]?.abort.abort();
    delete this.loads[name];
  }

  /** @param {string} name */
  data(name) {
    const load = this.loads[name];
    return load?.status === "failed" ? null : (load?.data ?? null);
  }
}
