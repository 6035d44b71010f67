/** The way from a point to the root, or to another point: stops, and what lies below each. */

import { html, nothing } from "../../vendor/lit-html.js";
import { counted, fixed, label, short } from "../text.js";
import { card, failure, image, radiusBar, shape, skeletons } from "./common.js";
import { thingName, thingImage } from "./query.js";

/** @typedef {import("../app.js").App} App */

/** The stops of the way to the root in a line, the root first. @param {App} app */
export function breadcrumb(app) {
  const { place } = app.store;
  const stops = [...(app.store.data("path")?.path ?? [])].reverse();
  const name = place.parts.map((part) => thingName(app, part)).join(" + ");
  const own = startId(place);
  return html`<nav class="crumbs" aria-label="Way from the root">
    <ol>
      ${stops
        .filter((stop) => stop.id !== own)
        .map(
          (stop) =>
            html`<li>
              ${
                stop.modality === null
                  ? html`<span class="crumb">${shape(null)} root</span>`
                  : html`<button
                      class="crumb"
                      title="radius ${fixed(stop.radius, 3)}"
                      @click=${() => app.act.select(stop.id)}
                      @dblclick=${() => app.act.query({ kind: "id", id: stop.id })}
                    >
                      ${shape(stop.modality)} ${short(label(stop), 28)}
                    </button>`
              }
            </li>`,
        )}
      <li>
        <span class="crumb here" aria-current="location"
          >${place.parts.length === 1 ? thingImage(app, place.parts[0]) : nothing}
          <span dir="auto">${short(name, 36)}</span></span
        >
      </li>
    </ol>
  </nav>`;
}

/** The id of the point that the way begins at, where it is a point of the collection. @param {any} place */
function startId({ parts }) {
  return parts.length === 1 && parts[0].kind === "id" ? parts[0].id : null;
}

/** @param {App} app */
export function pathView(app) {
  const { place } = app.store;
  if (!place.parts.length) {
    return html`<div class="notice">
      <strong>Way to the root</strong>
      <p>Search for something, or open a point: here is then its way from specific to general.</p>
    </div>`;
  }
  const failed = ["item", "path"].find((name) => app.store.loads[name]?.status === "failed");
  if (failed) return failure(app, app.store.loads[failed].error, [failed]);
  const load = app.store.loads.path;
  if (!load?.data) return html`<div aria-busy="true">${skeletons(6)}</div>`;
  // A point is above places close to its own, so it would come again as a stop of its own way.
  const stops = load.data.path.filter((/** @type {any} */ stop) => stop.id !== startId(place));
  return html`<div class="path-view" aria-busy=${load.status === "loading"}>
    <div class="toolbar">
      <p>
        ${counted(stops.length, "stop")}
        ${
          place.other
            ? html`to <b>${short(thingName(app, place.other), 40)}</b>
                <button class="link" @click=${() => app.store.go({ other: null })}>to the root instead</button>`
            : "to the root"
        }
      </p>
      <label
        ><input
          type="checkbox"
          .checked=${place.entailed}
          @change=${(/** @type {any} */ e) => app.store.go({ entailed: e.target.checked })}
        />
        only what entails the place</label
      >
      <label
        ><input
          type="checkbox"
          .checked=${place.everyStop}
          @change=${(/** @type {any} */ e) => app.store.go({ everyStop: e.target.checked })}
        />
        every stop</label
      >
    </div>
    <ol class="way">
      ${startView(app)} ${stops.map((/** @type {any} */ stop, /** @type {number} */ i) => stopView(app, stop, i))}
    </ol>
  </div>`;
}

/** Where the way begins: the query. @param {App} app */
function startView(app) {
  const { parts } = app.store.place;
  const item = app.store.data("item");
  const id = startId(app.store.place);
  const point = id === null ? null : app.points.byId.get(id);
  return html`<li class="stop">
    <span class="dot">${shape(point?.modality ?? (parts[0].kind === "text" ? "text" : "image"))}</span>
    <div>
      <p class="stop-face">
        ${point ? image(app, point, "in-path") : parts[0].url ? thingImage(app, parts[0]) : nothing}
        <span class="name" dir="auto">${short(parts.map((part) => thingName(app, part)).join(" + "), 90)}</span>
      </p>
      ${item ? html`<p class="numbers-line">the start · radius ${fixed(item.radius, 3)}</p>` : nothing}
      ${item ? radiusBar(app, item.radius) : nothing}
    </div>
  </li>`;
}

/** @param {App} app @param {any} stop @param {number} i */
function stopView(app, stop, i) {
  if (stop.modality === null) {
    return html`<li class="stop root">
      <span class="dot">${shape(null)}</span>
      <div>
        <b>root</b>
        <p class="hint">The origin of the space: it entails everything.</p>
      </div>
    </li>`;
  }
  const branch = app.ui.branches.get(stop.id);
  const isSelected = app.store.place.selected === stop.id;
  return html`<li class="stop ${isSelected ? "selected" : ""}">
    <span class="dot">${shape(stop.modality)}</span>
    <div>
      <button
        class="stop-face"
        @click=${() => app.act.select(stop.id)}
        @dblclick=${() => app.act.query({ kind: "id", id: stop.id })}
      >
        ${image(app, stop, "in-path")}
        <span class="name" dir="auto">${short(label(stop), 90)}</span>
      </button>
      <p class="numbers-line">
        ${Math.round(100 * stop.t)} % of the way · radius ${fixed(stop.radius, 3)} · ${fixed(stop.distance, 3)} off it
        <button class="link" aria-expanded=${!!branch} @click=${() => app.act.branch(stop.id)}>
          ${branch ? "hide" : "what else is below"}
        </button>
      </p>
      ${radiusBar(app, stop.radius)} ${branch?.error ? failure(app, branch.error, []) : nothing}
      ${
        branch?.hits
          ? html`<ul class="cards small">
              ${branch.hits.map((/** @type {any} */ hit) => card(app, hit, { value: fixed(hit.margin) }))}
              <li class="filler" aria-hidden="true"></li>
            </ul>`
          : branch
            ? html`<p class="hint">Loading …</p>`
            : nothing
      }
    </div>
  </li>`;
}
