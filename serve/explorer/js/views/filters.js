/** Filters: modality, radius over its histogram, how strict the rule is, and the fields of the metadata. */

import { html, nothing, svg } from "../../vendor/lit-html.js";
import { count, counted, fixed, plain, short, show } from "../text.js";
import { MODALITY_WORDS, shape } from "./common.js";
import { strictness } from "../strictness.js";

/** @typedef {import("../app.js").App} App */

const BINS = 48;
const VALUES_SHOWN = 8;

/** @param {App} app */
export function filters(app) {
  return html`<section class="filters" aria-label="Filters">
    ${modalities(app)} ${radii(app)} ${rule(app)} ${fields(app)}
    ${
      isFiltered(app)
        ? html` <button
            class="button quiet wide"
            @click=${() => app.store.go({ modality: null, min: null, max: null, fields: {} })}
          >
            Clear filters
          </button>`
        : nothing
    }
  </section>`;
}

/** @param {App} app */
export function isFiltered({ store: { place } }) {
  return !!place.modality || place.min !== null || place.max !== null || Object.keys(place.fields).length > 0;
}

/** @param {App} app */
function modalities(app) {
  const counts = app.store.data("fields")?.modalities ?? app.store.data("map")?.header.counts ?? {};
  const { place } = app.store;
  return html`<fieldset>
    <legend>Kind</legend>
    <div class="segments">
      <button aria-pressed=${!place.modality} @click=${() => app.store.go({ modality: null })}>All</button>
      ${Object.entries(MODALITY_WORDS)
        .filter(([name]) => counts[name] || place.modality === name)
        .map(
          ([name, word]) =>
            html` <button
              aria-pressed=${place.modality === name}
              @click=${() => app.store.go({ modality: name })}
              title="${counted(counts[name] ?? 0, word)}"
            >
              ${shape(name)} ${count(counts[name] ?? 0)}
            </button>`,
        )}
    </div>
  </fieldset>`;
}

/** @param {App} app */
function radii(app) {
  const most = app.maxRadius();
  if (!most) return nothing;
  const { place } = app.store;
  const top = Math.ceil(most * 100) / 100;
  const [low, high] = [place.min ?? 0, place.max ?? top];
  const set = (/** @type {"min" | "max"} */ end, /** @type {any} */ event, /** @type {boolean} */ done) => {
    const value = Number(event.target.value);
    const patch =
      end === "min"
        ? { min: value <= 0 ? null : Math.min(value, high) }
        : { max: value >= top ? null : Math.max(value, low) };
    app.ui.dragged = done ? null : { [end]: value };
    if (done) app.store.go(patch);
    else app.redraw();
  };
  const shown = { min: low, max: high, ...app.ui.dragged };
  return html`<fieldset class="radius">
    <legend>Radius <output>${fixed(shown.min)} – ${fixed(shown.max)}</output></legend>
    ${histogram(app, top, shown)}
    <div class="range">
      <input
        type="range"
        min="0"
        max=${top}
        step="0.01"
        .value=${String(shown.min)}
        aria-label="Smallest radius"
        @input=${(/** @type {any} */ e) => set("min", e, false)}
        @change=${(/** @type {any} */ e) => set("min", e, true)}
      />
      <input
        type="range"
        min="0"
        max=${top}
        step="0.01"
        .value=${String(shown.max)}
        aria-label="Largest radius"
        @input=${(/** @type {any} */ e) => set("max", e, false)}
        @change=${(/** @type {any} */ e) => set("max", e, true)}
      />
    </div>
    <div class="ends"><span>general</span><span>specific</span></div>
  </fieldset>`;
}

/** @param {App} app @param {number} top @param {{min: number, max: number}} shown */
function histogram(app, top, shown) {
  const map = app.store.data("map");
  if (!map) return nothing;
  const bins = app.memo("histogram", [map, top, app.store.place.modality], () => {
    const kind = map.header.modalities.indexOf(app.store.place.modality ?? "");
    return binsOf(map.radius, top, (i) => kind < 0 || map.modality[i] === kind);
  });
  return bars(bins, (x) => x >= shown.min - top / BINS && x <= shown.max, top);
}

/**
 * How many radii fall into each of equal parts. @param {Float32Array} radii @param {number} top
 * @param {(i: number) => boolean} isIn
 */
export function binsOf(radii, top, isIn) {
  const found = new Array(BINS).fill(0);
  for (let i = 0; i < radii.length; i++) if (isIn(i)) found[Math.min(BINS - 1, Math.floor((radii[i] / top) * BINS))]++;
  return found;
}

/** @param {number[]} bins @param {(x: number) => boolean} isKept @param {number} top */
export function bars(bins, isKept, top) {
  const most = Math.max(...bins, 1);
  return html`<svg class="histogram" viewBox="0 0 ${bins.length * 4} 40" preserveAspectRatio="none" aria-hidden="true">
    ${bins.map((n, i) => {
      const height = n ? Math.max(1, 40 * Math.sqrt(n / most)) : 0;
      return svg`<rect class=${isKept((i / bins.length) * top) ? "kept" : ""} x=${i * 4} y=${40 - height} width="3.2"
        height=${height}></rect>`;
    })}
  </svg>`;
}

