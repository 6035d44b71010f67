/** The query: text, images and points, several of them as chips with weights. */

import { html, nothing } from "../../vendor/lit-html.js";
import { label, short, show } from "../text.js";
import { failure, shape } from "./common.js";

/** @typedef {import("../app.js").App} App */

const VERBS = [
  ["near", "Near", "nearest points"],
  ["above", "Above", "what it is an instance of"],
  ["below", "Below", "its instances"],
];

/** @param {App} app */
export function queryBar(app) {
  const { place } = app.store;
  const isAlone = app.store.data("model")?.model === null;
  return html`<section class="query ${app.ui.isDropping ? "dropping" : ""}" aria-label="Query">
    <form @submit=${(/** @type {Event} */ e) => e.preventDefault()}>
      <label class="field-label" for="query">${isAlone ? "Find a point by its name" : "Search by text or image"}</label>
      <div class="box">
        <textarea
          id="query"
          rows="1"
          maxlength="100000"
          placeholder=${isAlone ? "a name or an id" : "a red apple"}
          aria-describedby="query-help"
          aria-invalid=${!!app.ui.queryError}
          @keydown=${(/** @type {KeyboardEvent} */ e) => keyDown(app, e)}
          @paste=${(/** @type {any} */ e) => app.inputs.paste(e)}
        ></textarea>
        ${
          isAlone
            ? nothing
            : html`<label class="icon pick" title="An image from this device">
          <svg viewBox="0 0 20 20" aria-hidden="true">
            <path d="M3 5h3l1.4-2h5.2L14 5h3v11H3Z"></path>
            <circle cx="10" cy="10.3" r="3"></circle>
          </svg>
          <span class="hidden">Choose an image</span>
          <input
            type="file"
            accept="image/png,image/jpeg,image/webp,image/gif,image/bmp"
            class="hidden"
            @change=${(/** @type {any} */ e) => app.inputs.pick(e)}
        /></label>`
        }
        <button class="button go" @click=${() => app.act.search()}>Search</button>
      </div>
      <p class="hint" id="query-help">
        Enter searches, Shift+Enter adds. ${
          isAlone ? "Other texts, and images, need a model, which this server has not." : "Drop or paste an image anywhere."
        }
      </p>
    </form>
    ${app.ui.queryError ? failure(app, app.ui.queryError, ["item"]) : nothing}
    ${
      place.parts.length
        ? html`<ul class="chips" aria-label="Parts of the query">
            ${place.parts.map((part, i) => chip(app, part, i, place.parts.length > 1))}
          </ul>`
        : nothing
    }
    <div class="segments" role="group" aria-label="What to find">
      ${VERBS.map(
        ([verb, name, title]) =>
          html`<button
            aria-pressed=${place.verb === verb}
            title=${title}
            @click=${() => app.act.setVerb(/** @type {any} */ (verb))}
          >
            ${name}
          </button>`,
      )}
    </div>
  </section>`;
}

/** @param {App} app @param {KeyboardEvent} event */
function keyDown(app, event) {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  app.act.search(event.shiftKey);
}

/** The name of a part. @param {App} app @param {any} thing */
export function thingName(app, thing) {
  switch (thing.kind) {
    case "text":
      return show(thing.text);
    case "id":
      return label(app.points.byId.get(thing.id) ?? { id: thing.id });
    case "root":
      return "root";
    default:
      return thing.name ? show(thing.name) : thing.modality === "image" ? "an image" : "a point";
  }
}

/** The image of a part, or its shape. @param {App} app @param {any} thing */
export function thingImage(app, thing) {
  if (thing.kind === "vector" && thing.url) return html`<img class="thumb in-row" src=${thing.url} alt="" />`;
  if (thing.kind === "id") {
    const point = app.points.byId.get(thing.id);
    const thumbnail = point?.modality === "image" ? app.points.thumbnail(thing.id) : null;
    if (thumbnail) return html`<img class="thumb in-row" src=${thumbnail.url} alt="" />`;
    return shape(point?.modality ?? "text");
  }
  return shape(thing.kind === "text" ? "text" : thing.kind === "vector" ? thing.modality : null);
}

/** @param {App} app @param {any} part @param {number} i @param {boolean} isWeighted */
function chip(app, part, i, isWeighted) {
  const name = thingName(app, part);
  return html`<li class="chip">
    ${thingImage(app, part)}<span class="name" dir="auto">${short(name, 40)}</span>
    ${
      isWeighted
        ? html`<input
            type="number"
            min="0"
            max="10"
            step="0.5"
            .value=${String(part.weight)}
            aria-label="Weight of ${name}"
            @change=${(/** @type {any} */ e) => app.act.weigh(i, e.target.value)}
          />`
        : nothing
    }
    <button class="icon small" aria-label="Remove ${name}" @click=${() => app.act.removePart(i)}>×</button>
  </li>`;
}
