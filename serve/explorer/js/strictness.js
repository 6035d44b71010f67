/** How the number of ancestors of the focus grows with the width of the rule, from the margins of its focus. */

import { criticalScales } from "./geometry.js";

const MOST_STEPS = 200;
const LEAST_STEPS = 20;

/**
 * The scale of the slider: step n lets in the n nearest to being ancestors, up to three times those that the model's
 * rule lets in; null without a focus, and undefined for a moment after one, whose picture comes first.
 * @param {import("./app.js").App} app
 */
export function strictness(app) {
  const focus = app.store.data("focus");
  const model = app.store.data("model");
  if (!focus || !model || focus.header.target) return null;
  const isPlane = model.entailment.form === "plane";
  const own = isPlane ? model.entailment.threshold : 1;
  if (app.drawnFocus !== focus) return undefined;
  return app.memo("strictness", [focus, model], () => {
    const scale = isPlane ? 1 : focus.header.rule.eta / model.entailment.eta;
    const scales = criticalScales(focus, focus.header.curv, scale);
    const lets = (/** @type {number} */ width) => countOf(scales, width, isPlane);
    const steps = Math.min(scales.length, MOST_STEPS, Math.max(LEAST_STEPS, 3 * lets(own)));
    const widthAt = (/** @type {number} */ step) => {
      if (step === lets(own)) return own;
      const [inside, outside] = [scales[step - 1], scales[step]];
      if (inside === undefined) return isPlane ? (outside ?? own) + 0.05 : Math.max((outside ?? own) * 0.9, 1e-3);
      return outside === undefined ? inside : (inside + outside) / 2;
    };
    return { steps, widthAt, countAt: lets, stepOf: (/** @type {number} */ width) => Math.min(steps, lets(width)) };
  });
}

/** @param {Float64Array} scales @param {number} width @param {boolean} isPlane */
function countOf(scales, width, isPlane) {
  let [low, high] = [0, scales.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const isIn = isPlane ? scales[middle] >= width : scales[middle] <= width;
    if (isIn) low = middle + 1;
    else high = middle;
  }
  return low;
}
