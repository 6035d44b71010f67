/** Why one point entails another, or not: a sentence, and the triangle of the root and the two points. */

import { html, nothing } from "../../vendor/lit-html.js";
import { relation } from "../geometry.js";
import { degrees, fixed, short } from "../text.js";

/**
 * @typedef {import("../geometry.js").Rule} Rule
 * @typedef {{name: string, spoken: string, radius: number}} End
 * @typedef {{general: End, specific: End, distance: number, curv: number, rule: Rule, scale: number}} Case
 */

/** @param {Case} asked */
export function why(asked) {
  const { general, specific, distance, curv, rule, scale } = asked;
  if (general.radius < 1e-6) return html`<p class="sentence">The root entails everything.</p>`;
  if (distance < 1e-5) return html`<p class="sentence">Both are at the same place.</p>`;
  const found = relation(general.radius, specific.radius, distance, curv, rule, scale);
  return html`<figure class="why">
    <p class="sentence">${sentence(asked, found)}</p>
    ${triangle(asked, found)}
    <figcaption>
      <dl class="facts">
        <div>
          <dt>angle</dt>
          <dd>${degrees(found.angle)}</dd>
        </div>
        <div>
          <dt>${rule.form === "plane" ? "half-space" : "half aperture"}</dt>
          <dd>${degrees(found.bound)}</dd>
        </div>
        ${
          rule.form === "plane"
            ? html`<div>
                <dt>height</dt>
                <dd>${fixed(found.height, 3)}</dd>
              </div>`
            : nothing
        }
        <div>
          <dt>margin</dt>
          <dd class=${found.inside ? "good" : "bad"}>${fixed(found.margin, 3)}</dd>
        </div>
        <div>
          <dt>distance</dt>
          <dd>${fixed(distance, 3)}</dd>
        </div>
      </dl>
      <p class="hint">The angle at the general point is the true one.</p>
    </figcaption>
  </figure>`;
}

/** @param {Case} asked @param {ReturnType<typeof relation>} found */
function sentence({ general, specific, rule }, found) {
  const [one, other] = [general.spoken, specific.spoken];
  if (rule.form === "plane") {
    const side = `${fixed(Math.abs(found.height))} ${found.height >= 0 ? "beyond" : "before"} the plane through ${one}`;
    const verdict = found.inside
      ? "inside its half-space, so it is an instance"
      : `not the ${fixed(rule.threshold)} beyond it that an instance does`;
    return capital(`${other} lies ${side}: ${verdict}.`);
  }
  const radius = fixed(general.radius);
  const width = `${one} is at radius ${radius}, so its cone has a half aperture of ${degrees(found.bound)}`;
  const isHalfSpace = found.bound >= Math.PI / 2 - 1e-3;
  const place = `${other} lies ${degrees(found.angle)} off its axis, ${found.inside ? "inside" : "outside"}`;
  return capital(`${width}${isHalfSpace ? ": a half-space, which says little" : ""}; ${place}.`);
}

/** @param {string} text */
const capital = (text) => text[0].toUpperCase() + text.slice(1);

const [W, H, AXIS, REACH, ARC] = [300, 130, 65, 150, 26];

/** @param {Case} asked @param {ReturnType<typeof relation>} found */
function triangle({ general, specific, distance }, found) {
  const scale = 260 / Math.max(general.radius + distance * Math.max(Math.cos(found.angle), 0), general.radius, 1e-6);
  const rootX = 16;
  const gx = rootX + Math.max(general.radius * scale, 40);
  const length = Math.min(Math.max(distance * scale, 36), 120);
  const sx = Math.min(Math.max(gx + length * Math.cos(found.angle), 10), W - 12);
  const sy = Math.max(AXIS - length * Math.sin(found.angle), 20);
  const end = (/** @type {number} */ angle, /** @type {number} */ far) =>
    `${gx + far * Math.cos(angle)} ${AXIS - far * Math.sin(angle)}`;
  const isWide = found.bound > Math.PI / 2 ? 1 : 0;
  const cone = `M${end(found.bound, REACH)} L${gx} ${AXIS} L${end(-found.bound, REACH)}`;
  const [one, other] = [short(general.name, 30), short(specific.name, 30)];
  const name = `Triangle of the root, ${one} and ${other}: ${degrees(found.angle)} at the second`;
  return html`<svg class="triangle" viewBox="0 0 ${W} ${H}" role="img" aria-label=${name}>
    <path class="cone" d="${cone} A${REACH} ${REACH} 0 ${isWide} 0 ${end(found.bound, REACH)}Z"></path>
    <path class="axis" d="M${rootX} ${AXIS} H${W}"></path>
    <path class="side" d="M${rootX} ${AXIS} L${sx} ${sy}"></path>
    <path class="side strong" d="M${gx} ${AXIS} L${sx} ${sy}"></path>
    <path class="arc" d="M${gx + ARC} ${AXIS} A${ARC} ${ARC} 0 0 0 ${end(found.angle, ARC)}"></path>
    <circle class="root" cx=${rootX} cy=${AXIS} r="4"></circle>
    <circle class="general" cx=${gx} cy=${AXIS} r="5"></circle>
    <circle class="specific" cx=${sx} cy=${sy} r="5"></circle>
    <text x=${rootX - 8} y=${AXIS - 10}>root</text>
    <text x=${Math.min(gx, 210)} y=${AXIS + 20} text-anchor="middle">${short(general.name, 16)}</text>
    <text x=${Math.min(Math.max(sx, 50), W - 60)} y=${Math.max(sy - 9, 10)} text-anchor="middle">
      ${short(specific.name, 16)}
    </text>
  </svg>`;
}
