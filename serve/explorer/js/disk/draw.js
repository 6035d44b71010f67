/** Everything of the disk that is drawn by lines and fills: regions, contours, rings, captions, marks. */

import { FRAME } from "./captions.js";
import { GROUP } from "./layout.js";
import { circle, translate } from "./mobius.js";
import { above, below, contour, distance } from "./plane.js";
import { roundSteps } from "./scale.js";

/**
 * @typedef {import("./mobius.js").Complex} Complex
 * @typedef {{cx: number, cy: number, radius: number, width: number, height: number}} Frame the disk in CSS pixels
 * @typedef {import("./points.js").View} View
 * @typedef {{above: Complex[] | "all", below: Complex[] | "all", contours: {value: number, line: Complex[]}[]}} Figures
 * @typedef {{text: string, x: number, y: number}} Note
 */

/**
 * Place of a point of the disk on the screen.
 * @param {Complex} z
 * @param {View} view
 * @param {Frame} frame
 * @returns {[number, number]}
 */
export function onScreen(z, { a, zoom }, { cx, cy, radius }) {
  const [re, im] = translate(z, a);
  return [cx + radius * zoom * re, cy - radius * zoom * im];
}

/**
 * The regions of a focus and the contours of distance to it, in the disk; null without a focus.
 * @param {import("./layout.js").Layout} layout
 * @returns {Figures | null}
 */
export function figures(layout) {
  const { focus, root } = layout;
  if (!focus) return null;
  const { of, rule, target } = focus.header;
  const place = (/** @type {import("./plane.js").Polar} */ p) => layout.place(p.rho / root, p.theta);
  const outline = (/** @type {import("./plane.js").Region} */ set) => (set === "all" ? set : set.map(place));
  const rho = root * (target ? target.distance : of.radius);
  const far = root * Math.max(layout.map.header.max_radius, of.radius, 1e-6);
  const distances = sample(focus, root, rho);
  const contours = roundSteps(distances, 5).map((value) => ({ value, line: contour(rho, root * value).map(place) }));
  // With two foci the root is outside of the plane, and so are the cones, whose axes go through it.
  if (target || !rule) return { above: [], below: [], contours };
  return { above: outline(above(rule, rho, 8 * far)), below: outline(below(rule, rho, far)), contours };
}

/**
 * Draw what lies under the points.
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {View} view
 * @param {import("./layout.js").Layout | null} layout
 * @param {Figures | null} shapes
 * @param {import("./theme.js").Inks} inks
 * @param {number} strength of the regions, 0 to 1
 */
export function drawBackdrop(context, frame, view, layout, shapes, inks, strength) {
  context.fillStyle = inks.ground;
  context.fillRect(0, 0, frame.width, frame.height);
  const rim = () => {
    context.beginPath();
    context.arc(frame.cx, frame.cy, frame.radius * view.zoom, 0, 2 * Math.PI);
  };
  rim();
  context.fillStyle = inks.surface;
  context.fill();
  if (shapes) {
    context.save();
    rim();
    context.clip();
    context.lineWidth = 1.5;
    for (const [name, region] of /** @type {const} */ ([["above", shapes.above], ["below", shapes.below]])) {
      if (region !== "all" && !region.length) continue;
      if (region === "all") rim();
      else trace(context, region, view, frame);
      context.fillStyle = context.strokeStyle = inks[name];
      context.globalAlpha = 0.15 * strength;
      context.fill();
      context.globalAlpha = 0.8 * strength;
      context.stroke();
    }
    context.lineWidth = 1;
    context.strokeStyle = inks.muted;
    context.globalAlpha = 0.5 * strength;
    context.setLineDash([2, 4]);
    for (const { line } of shapes.contours) {
      trace(context, line, view, frame);
      context.stroke();
    }
    context.restore();
  }
  context.lineWidth = 1;
  context.strokeStyle = inks.muted;
  context.globalAlpha = 0.4;
  for (const ring of layout ? layout.rings : [0.25, 0.5, 0.75]) {
    const { centre, radius } = circle(layout ? layout.scale(ring) : ring, view.a);
    context.beginPath();
    const scale = frame.radius * view.zoom;
    context.arc(frame.cx + centre[0] * scale, frame.cy - centre[1] * scale, radius * scale, 0, 2 * Math.PI);
    context.stroke();
  }
  context.globalAlpha = 1;
  rim();
  context.stroke();
}

/**
 * The numbers of rings and contours, where there is room for them.
 * @param {import("./layout.js").Layout} layout
 * @param {Frame} frame
 * @param {View} view
 * @param {Figures | null} shapes
 * @returns {Note[]}
 */
