/** Marks: ways and the root, which lie under the captions; foci, set, selection, cursor and lasso over them. */

import { drawRing, drawStar, drawWay, onScreen } from "./draw.js";

const RINGED = 500; // members of a set that get a ring each

/**
 * Draw the root, the axis of the focus view, and the way to the root.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./picture.js").Picture} picture
 * @param {import("./picture.js").Scene} scene
 */
export function drawWays(context, picture, scene) {
  const { layout, view, theme } = scene;
  if (!layout) return;
  const header = layout.focus?.header;
  const centre = header?.target ? header.root : { radius: 0, angle: 0 };
  drawRoot(context, onScreen(layout.place(centre.radius, centre.angle), view, picture.frame), theme.inks);
  if (header) {
    const end = header.target ? header.target.distance : header.of.radius;
    context.globalAlpha = scene.strength;
    context.strokeStyle = theme.inks.mark;
    context.lineWidth = 1.5;
    drawWay(context, [layout.place(0, 0), layout.place(end, 0)], view, picture.frame);
    context.globalAlpha = 1;
  }
  drawPath(context, picture, scene);
}

/**
 * Draw the foci or the query, and what is marked.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./picture.js").Picture} picture
 * @param {import("./picture.js").Scene} scene
 */
export function drawMarks(context, picture, scene) {
  const { layout, marks, cursor, lasso, theme } = scene;
  if (!layout) return;
  const { inks } = theme;
  if (marks.set && marks.set.size <= RINGED) {
    for (const key of marks.set) {
      const row = layout.row(key);
      if (row >= 0) drawRing(context, ...picture.at(row), 5, inks.mark, inks.surface);
    }
  }
  if (layout.focus) drawFoci(context, picture, scene);
  else if (marks.query) {
    drawStar(context, ...picture.placeOf(scene, marks.query.radius, marks.query.angle), inks.mark, inks.surface);
  }
  const [selected, hovered] = [layout.row(marks.selected), layout.row(marks.hovered)];
  if (selected >= 0 && !layout.foci.includes(selected)) {
    drawRing(context, ...picture.at(selected), 8, inks.mark, inks.surface);
  }
  if (hovered >= 0) drawRing(context, ...picture.at(hovered), 7, inks.ink, inks.surface);
  if (cursor >= 0) drawRing(context, ...picture.at(cursor), 7, inks.ink, inks.surface);
  if (lasso.length > 1) drawLasso(context, lasso, inks);
}

/**
 * Whether two sets of keys are the same.
 * @param {Set<number> | null} one
 * @param {Set<number> | null} other
 */
export function sameSet(one, other) {
  if (!one || !other) return one === other;
  return one.size === other.size && [...one].every((key) => other.has(key));
}

/**
 * The focus as a star on the axis, where it is not drawn as its picture, and the target of two foci.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./picture.js").Picture} picture
 * @param {import("./picture.js").Scene} scene
 */
function drawFoci(context, picture, scene) {
  const { layout, view, theme } = scene;
  const header = layout?.focus?.header;
  if (!layout || !header) return;
  const { inks } = theme;
  const other = header.target ? header.target.distance : header.of.radius;
  const ends = [layout.place(0, 0), layout.place(other, 0)];
  // On its way from the map the focus is where its point is; one that is no point of the collection is on the axis.
  const moving = scene.strength < 1 && layout.self >= 0;
  const at = moving ? picture.at(layout.self) : onScreen(header.target ? ends[0] : ends[1], view, picture.frame);
  const pictured = picture.captioned.pictures.map(({ row }) => row);
  if (!pictured.includes(layout.self)) drawStar(context, ...at, inks.mark, inks.surface);
  if (header.target && !pictured.includes(layout.target)) {
    drawRing(context, ...onScreen(ends[1], view, picture.frame), 7, inks.mark, inks.surface);
  }
}

/**
 * The way to the root: in the map from stop to stop; in the focus view along the axis, each stop led to along its ring.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./picture.js").Picture} picture
 * @param {import("./picture.js").Scene} scene
 */
function drawPath(context, picture, scene) {
  const { layout, view, marks, theme } = scene;
  if (!layout) return;
  const rows = marks.path.map((key) => layout.row(key)).filter((row) => row >= 0 && row !== layout.self);
  if (!rows.length) return;
  const { radius, angle } = layout.drawn;
  const { inks } = theme;
  const onAxis = layout.focus !== null && !layout.twoFoci;
  context.strokeStyle = inks.mark;
  context.lineWidth = 1.5;
  if (onAxis) {
    context.setLineDash([3, 3]);
    for (const row of rows) {
      const turn = Math.atan2(Math.sin(angle[row] - layout.axis), Math.cos(angle[row] - layout.axis));
      const steps = Array.from({ length: 25 }, (_, i) => layout.axis + (turn * i) / 24);
      drawWay(context, steps.map((a) => [radius[row] * Math.cos(a), radius[row] * Math.sin(a)]), view, picture.frame);
    }
    context.setLineDash([]);
  } else drawWay(context, rows.map((row) => [layout.x[row], layout.y[row]]), view, picture.frame);
  /** @type {[number, number]} */
  let last = [-99, -99];
  rows.forEach((row, i) => {
    const [x, y] = picture.at(row);
    drawRing(context, x, y, 5, inks.mark, inks.surface);
    if (!onAxis) return;
    const [re, im] = [radius[row] * Math.cos(layout.axis), radius[row] * Math.sin(layout.axis)];
    const stop = onScreen([re, im], view, picture.frame);
    if (Math.hypot(stop[0] - last[0], stop[1] - last[1]) < 17) return; // it would cover the last number
    drawNumber(context, stop, i + 1, inks);
    last = stop;
  });
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number]} at
 * @param {number} number
 * @param {import("./theme.js").Inks} inks
 */
function drawNumber(context, [x, y], number, inks) {
  context.beginPath();
  context.arc(x, y, 8, 0, 2 * Math.PI);
  context.fillStyle = inks.mark;
  context.fill();
  context.save();
  context.font = `bold 10px ${inks.font}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = inks.surface;
  context.fillText(String(number), x, y + 0.5);
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number]} at
 * @param {import("./theme.js").Inks} inks
 */
function drawRoot(context, [x, y], inks) {
  context.strokeStyle = inks.muted;
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [dx, dy] of [[5, 0], [0, 5]]) {
    context.moveTo(x - dx, y - dy);
    context.lineTo(x + dx, y + dy);
  }
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number][]} outline
 * @param {import("./theme.js").Inks} inks
 */
function drawLasso(context, outline, inks) {
  context.beginPath();
  for (const place of outline) context.lineTo(...place);
  context.fillStyle = inks.mark;
  context.globalAlpha = 0.12;
  context.fill();
  context.globalAlpha = 1;
  context.strokeStyle = inks.mark;
  context.lineWidth = 2;
  context.stroke();
  context.beginPath(); // how it will close
  context.moveTo(...outline[outline.length - 1]);
  context.lineTo(...outline[0]);
  context.setLineDash([4, 4]);
  context.stroke();
  context.setLineDash([]);
}
