/** Pieces that several views are made of. */

import { html, nothing, svg } from "../../vendor/lit-html.js";
import { counted, fixed, label, short, show } from "../text.js";

/** @typedef {import("../app.js").App} App @typedef {import("../api.js").ApiError} ApiError */

/** @type {Record<string, any>} */
const SHAPES = {
  text: svg`<circle cx="5" cy="5" r="4"></circle>`,
  image: svg`<rect x="1.2" y="1.2" width="7.6" height="7.6" rx="1"></rect>`,
  embedding: svg`<path d="M5 .8 9.4 9H.6Z"></path>`,
};
/** @type {Record<string, string>} */
export const MODALITY_WORDS = { text: "text", image: "image", embedding: "embedding" };

/** The shape of a modality, in its colour. @param {string | null} modality */
export function shape(modality) {
  const drawn = SHAPES[modality ?? ""];
  if (!drawn)
    return html`<svg class="shape root" viewBox="0 0 10 10" aria-hidden="true">
      <circle cx="5" cy="5" r="3.4"></circle>
    </svg>`;
  return html`<svg
    class="shape ${modality}"
    viewBox="0 0 10 10"
    role="img"
    aria-label=${MODALITY_WORDS[modality ?? ""]}
  >
    ${drawn}
  </svg>`;
}

/** A bar from the root to the farthest point of the collection. @param {App} app @param {number} radius */
export function radiusBar(app, radius) {
  const most = app.maxRadius();
  const part = most ? Math.min(100, (100 * radius) / most) : 0;
  return html`<span class="bar" title="radius ${fixed(radius, 3)}"
    ><i .style=${`width:${part.toFixed(1)}%`}></i
  ></span>`;
}

/**
 * The thumbnail of a point; `none` where it has none.
 * @param {App} app @param {any} point @param {string} kind @param {any} none
 */
export function image(app, point, kind, none = nothing) {
  if (point.modality !== "image") return none;
  const thumbnail = app.points.thumbnail(point.id);
  if (thumbnail === undefined) return html`<span class="thumb skeleton ${kind}"></span>`;
  return thumbnail ? html`<img class="thumb ${kind}" src=${thumbnail.url} alt="" draggable="false" />` : none;
}

/**
 * A hit as a card: select by click or Enter, make it the query by double click.
 * @param {App} app @param {any} hit @param {{value?: string, title?: string}} shown
 */
export function card(app, hit, { value = "", title = "" } = {}) {
  const isSelected = app.store.place.selected === hit.id;
  const thumbnail = hit.modality === "image" ? app.points.thumbnails.get(hit.id) : null;
  const aspect = thumbnail ? Math.min(2.5, Math.max(0.5, thumbnail.width / thumbnail.height)) : 1.2;
  return html`<li
    class="card ${isSelected ? "selected" : ""} ${app.ui.hovered === hit.id ? "hovered" : ""}"
    .style=${`flex:${aspect.toFixed(2)} 1 ${(aspect * 116).toFixed(0)}px;max-width:${(aspect * 190).toFixed(0)}px`}
    @mouseenter=${() => app.act.hover(hit.id)}
    @mouseleave=${() => app.act.hover(null)}
  >
    <button
      class="face"
      data-id=${show(hit.id)}
      aria-pressed=${isSelected}
      title=${title || label(hit)}
      @click=${() => app.act.select(hit.id)}
      @dblclick=${() => app.act.query({ kind: "id", id: hit.id })}
      draggable="true"
      @dragstart=${(/** @type {DragEvent} */ e) => dragId(e, hit.id)}
    >
      ${image(app, hit, "in-card", html`<span class="word" dir="auto">${short(label(hit), 80)}</span>`)}
      <span class="foot"
        >${shape(hit.modality)}<span class="name" dir="auto"
          >${hit.modality === "image" ? short(label(hit), 40) : nothing}</span
        >
        ${value ? html`<span class="value">${value}</span>` : nothing}</span
      >
      ${radiusBar(app, hit.radius)}
    </button>
  </li>`;
}

export const POINT_TYPE = "application/x-hypclip-point";

/** @param {DragEvent} event @param {string} id */
function dragId(event, id) {
  event.dataTransfer?.setData(POINT_TYPE, id);
}

/** A small row of a list: shape, name, value, and what stands beside it.
 * @param {App} app @param {any} point @param {string} value @param {any} more */
export function row(app, point, value = "", more = nothing) {
  const isSelected = app.store.place.selected === point.id;
  return html`<li
    class="row ${isSelected ? "selected" : ""} ${app.ui.hovered === point.id ? "hovered" : ""}"
    @mouseenter=${() => app.act.hover(point.id)}
    @mouseleave=${() => app.act.hover(null)}
  >
    <button
      class="row-face"
      aria-pressed=${isSelected}
      @click=${() => app.act.select(point.id)}
      @dblclick=${() => app.act.query({ kind: "id", id: point.id })}
    >
      ${image(app, point, "in-row", shape(point.modality))}
      <span class="name" dir="auto">${short(label(point), 60)}</span><span class="value">${value}</span></button
    >${more}
  </li>`;
}