/** How strict the rule of entailment is; each step of the slider lets in about as many ancestors. @param {App} app */
function rule(app) {
  const model = app.store.data("model");
  if (!model) return nothing;
  const found = strictness(app);
  const { place } = app.store;
  const own = model.entailment.form === "plane" ? model.entailment.threshold : 1;
  const value = app.ui.width ?? place.width ?? own;
  const name = model.entailment.form === "plane" ? "threshold" : "η ×";
  if (found === null) {
    return html`<fieldset>
      <legend>Strictness of “is a”</legend>
      <p class="hint">
        ${place.width === null ? `The ${model.model === null ? "collection" : "model"}'s own rule.` : html`${name} ${fixed(value, 3)} ${reset(app)}`} Open a point
        in the map to see what changes it.
      </p>
    </fieldset>`;
  }
  if (!found) {
    return html`<fieldset aria-busy="true">
      <legend>Strictness of “is a”</legend>
      <input type="range" disabled aria-label="How many ancestors to let in" />
      <div class="ends"><span>strict</span><span>${name} ${fixed(value, 3)}</span><span>lax</span></div>
    </fieldset>`;
  }
  const slide = (/** @type {any} */ e, /** @type {boolean} */ done) => {
    const width = found.widthAt(Number(e.target.value));
    app.ui.width = done ? null : width;
    if (done) app.store.go({ width: Math.abs(width - own) < 1e-6 ? null : width });
    else app.redraw();
  };
  return html`<fieldset>
    <legend>Strictness of “is a” <output>${counted(found.countAt(value), "ancestor")}</output></legend>
    <input
      type="range"
      min="0"
      max=${found.steps}
      step="1"
      .value=${String(found.stepOf(value))}
      aria-label="How many ancestors to let in"
      aria-valuetext=${counted(found.countAt(value), "ancestor")}
      @input=${(/** @type {any} */ e) => slide(e, false)}
      @change=${(/** @type {any} */ e) => slide(e, true)}
    />
    <div class="ends">
      <span>strict</span><span>${name} ${fixed(value, 3)} ${place.width === null ? nothing : reset(app)}</span>
      <span>lax</span>
    </div>
  </fieldset>`;
}

/** @param {App} app */
const reset = (app) => html`<button class="link" @click=${() => app.store.go({ width: null })}>reset</button>`;

/** Whether a field divides the points into groups: an id or a caption that each has for itself does not. @param {any} field */
function isFacet(field) {
  const isNumber = field.min !== null && field.max !== null;
  return isNumber || (field.distinct !== null && field.distinct > 1 && field.distinct <= Math.max(20, field.count / 4));
}

/** @param {App} app */
function fields(app) {
  const load = app.store.loads.fields;
  if (!load?.data?.fields?.length) return nothing;
  return load.data.fields.filter(isFacet).map((/** @type {any} */ field) => {
    const isNumber = field.min !== null && field.max !== null && (field.distinct ?? Infinity) > field.values.length;
    return html`<details class="facet" ?open=${field.name in app.store.place.fields}>
      <summary>
        <span class="name" dir="auto">${short(show(field.name), 30)}</span>
        <span class="value">${field.distinct === null ? count(field.count) : counted(field.distinct, "value")}</span>
      </summary>
      ${isNumber ? numbers(app, field) : values(app, field)}
    </details>`;
  });
}

/** @param {App} app @param {any} field */
function values(app, field) {
  const filter = app.store.place.fields[field.name];
  const chosen = filter && "values" in filter ? filter.values : [];
  const listed = new Set(field.values.map((/** @type {any} */ v) => v.value));
  const rest = chosen.filter((value) => !listed.has(value)).map((value) => ({ value, count: null }));
  const isWhole = app.ui.wholeFields.has(field.name);
  const all = [...rest, ...field.values];
  const shown = isWhole ? all : all.slice(0, VALUES_SHOWN);
  return html`<ul class="values">
      ${shown.map(
        ({ value, count: n }) =>
          html`<li>
            <label>
              <input
                type="checkbox"
                .checked=${chosen.includes(value)}
                @change=${() => app.act.toggleValue(field.name, value)}
              />
              <span class="name" dir="auto">${short(plain(value), 60)}</span>
              <span class="value">${n === null ? "" : count(n)}</span></label
            >
          </li>`,
      )}
    </ul>
    ${
      all.length > shown.length
        ? html`<button class="link" @click=${() => app.act.wholeField(field.name)}>
            ${count(all.length - shown.length)} more
          </button>`
        : nothing
    }`;
}

/** @param {App} app @param {any} field */
function numbers(app, field) {
  const filter = app.store.place.fields[field.name];
  const bounds = filter && !("values" in filter) ? filter : {};
  const set = (/** @type {"gte" | "lte"} */ end, /** @type {string} */ text) =>
    app.act.boundField(field.name, end, text);
  return html`<div class="numbers">
    <label
      >from
      <input
        type="number"
        step="any"
        .value=${String(bounds.gte ?? "")}
        placeholder=${String(field.min)}
        @change=${(/** @type {any} */ e) => set("gte", e.target.value)}
    /></label>
    <label
      >to
      <input
        type="number"
        step="any"
        .value=${String(bounds.lte ?? "")}
        placeholder=${String(field.max)}
        @change=${(/** @type {any} */ e) => set("lte", e.target.value)}
    /></label>
  </div>`;
}
