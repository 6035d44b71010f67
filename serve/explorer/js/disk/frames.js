/** When frames are drawn: coarse ones while something moves, a full one when it has come to rest. */

const SETTLING = 140; // milliseconds without movement

/** At most one frame for each refresh of the screen. */
export class Frames {
  /** @param {(moving: boolean) => void} draw */
  constructor(draw) {
    this.draw = draw;
    this.requested = 0;
    this.moving = false;
    this.settling = 0;
  }

  /** @param {boolean} moving */
  request(moving) {
    this.moving ||= moving;
    this.requested ||= requestAnimationFrame(() => {
      const coarse = this.moving;
      this.requested = 0;
      this.moving = false;
      this.draw(coarse);
      clearTimeout(this.settling);
      if (coarse) this.settling = window.setTimeout(() => this.request(false), SETTLING);
    });
  }

  close() {
    cancelAnimationFrame(this.requested);
    clearTimeout(this.settling);
  }
}
