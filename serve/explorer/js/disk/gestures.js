/** Pointer, wheel and touch on the disk, as what they mean: move, zoom, hover, click, open, lasso. */

const SLACK = 4; // CSS pixels a pointer may move in a click
const TWICE = 380; // milliseconds between the clicks of a double click

/**
 * @typedef {[number, number]} Place CSS pixels from the corner of the canvas
 * @typedef {object} Meanings
 * @property {() => boolean} lassoing whether the lasso tool is on
 * @property {(from: Place) => void} grab
 * @property {(to: Place) => void} drag
 * @property {(factor: number) => void} zoom
 * @property {(at: Place | null) => void} hover
 * @property {(at: Place) => void} click
 * @property {() => void} open what was clicked just before
 * @property {(outline: Place[], ended: boolean) => void} lasso an empty outline where it was given up
 */

/** Listens until `close`. */
export class Gestures {
  /**
   * @param {HTMLElement} element
   * @param {Meanings} meanings
   */
  constructor(element, meanings) {
    this.element = element;
    this.meanings = meanings;
    /** @type {Map<number, Place>} */
    this.pointers = new Map();
    /** @type {Place | null} */
    this.start = null;
    this.moved = false;
    /** @type {Place[] | null} */
    this.outline = null;
    this.last = { time: -Infinity, place: /** @type {Place} */ ([0, 0]) };
    this.ending = new AbortController();
    const options = { signal: this.ending.signal };
    const on = (/** @type {string} */ name, /** @type {(event: any) => void} */ act) =>
      element.addEventListener(name, act, options);
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event, true));
    on("pointercancel", (event) => this.#up(event, false));
    on("pointerleave", () => meanings.hover(null));
    element.addEventListener("wheel", (event) => this.#wheel(event), { ...options, passive: false });
  }

  close() {
    this.ending.abort();
  }

  /** Give a lasso up that is being drawn. */
  cancel() {
    if (!this.outline) return false;
    this.outline = null;
    this.meanings.lasso([], true);
    return true;
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button > 0) return;
    const at = this.#place(event);
    this.pointers.set(event.pointerId, at);
    this.element.setPointerCapture(event.pointerId);
    if (this.pointers.size === 2) {
      this.cancel();
      this.moved = true;
      this.meanings.grab(this.#middle());
    } else if (this.pointers.size === 1) {
      this.start = at;
      this.moved = false;
      this.outline = event.shiftKey || this.meanings.lassoing() ? [at] : null;
      this.meanings.hover(null);
    }
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const at = this.#place(event);
    if (!this.pointers.has(event.pointerId)) {
      if (event.pointerType !== "touch") this.meanings.hover(at);
      return;
    }
    if (this.pointers.size === 2) {
      const before = this.#spread();
      this.pointers.set(event.pointerId, at);
      const after = this.#spread();
      if (before > 0 && after > 0) this.meanings.zoom(after / before);
      this.meanings.drag(this.#middle());
      return;
    }
    this.pointers.set(event.pointerId, at);
    if (!this.start) return;
    if (!this.moved) {
      if (far(at, this.start) <= SLACK) return;
      this.moved = true;
      if (!this.outline) this.meanings.grab(this.start);
    }
    if (this.outline) {
      if (far(at, this.outline[this.outline.length - 1]) >= 3) this.outline.push(at);
      this.meanings.lasso(this.outline, false);
    } else this.meanings.drag(at);
  }

  /**
   * @param {PointerEvent} event
   * @param {boolean} meant
   */
  #up(event, meant) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.pointers.size) { // one finger of two is left: it goes on dragging
      this.start = [...this.pointers.values()][0];
      this.meanings.grab(this.start);
      return;
    }
    const { outline, moved, start } = this;
    this.start = null;
    this.outline = null;
    if (moved && outline) this.meanings.lasso(meant && outline.length > 2 ? outline : [], true);
    else if (meant && start && !moved) this.#click(start, event.timeStamp);
  }

  /**
   * @param {Place} at
   * @param {number} time
   */
  #click(at, time) {
    const twice = time - this.last.time < TWICE && far(at, this.last.place) <= 2 * SLACK;
    this.last = { time: twice ? -Infinity : time, place: at };
    if (twice) this.meanings.open();
    else this.meanings.click(at);
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    this.meanings.zoom(Math.exp(Math.max(-120, Math.min(120, -pixels)) * (event.ctrlKey ? 0.01 : 0.002)));
  }

  /**
   * @param {MouseEvent} event
   * @returns {Place}
   */
  #place(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** @returns {Place} */
  #middle() {
    const [a, b] = [...this.pointers.values()];
    return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  }

  #spread() {
    const [a, b] = [...this.pointers.values()];
    return far(a, b);
  }
}

/**
 * @param {Place} a
 * @param {Place} b
 */
function far(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}
