/**
 * When frames are drawn: rough ones at once, coarse ones while something moves, a smooth one when all has come to rest,
 * and of what lies on top alone when nothing else has changed.
 */

const SETTLING = 140; // milliseconds without a change

/** At most one frame for each refresh of the screen. */
export class Frames {
  /**
   * @param {(how: {moving: boolean, rough: boolean}) => void} draw
   * @param {() => void} drawTop
   */
  constructor(draw, drawTop) {
    this.draw = draw;
    this.drawTop = drawTop;
    this.requested = 0;
    this.moving = false;
    this.whole = false;
    this.settling = 0;
  }

  /** @param {boolean} moving */
  request(moving) {
    this.moving ||= moving;
    this.whole = true;
    this.requestTop();
  }

  /** Have what lies on top drawn, if nothing asks for more. */
  requestTop() {
    this.requested ||= requestAnimationFrame(() => {
      const { whole, moving } = this;
      this.requested = 0;
      this.whole = false;
      this.moving = false;
      if (!whole) return this.drawTop();
      this.draw({ moving, rough: true });
      clearTimeout(this.settling);
      this.settling = window.setTimeout(() => this.draw({ moving: false, rough: false }), SETTLING);
    });
  }

  close() {
    cancelAnimationFrame(this.requested);
    clearTimeout(this.settling);
  }
}
