/** Two points: what they have in common, which is the more general, and what lies between them. */

import { html, nothing } from "../../vendor/lit-html.js";
import { counted, fixed, short } from "../text.js";
import { card, failure, row, skeletons } from "./common.js";
import { thingName, thingImage } from "./query.js";

/** @typedef {import("../app.js").App} App */

/** @param {App} app */
export function compareView(app) {
  const { place } = app.store;
  const one = place.parts.map((part) => thingName(app, part)).join(" + ");
  if (!place.parts.length || !place.other) {
    return html`<div class="notice">
      <strong>Compare two</strong>
      <p>
        ${
          place.parts.length
            ? html`Choose the second: click a point of the map or of the grid, then <b>Compare</b>, or press
                <kbd>c</kbd>.`
            : "Search for the first of two, then choose the second and press Compare."
        }
      </p>
    </div>`;
  }
  const failed = ["item", "compare"].find((name) => app.store.loads[name]?.status === "failed");
  const load = app.store.loads.compare;
  const other = thingName(app, place.other);
  return html`<div class="compare-view" aria-busy=${load?.status !== "done"}>
    <div class="pair">
      ${side(app, place.parts, one)}
      <button class="button quiet" title="Change places" aria-label="Change places" @click=${() => app.act.swap()}>
        ⇄
      </button>
      ${side(app, [place.other], other)}
      <button class="button quiet" @click=${() => app.store.go({ view: "path" })}>The way between</button>
    </div>
    ${
      failed
        ? failure(app, app.store.loads[failed].error, [failed])
        : load?.data
          ? found(app, load.data, one, other)
          : skeletons(8)
    }
  </div>`;
}

/** @param {App} app @param {any[]} things @param {string} name */
function side(app, things, name) {
  return html`<div class="side">
    ${things.length === 1 ? thingImage(app, things[0]) : nothing}
    <span class="name" dir="auto">${short(name, 60)}</span>
  </div>`;
}

/** @param {App} app @param {any} data @param {string} one @param {string} other */
function found(app, { common, order, mean, middle }, one, other) {
  /** @type {Record<string, string>} */
  const words = {
    general: `“${short(one, 30)}” is more general: it entails “${short(other, 30)}”.`,
    specific: `“${short(other, 30)}” is more general: it entails “${short(one, 30)}”.`,
    neither: "Neither entails the other.",
    same: "Both are at the same place.",
  };
  const radii = app.store.data("focus")?.header;
  return html` <p class="sentence">${words[order.relation]}</p>
    <dl class="facts">
      <div>
        <dt>distance</dt>
        <dd>${fixed(order.distance, 3)}</dd>
      </div>
      ${
        radii?.of
          ? html`<div>
              <dt>radii</dt>
              <dd>${fixed(radii.of.radius, 3)} and ${fixed(radii.target?.radius, 3)}</dd>
            </div>`
          : nothing
      }
      <div>
        <dt>margin, first over second</dt>
        <dd>${fixed(order.first_over_second, 3)}</dd>
      </div>
      <div>
        <dt>margin, second over first</dt>
        <dd>${fixed(order.second_over_first, 3)}</dd>
      </div>
      <div>
        <dt>radius of the midpoint</dt>
        <dd>${fixed(mean.radius, 3)}</dd>
      </div>
    </dl>
    <div class="halves">
      <section>
        <h2>In common <small>${counted(common.total, "ancestor")}, most specific first</small></h2>
        ${
          common.hits.length
            ? html`<ul class="rows">
                ${common.hits.map((/** @type {any} */ hit) => row(app, hit, fixed(hit.margin)))}
              </ul>`
            : html`<p class="hint">Nothing in the collection entails both.</p>`
        }
      </section>
      <section>
        <h2>From both <small>distances to either are exact; the root is a point among others</small></h2>
        <div class="stage small">${app.diskHost}</div>
      </section>
    </div>
    <section>
      <h2>Around the midpoint</h2>
      <ul class="cards">
        ${middle.hits.map((/** @type {any} */ hit) => card(app, hit, { value: fixed(hit.distance) }))}
        <li class="filler" aria-hidden="true"></li>
      </ul>
    </section>`;
}