/** @param {number} n */
export function skeletons(n) {
  return html`<ul class="cards" aria-hidden="true">
    ${Array.from({ length: n }, () => html`<li class="card skeleton tall"></li>`)}
  </ul>`;
}

/** What a request failed with, what to do, and the id under which the server's log has it.
 * @param {App} app @param {ApiError} error @param {string[]} loads what to load anew */
export function failure(app, error, loads) {
  const again = () => app.act.retry(loads);
  return html`<div class="notice bad" role="alert">
    <strong>${headline(error)}</strong>
    <p dir="auto">${show(error.message)}</p>
    ${hint(app, error)}
    <p class="actions">
      ${
        error.status === 504
          ? html`<button class="button" @click=${() => app.act.askForFewer(loads)}>Ask for 12</button>`
          : nothing
      }
      ${
        error.status === 401
          ? html`<button class="button" @click=${() => app.act.newKey(loads)}>Enter a key</button>`
          : nothing
      }
      <button class="button quiet" @click=${again}>Try again</button>
      ${
        error.requestId
          ? html`<button
              class="button quiet id"
              title="Copy the request id"
              @click=${() => app.act.copy(error.requestId, "request id")}
            >
              request ${show(error.requestId)}
            </button>`
          : nothing
      }
    </p>
  </div>`;
}

/** @param {ApiError} error */
function headline({ status, type }) {
  switch (status) {
    case 0:
      return "No answer";
    case 401:
      return "A key is needed";
    case 403:
      return "This key may not do that";
    case 404:
      return type === "unknown_point" ? "This point is not in the collection" : "Not found";
    case 409:
      return type === "no_model" ? "This server has no model" : "A collection of another model";
    case 413:
      return "Too large";
    case 415:
    case 422:
      return "The server cannot take this";
    case 429:
      return "The server is busy";
    case 503:
      return "The server cannot answer now";
    case 504:
      return "It took too long";
    default:
      return "The server failed";
  }
}

/** @param {App} app @param {ApiError} error */
function hint(app, { status, type }) {
  if (type === "no_model") return html`<p>Texts and images need one. A stored point is found by its name or id.</p>`;
  if (status === 409) return html`<p>Its map can be looked at; searching it needs the model that it was made with.</p>`;
  if (status === 403)
    return html`<p>
      Another key can be given: <button class="link" @click=${() => app.act.newKey([])}>enter a key</button>.
    </p>`;
  return nothing;
}

/** What to loosen where nothing was found. @param {App} app */
export function noMatch(app) {
  const { place } = app.store;
  const loosen = [];
  if (place.modality) loosen.push(["any modality", { modality: null }]);
  if (place.min !== null || place.max !== null) loosen.push(["any radius", { min: null, max: null }]);
  if (Object.keys(place.fields).length) loosen.push(["any field", { fields: {} }]);
  if (place.width !== null) loosen.push(["the model's own rule", { width: null }]);
  if (place.verb !== "near") loosen.push(["the nearest points", { verb: "near" }]);
  const total = app.collection()?.count;
  return html`<div class="notice">
    <strong>No match</strong>
    <p>
      ${total === undefined ? nothing : html`The collection has ${counted(total, "point")}. `}
      ${loosen.length ? "Show instead:" : "Ask for something else."}
    </p>
    <p class="actions">
      ${loosen.map(
        ([name, patch]) =>
          html`<button class="button quiet" @click=${() => app.store.go(/** @type {any} */ (patch))}>${name}</button>`,
      )}
    </p>
  </div>`;
}

/** Buttons of what can be asked of a point. @param {App} app @param {any} thing */
export function verbs(app, thing) {
  const { act } = app;
  return html`<div class="verbs" role="group" aria-label="Ask about this point">
    <button @click=${() => act.verb("near", thing)} title="The nearest points">Near</button>
    <button @click=${() => act.verb("above", thing)} title="What it is an instance of (u goes one up)">Above</button>
    <button @click=${() => act.verb("below", thing)} title="Its instances (d goes one down)">Below</button>
    <button @click=${() => act.wayToRoot(thing)} title="From specific to general">Way to root</button>
    <button @click=${() => act.compare(thing)} title="Compare with the query, or with the next point chosen (c)">
      Compare
    </button>
    <button @click=${() => act.classify(thing)} title="Which of some labels it is">Classify</button>
    <button @click=${() => act.addPart(thing)} title="Average it with the query">Add to query</button>
  </div>`;
}
