/** The collections of the server, and which of them its model can search. */

import { html, nothing } from "../../vendor/lit-html.js";
import { count, counted, fixed, show } from "../text.js";
import { failure, MODALITY_WORDS, shape } from "./common.js";
import { bars, binsOf } from "./filters.js";

/** @typedef {import("../app.js").App} App */

/** @param {App} app */
export function collectionsView(app) {
  const load = app.store.loads.collections;
  if (load?.status === "failed") return failure(app, load.error, ["collections"]);
  if (!load?.data) return html`<p aria-busy="true">Loading …</p>`;
  if (!load.data.length) {
    return html`<div class="notice">
      <strong>There are no collections yet</strong>
      <p>Embed something into one:</p>
      <pre>python train/embed.py --checkpoint DIR --index DIR --images FOLDER --classes FILE</pre>
    </div>`;
  }
  return html`<ul class="collections">
    ${load.data.map((/** @type {any} */ each) => collection(app, each))}
  </ul>`;
}

/** @param {App} app @param {any} each */
function collection(app, each) {
  const model = app.store.data("model");
  const isAlone = model?.model === null;
  const isOurs = !model || isAlone || (model.model === each.model && model.curv === each.curv && model.dim === each.dim);
  const isHere = app.store.place.collection === each.name;
  const more = app.ui.collections.get(each.name);
  return html`<li class="collection ${isHere ? "selected" : ""}">
    <h2>
      <button class="link" @click=${() => app.act.openCollection(each.name)}>${show(each.name)}</button>
      ${isHere ? html`<small>open</small>` : nothing}
    </h2>
    <p>
      ${counted(each.count, "point")}${
        each.counts
          ? html`:
            ${Object.entries(each.counts)
              .filter(([, n]) => n)
              .map(
                ([name, n]) =>
                  html` <span class="kind"
                    >${shape(name)} ${count(/** @type {number} */ (n))} ${MODALITY_WORDS[name]}</span
                  >`,
              )}`
          : nothing
      }
    </p>
    <dl class="facts">
      <div>
        <dt>model</dt>
        <dd dir="auto">
          ${show(each.model)}
          ${
            isAlone
              ? html`<span class="good">✓ asked by its own points</span>`
              : isOurs
              ? html`<span class="good">✓ this server's</span>`
              : html`<span class="bad">another one: its map only</span>`
          }
        </dd>
      </div>
      <div>
        <dt>space</dt>
        <dd>curvature −${fixed(each.curv, 3)}, ${count(each.dim)} dimensions</dd>
      </div>
      <div>
        <dt>“is a”</dt>
        <dd>by ${ruleWords(each.entailment)}</dd>
      </div>
      <div>
        <dt>search</dt>
        <dd>${each.index ? `by an index, recall ${fixed(each.index.recall, 3)}` : "exact"}</dd>
      </div>
    </dl>
    ${
      more
        ? html`${bars(
              binsOf(more.radius, more.top, () => true),
              () => true,
              more.top,
            )}
            <div class="strip">
              ${more.images.map((/** @type {any} */ t) => html`<img class="thumb in-strip" src=${t.url} alt="" />`)}
            </div>`
        : nothing
    }
  </li>`;
}

/** @param {import("../geometry.js").Rule} rule */
function ruleWords(rule) {
  return rule.form === "plane" ? `half-spaces, threshold ${fixed(rule.threshold, 3)}` : `cones, η ${fixed(rule.eta)}`;
}
