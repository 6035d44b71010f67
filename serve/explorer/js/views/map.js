/** The disk: the map of a collection, or the exact view around a focus, with its list twin beside it. */

import { html, nothing } from "../../vendor/lit-html.js";
import { counted, fixed, label } from "../text.js";
import { breadcrumb } from "./path.js";
import { failure, MODALITY_WORDS, row, shape } from "./common.js";

/** @typedef {import("../app.js").App} App */

/** @param {App} app */
export function mapView(app) {
  const { place } = app.store;
  const load = app.store.loads.map;
  const isFocus = place.view === "focus";
  const focus = isFocus ? app.store.loads.focus : null;
  const failed = [
    ["map", load],
    ["item", app.store.loads.item],
    ["focus", focus],
  ].find(([, each]) => /** @type {any} */ (each)?.status === "failed");
  if (load?.status === "done" && load.data.header.count === 0) return empty(app);
  return html`<div class="map-view">
    ${isFocus ? breadcrumb(app) : starters(app)}
    ${failed ? failure(app, /** @type {any} */ (failed[1]).error, [/** @type {string} */ (failed[0])]) : nothing}
    <div class="stage" aria-busy=${!load || load.status === "loading" || focus?.status === "loading"}>
      ${load?.data ? nothing : html`<div class="rings skeleton-rings" aria-hidden="true"><i></i><i></i><i></i></div>`}
      ${app.diskHost}
      ${
        place.parts.length
          ? html`<div class="segments on-stage" role="group" aria-label="Layout">
              <button aria-pressed=${!isFocus} @click=${() => app.store.go({ view: "map" })}>Whole map</button>
              <button aria-pressed=${isFocus} @click=${() => app.store.go({ view: "focus" })}>Focus</button>
            </div>`
          : nothing
      }
    </div>
    ${legend(app, isFocus)} ${twin(app)}
  </div>`;
}

/** @param {App} app @param {boolean} isFocus */
function legend(app, isFocus) {
  const header = app.store.data("map")?.header;
  if (!header) return html`<p class="legend">Loading the map …</p>`;
  const focus = isFocus ? app.store.data("focus")?.header : null;
  return html`<p class="legend">
    ${
      focus
        ? html`<span><i class="swatch ancestor"></i>${counted(focus.counts.ancestors, "ancestor")}</span>
            <span><i class="swatch descendant"></i>${counted(focus.counts.descendants, "descendant")}</span>
            <span>Distances to the root and to the focus, and both regions, are exact.</span>`
        : html`<span>Centre: general. Rim: specific. Angles only group what is alike.</span>`
    }
    ${Object.entries(MODALITY_WORDS)
      .filter(([name]) => header.counts[name])
      .map(([name, word]) => html`<span class="kind">${shape(name)} ${word}</span>`)}
    ${
      header.sampled
        ? html`<span>A sample of ${counted(header.shown, "point")} of ${counted(header.count, "point")}.</span>`
        : nothing
    }
  </p>`;
}

/** The points in sight as a list, for keyboards and screen readers. @param {App} app */
function twin(app) {
  const points = app.ui.twin.flatMap((key) => app.points.byKey.get(key) ?? []);
  return html`<details
    class="twin"
    ?open=${app.ui.isTwinOpen}
    @toggle=${(/** @type {any} */ e) => app.act.openTwin(e.target.open)}
  >
    <summary>Points in sight as a list</summary>
    <ul class="rows" aria-label="Points in sight, most general first">
      ${points.map((point) => row(app, point, fixed(point.radius)))}
    </ul>
  </details>`;
}

/** First questions, made from what the collection holds. @param {App} app */
function starters(app) {
  if (app.store.place.parts.length) return nothing;
  const load = app.store.loads.starters;
  const found = app.store.data("starters");
  if (!found) {
    return html`<p class="starters" aria-busy=${load?.status === "loading"}>
      Click anything to see what it is an instance of.
    </p>`;
  }
  const { words, images } = found;
  const [word] = words;
  const [first, second] = images;
  return html`<div class="starters">
    <p>Try:</p>
    <div>
      ${
        word
          ? html`<button class="chip" @click=${() => app.act.ask([{ kind: "text", text: label(word) }], "below")}>
              below “${label(word)}”
            </button>`
          : nothing
      }
      ${
        first
          ? html`<button class="chip" @click=${() => app.act.ask([{ kind: "id", id: first.id }], "above")}>
              ${thumb(app, first)} above an image
            </button>`
          : nothing
      }
      ${
        first && word
          ? html`<button
              class="chip"
              @click=${() =>
                app.act.ask(
                  [
                    { kind: "id", id: first.id },
                    { kind: "text", text: label(words.at(-1)) },
                  ],
                  "near",
                )}
            >
              ${thumb(app, first)} + “${label(words.at(-1))}”
            </button>`
          : nothing
      }
      ${
        first && second
          ? html`<button
              class="chip"
              @click=${() => app.act.compareTwo({ kind: "id", id: first.id }, { kind: "id", id: second.id })}
            >
              ${thumb(app, first)} ∧ ${thumb(app, second)} in common
            </button>`
          : nothing
      }
    </div>
  </div>`;
}

/** @param {App} app @param {any} point */
function thumb(app, point) {
  const found = app.points.thumbnail(point.id);
  return found ? html`<img class="thumb in-row" src=${found.url} alt=${label(point)} />` : shape(point.modality);
}

/** @param {App} app */
function empty(app) {
  const name = app.store.place.collection;
  return html`<div class="notice">
    <strong>This collection has no points yet</strong>
    <p>Embed images or texts into it from a terminal:</p>
    <pre>python train/embed.py --checkpoint DIR --index DIR --collection ${name} --images FOLDER --classes FILE</pre>
    <p>or write a few here, with a key of scope write:</p>
    <textarea
      rows="4"
      aria-label="Lines of text to add"
      placeholder="one text a line"
      @input=${(/** @type {any} */ e) => {
        app.ui.lines = e.target.value;
      }}
    ></textarea>
    <p class="actions"><button class="button" @click=${() => app.act.addLines()}>Add these lines</button></p>
    ${app.ui.writeError ? failure(app, app.ui.writeError, []) : nothing}
  </div>`;
}
