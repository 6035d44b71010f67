/** What was found, as images and words; without a query, the points of the collection from general to specific. */

import { html, nothing } from "../../vendor/lit-html.js";
import { count, counted, fixed } from "../text.js";
import { card, failure, noMatch, skeletons } from "./common.js";

/** @typedef {import("../app.js").App} App */

const SORTS = [
  ["margin", "deepest inside"],
  ["distance", "nearest"],
  ["radius", "most general"],
];

/** @param {App} app */
export function gridView(app) {
  const { place } = app.store;
  const isListing = !place.parts.length;
  const names = isListing ? ["listing"] : ["item", "hits"];
  const failed = names.find((name) => app.store.loads[name]?.status === "failed");
  if (failed) return failure(app, app.store.loads[failed].error, [failed]);
  const load = app.store.loads[names[names.length - 1]];
  if (!load?.data) return html`<div aria-busy="true">${skeletons(18)}</div>`;
  const hits = isListing ? load.data.points : load.data.hits;
  const more = isListing
    ? load.data.next !== null
    : load.data.total === null
      ? hits.length % app.requests.page === 0
      : hits.length < load.data.total;
  if (!hits.length) return noMatch(app);
  return html`<div aria-busy=${load.status === "loading"}>
    <div class="toolbar">
      <p>${isListing ? html`${counted(load.data.total, "point")}, most general first` : heading(place, load.data)}</p>
      ${
        !isListing && place.verb !== "near"
          ? html`<label
              >Sort
              <select .value=${place.sort} @change=${(/** @type {any} */ e) => app.store.go({ sort: e.target.value })}>
                ${SORTS.map(
                  ([name, word]) => html`<option value=${name} ?selected=${name === place.sort}>${word}</option>`,
                )}
              </select></label
            >`
          : nothing
      }
      ${
        !isListing && place.verb === "near" && app.collection()?.index
          ? html`<label
              ><input
                type="checkbox"
                .checked=${place.exact}
                @change=${(/** @type {any} */ e) => app.store.go({ exact: e.target.checked })}
              />
              exact</label
            >`
          : nothing
      }
    </div>
    ${
      app.lacksThumbnails(hits)
        ? html`<p class="hint">These images have no thumbnails; embedding them anew makes some.</p>`
        : nothing
    }
    <ul class="cards" @keydown=${(/** @type {KeyboardEvent} */ e) => arrows(e)}>
      ${hits.map((/** @type {any} */ hit) => card(app, hit, valueOf(place, hit, isListing)))}
      <li class="filler" aria-hidden="true"></li>
    </ul>
    ${
      more
        ? html`<p class="actions">
            <button class="button quiet" ?disabled=${app.ui.isMoreComing} @click=${() => app.act.more()}>
              ${app.ui.isMoreComing ? "Loading …" : "Show more"}
            </button>
          </p>`
        : nothing
    }
  </div>`;
}

/** @param {any} place @param {any} data */
function heading(place, data) {
  const byIndex = data.exact ? "" : " (by the index)";
  if (data.total === null) return `The nearest ${count(data.hits.length)}${byIndex}`;
  /** @type {Record<string, string>} */
  const words = { near: ", nearest first", above: " that it is an instance of", below: " that are instances of it" };
  return `${counted(data.total, "point")}${words[place.verb]}${byIndex}`;
}

/** @param {any} place @param {any} hit @param {boolean} isListing */
function valueOf(place, hit, isListing) {
  if (isListing || place.sort === "radius")
    return { value: fixed(hit.radius), title: `radius ${fixed(hit.radius, 4)}` };
  if (place.verb === "near" || place.sort === "distance") {
    return { value: fixed(hit.distance), title: `distance ${fixed(hit.distance, 4)}` };
  }
  return { value: fixed(hit.margin), title: `margin ${fixed(hit.margin, 4)}: below 0 is inside` };
}

/** Arrow keys go from card to card, up and down by their places. @param {KeyboardEvent} event */
export function arrows(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 0, ArrowUp: 0, Home: 0, End: 0 }[event.key];
  if (step === undefined) return;
  const faces = [.../** @type {HTMLElement} */ (event.currentTarget).querySelectorAll("button.face")];
  const at = faces.indexOf(/** @type {Element} */ (event.target));
  if (at < 0) return;
  event.preventDefault();
  let next = faces[at + step];
  if (event.key === "Home") next = faces[0];
  if (event.key === "End") next = faces[faces.length - 1];
  if (event.key === "ArrowDown" || event.key === "ArrowUp") next = across(faces, at, event.key === "ArrowDown");
  /** @type {HTMLElement | undefined} */ (next)?.focus();
}

/** The nearest card of the next row. @param {Element[]} faces @param {number} at @param {boolean} isDown */
function across(faces, at, isDown) {
  const from = faces[at].getBoundingClientRect();
  const middle = from.left + from.width / 2;
  let best = faces[at];
  let least = Infinity;
  for (const face of faces) {
    const box = face.getBoundingClientRect();
    const ahead = isDown ? box.top - from.top : from.top - box.top;
    if (ahead < 4) continue;
    const off = ahead * 4 + Math.abs(box.left + box.width / 2 - middle);
    if (off < least) [best, least] = [face, off];
  }
  return best;
}