export function ringNotes(layout, frame, view, shapes) {
  /** @type {Note[]} */
  const notes = [];
  const put = (/** @type {string} */ text, /** @type {[number, number][]} */ places) => {
    const free = places.find(([x, y]) =>
      x > 24 && y > 12 && x < frame.width - 60 && y < frame.height - 12 &&
      notes.every((other) => Math.abs(other.x - x) > 48 || Math.abs(other.y - y) > 16));
    if (free) notes.push({ text, x: free[0], y: free[1] });
  };
  const sides = [90, 60, 120, 45, 135, 0, 180, 270, 300, 240].map((degrees) => (degrees * Math.PI) / 180);
  for (const ring of layout.rings) {
    const { centre, radius } = circle(layout.scale(ring), view.a);
    const scale = frame.radius * view.zoom;
    const at = (/** @type {number} */ t) => /** @type {[number, number]} */ ([
      frame.cx + scale * (centre[0] + radius * Math.cos(t)), frame.cy - scale * (centre[1] + radius * Math.sin(t))]);
    put(layout.twoFoci ? `d ${ring}` : `r ${ring}`, sides.map(at));
  }
  for (const { value, line } of shapes?.contours ?? []) {
    const along = [0.28, 0.24, 0.33, 0.72, 0.38, 0.5].map((t) => line[Math.round(t * (line.length - 1))]);
    put(`${layout.twoFoci ? "d\u2082" : "d"} ${value}`, along.map((z) => onScreen(z, view, frame)));
  }
  return notes;
}

/**
 * Draw pictures, labels and notes.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./layout.js").Layout} layout
 * @param {{labels: import("./captions.js").Label[], pictures: import("./captions.js").Picture[], notes: Note[]}} what
 * @param {import("./theme.js").Inks} inks
 */
export function drawCaptions(context, layout, { labels, pictures, notes }, inks) {
  const { foci } = layout;
  for (const { row, bitmap, x, y, width, height } of pictures) {
    const group = layout.group[row];
    const member = group === GROUP.above ? "above" : group === GROUP.below ? "below" : "image";
    context.fillStyle = inks[foci.includes(row) ? "mark" : member];
    context.beginPath();
    context.roundRect(x + FRAME / 2, y + FRAME / 2, width - FRAME, height - FRAME, FRAME);
    context.fill();
    context.fillStyle = inks.surface;
    context.fillRect(x + FRAME, y + FRAME, width - 2 * FRAME, height - 2 * FRAME);
    context.drawImage(bitmap, x + FRAME, y + FRAME, width - 2 * FRAME, height - 2 * FRAME);
  }
  context.lineJoin = "round";
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.strokeStyle = inks.surface;
  context.lineWidth = 3;
  for (const { row, text, x, y, height } of labels) {
    const near = layout.group[row] === GROUP.nearAbove || layout.group[row] === GROUP.nearBelow;
    context.fillStyle = near ? inks.muted : inks.ink;
    context.strokeText(text, x + 2, y + height / 2);
    context.fillText(text, x + 2, y + height / 2);
  }
  context.textAlign = "center";
  context.fillStyle = inks.muted;
  for (const { text, x, y } of notes) {
    context.strokeText(text, x, y);
    context.fillText(text, x, y);
  }
}

/**
 * A ring round a point.
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {number} radius
 * @param {string} colour
 * @param {string} under
 */
export function drawRing(context, x, y, radius, colour, under) {
  for (const [width, ink] of /** @type {const} */ ([[5, under], [2.5, colour]])) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.lineWidth = width;
    context.strokeStyle = ink;
    context.stroke();
  }
}

/**
 * A five-pointed star.
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {string} colour
 * @param {string} under
 */
export function drawStar(context, x, y, colour, under) {
  context.beginPath();
  for (let i = 0; i < 10; i++) {
    const radius = i % 2 ? 4.5 : 10.5;
    context.lineTo(x + radius * Math.sin((i * Math.PI) / 5), y - radius * Math.cos((i * Math.PI) / 5));
  }
  context.closePath();
  context.lineWidth = 3;
  context.strokeStyle = under;
  context.stroke();
  context.fillStyle = colour;
  context.fill();
}

/**
 * A line through places of the disk, sampled so that it bends with the view.
 * @param {CanvasRenderingContext2D} context
 * @param {Complex[]} points
 * @param {View} view
 * @param {Frame} frame
 */
export function drawWay(context, points, view, frame) {
  context.beginPath();
  points.forEach((point, i) => {
    const [fromX, fromY] = i ? points[i - 1] : point;
    for (let k = i ? 1 : 16; k <= 16; k++) {
      const t = k / 16;
      context.lineTo(...onScreen([fromX + t * (point[0] - fromX), fromY + t * (point[1] - fromY)], view, frame));
    }
  });
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Complex[]} outline
 * @param {View} view
 * @param {Frame} frame
 */
function trace(context, outline, view, frame) {
  context.beginPath();
  for (const z of outline) context.lineTo(...onScreen(z, view, frame));
  context.closePath();
}

/**
 * The distance to x within which 19 of 20 points lie, from a sample of them.
 * @param {import("./layout.js").FocusData} focus
 * @param {number} root
 * @param {number} rho
 */
function sample(focus, root, rho) {
  const step = Math.max(1, Math.ceil(focus.key.length / 1000));
  const found = [];
  for (let i = 0; i < focus.key.length; i += step) {
    found.push(distance(rho, root * focus.radius[i], focus.angle[i]) / root);
  }
  found.sort((a, b) => a - b);
  return found[Math.floor(0.95 * (found.length - 1))] ?? 0;
}
