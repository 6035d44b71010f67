/** The point that is selected: what it is, what it is an instance of, its instances, and why. */

import { html, nothing } from "../../vendor/lit-html.js";
import { counted, fixed, label, plain, short, show, spoken } from "../text.js";
import { failure, MODALITY_WORDS, image, radiusBar, row, shape, verbs } from "./common.js";
import { thingName } from "./query.js";
import { why } from "./why.js";

/** @typedef {import("../app.js").App} App */

/** @param {App} app */
export function inspector(app) {
  const { place, loads } = app.store;
  if (app.ui.set) return setView(app);
  if (place.selected === null && place.parts.length && loads.item?.status === "done") return queryView(app);
  if (place.selected === null) {
    return html`<div class="inspector empty">
      <p class="hint">Click a point to see what it is an instance of, and why.</p>
      <p class="hint">Press <kbd>?</kbd> for all keys.</p>
    </div>`;
  }
  const load = loads.point;
  if (load?.status === "failed") return failure(app, load.error, ["point"]);
  const point = load?.status === "done" ? load.data : app.points.byId.get(place.selected);
  if (!point)
    return html`<div class="inspector" aria-busy="true"><div class="thumb skeleton in-inspector"></div></div>`;
  const thing = { kind: "id", id: point.id };
  return html`<article class="inspector" aria-label="Selected point">
    <header>
      ${image(app, point, "in-inspector")}
      <h2 dir="auto">${short(label(point), 160)}</h2>
      <p class="numbers-line">
        ${shape(point.modality)} ${MODALITY_WORDS[point.modality]} · radius
        <b>${fixed(point.radius, 3)}</b>
        <button
          class="icon small close"
          aria-label="Close the inspector"
          @click=${() => app.store.go({ selected: null })}
        >
          ×
        </button>
      </p>
      ${radiusBar(app, point.radius)}
    </header>
    ${verbs(app, thing)} ${toQuery(app, point)} ${relatives(app, point)} ${about(app, point)}
  </article>`;
}

/** What the query is, where no point is selected. @param {App} app */
function queryView(app) {
  const { parts } = app.store.place;
  const name = parts.map((part) => thingName(app, part)).join(" + ");
  const { radius } = app.store.data("item");
  const query = { id: null, name, radius, modality: null };
  return html`<article class="inspector" aria-label="The query">
    <header>
      ${parts.length === 1 ? queryImage(app, parts[0]) : nothing}
      <h2 dir="auto">${short(name, 160)}</h2>
      <p class="numbers-line">the query · radius <b>${fixed(radius, 3)}</b></p>
      ${radiusBar(app, radius)}
    </header>
    ${relatives(app, query)}
  </article>`;
}

/** @param {App} app @param {any} thing */
function queryImage(app, thing) {
  if (thing.url) return html`<img class="thumb in-query" src=${thing.url} alt="" />`;
  const point = thing.kind === "id" ? app.points.byId.get(thing.id) : null;
  return point ? image(app, point, "in-query") : nothing;
}

/** The relation of the selected point to the query. @param {App} app @param {any} point */
function toQuery(app, point) {
  const found = app.relationToQuery(point);
  if (!found) return nothing;
  return html`<details class="why-panel" open>
    <summary>Why?</summary>
    ${why(found)}
  </details>`;
}

/** @param {App} app @param {any} point */
function relatives(app, point) {
  const load = app.store.loads.relatives;
  if (!load) return nothing;
  if (load.status === "failed") return failure(app, load.error, ["relatives"]);
  if (!load.data || load.data.id !== point.id) return html`<div class="skeleton lines" aria-busy="true"></div>`;
  const { above, below } = load.data;
  const list = (
    /** @type {string} */ title,
    /** @type {any} */ page,
    /** @type {"above" | "below"} */ verb,
    /** @type {string} */ none,
  ) =>
    html` <section>
      <h3>
          ${title} <small>${counted(page.total, "point")}</small>
          ${page.total ? html`<small class="unit" title="How far inside: the lower, the deeper">margin</small>` : nothing}
        </h3>
      ${
        page.hits.length
          ? html`<ul class="rows">
              ${page.hits.map((/** @type {any} */ hit) =>
                row(app, hit, fixed(hit.margin), whyHit(app, point, hit, verb)),
              )}
            </ul>`
          : html`<p class="hint">${none}</p>`
      }
      ${
        page.total > page.hits.length
          ? html`<button class="link" @click=${() => all(app, verb, point)}>
              all ${counted(page.total, "point")}
            </button>`
          : nothing
      }
    </section>`;
  return html`${list("It is", above, "above", "Nothing in the collection entails it.")}
  ${list("Its instances", below, "below", "It entails nothing in the collection.")}`;
}

/** @param {App} app @param {"above" | "below"} verb @param {any} point */
function all(app, verb, point) {
  if (point.id === null) app.store.go({ verb, view: "grid" });
  else app.act.verb(verb, { kind: "id", id: point.id });
}

/** @param {App} app @param {any} point @param {any} hit @param {"above" | "below"} verb */
function whyHit(app, point, hit, verb) {
  const isOpen = app.ui.explained === `${verb}:${hit.id}`;
  const name = label(hit);
  const ends = [hit, point].map((each) => ({ name: label(each), spoken: spoken(each), radius: each.radius }));
  const [general, specific] = verb === "above" ? ends : [ends[1], ends[0]];
  const asked = app.ruleCase(general, specific, hit.distance);
  return html`<button
      class="link why-button"
      aria-expanded=${isOpen}
      aria-label="Why? ${short(name, 40)}"
      @click=${() => {
        app.ui.explained = isOpen ? "" : `${verb}:${hit.id}`;
        app.redraw();
      }}
    >
      Why?
    </button>
    ${isOpen && asked ? why(asked) : nothing}`;
}

/** @param {App} app @param {any} point */
function about(app, point) {
  const entries = Object.entries(point.metadata ?? {});
  return html`<section>
    <h3>Details</h3>
    <dl class="details">
      <div>
        <dt>id</dt>
        <dd>
          <button class="link" title="Copy the id" @click=${() => app.act.copy(point.id, "id")}>
            ${show(point.id)}
          </button>
        </dd>
      </div>
      ${entries.map(
        ([name, value]) =>
          html`<div>
            <dt dir="auto">${short(show(name), 40)}</dt>
            <dd dir="auto">${short(plain(value), 600)}</dd>
          </div>`,
      )}
    </dl>
  </section>`;
}

/** What the lasso caught. @param {App} app */
function setView(app) {
  const set = /** @type {NonNullable<App["ui"]["set"]>} */ (app.ui.set);
  const points = set.shown.flatMap((/** @type {number} */ key) => app.points.byKey.get(key) ?? []);
  return html`<article class="inspector" aria-label="Points caught">
    <header>
      <h2>${counted(set.keys.length, "point")} caught</h2>
      <p class="numbers-line">
        radius ${fixed(set.min)} – ${fixed(set.max)}
        <button class="icon small close" aria-label="Close the set" @click=${() => app.act.dropSet()}>×</button>
      </p>
    </header>
    <p class="actions"><button class="button quiet" @click=${() => app.act.exportSet()}>Save as CSV</button></p>
    <ul class="rows">
      ${points.map((/** @type {any} */ point) => row(app, point, fixed(point.radius)))}
    </ul>
    ${
      set.keys.length > points.length
        ? html`<p class="hint">The ${points.length} most general are listed.</p>`
        : nothing
    }
  </article>`;
}
