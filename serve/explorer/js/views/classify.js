/** Which of some labels a thing is; in a taxonomy, how far down the evidence goes. */

import { html, nothing } from "../../vendor/lit-html.js";
import { hasTaxonomy } from "../inputs.js";
import { fixed, short, show } from "../text.js";
import { massTree, pathDown } from "../taxonomy.js";
import { failure } from "./common.js";
import { thingName } from "./query.js";

/** @typedef {import("../app.js").App} App @typedef {import("../taxonomy.js").Node} Node */

const LABELS_SHOWN = 40;
const CHILDREN_SHOWN = 12;

/** @param {App} app */
export function classifyView(app) {
  const { place } = app.store;
  const { ui } = app;
  const name = place.parts.map((part) => thingName(app, part)).join(" + ");
  return html`<div class="classify-view">
    <form
      @submit=${(/** @type {Event} */ e) => {
        e.preventDefault();
        app.inputs.runClassify();
      }}
    >
      <label class="field-label" for="classes"
        >Labels, one a line – or a taxonomy: indented lines, or JSON edges [child, parent]</label
      >
      <textarea
        id="classes"
        rows="7"
        spellcheck="false"
        placeholder=${"animal\n  dog\n  cat\nfood\n  apple"}
        .value=${ui.classes}
        aria-invalid=${!!ui.classesError}
        aria-describedby="classes-error"
        @input=${(/** @type {any} */ e) => {
          ui.classes = e.target.value;
        }}
      ></textarea>
      <p id="classes-error" class="error" role="alert">${ui.classesError}</p>
      <div class="toolbar">
        <label
          >Template
          <input
            type="text"
            .value=${ui.template}
            @change=${(/** @type {any} */ e) => {
              ui.template = e.target.value;
            }}
        /></label>
        <label class="button quiet"
          >Open a file<input
            type="file"
            class="hidden"
            accept=".txt,.json,.yaml,text/plain,application/json"
            @change=${(/** @type {any} */ e) => app.inputs.openClasses(e)}
        /></label>
        <button type="button" class="button quiet" @click=${() => app.inputs.labelsFromCollection()}>
          Words of the collection
        </button>
        ${
          hasTaxonomy(app)
            ? html`<button type="button" class="button quiet" @click=${() => app.inputs.taxonomyFromCollection()}>
                Taxonomy of the collection
              </button>`
            : nothing
        }
        <button class="button" ?disabled=${!place.parts.length}>Classify</button>
      </div>
      ${
        place.parts.length
          ? html`<p class="hint">Classifies <b dir="auto">${short(name, 60)}</b>.</p>`
          : html`<p class="hint">Search for something, or open a point, to classify it.</p>`
      }
    </form>
    ${
      ui.classifyError
        ? failure(app, ui.classifyError, [])
        : ui.isClassifying
          ? html`<p aria-busy="true">Classifying …</p>`
          : nothing
    }
    ${ui.classified ? outcome(app) : nothing}
  </div>`;
}

/** @param {App} app */
function outcome(app) {
  const { edges, scores } = /** @type {NonNullable<App["ui"]["classified"]>} */ (app.ui.classified);
  if (!edges) {
    const sorted = Object.entries(scores).sort(([, a], [, b]) => b - a);
    return html`<ol class="bars">
        ${sorted.slice(0, LABELS_SHOWN).map(([name, p], i) => probability(name, p, i === 0, 0))}
      </ol>
      ${sorted.length > LABELS_SHOWN ? html`<p class="hint">and ${sorted.length - LABELS_SHOWN} more</p>` : nothing}`;
  }
  const roots = app.memo("tree", [edges, scores], () => massTree(edges, scores));
  const path = pathDown(roots, app.ui.least);
  return html`<div class="threshold">
      <label for="least">Go down while at least <output>${fixed(100 * app.ui.least, 0)} %</output> probable</label>
      <input
        id="least"
        type="range"
        min="0"
        max="1"
        step="0.01"
        .value=${String(app.ui.least)}
        @input=${(/** @type {any} */ e) => {
          app.ui.least = Number(e.target.value);
          app.redraw();
        }}
      />
    </div>
    <p class="sentence" aria-live="polite">
      ${
        path.length
          ? path.map((node, i) => html`${i ? " › " : ""}<b dir="auto">${show(node.name)}</b>`)
          : "No root is that probable."
      }
    </p>
    <ul class="bars tree">
      ${branch(roots, new Set(path), 0)}
    </ul>`;
}

/** @param {Node[]} nodes @param {Set<Node>} path @param {number} depth @returns {any} */
function branch(nodes, path, depth) {
  const shown = nodes.slice(0, CHILDREN_SHOWN);
  return html`${shown.map(
    (node) =>
      html`${probability(node.name, node.mass, path.has(node), depth)}
      ${node.children.length && (path.has(node) || depth < 1) ? branch(node.children, path, depth + 1) : nothing}`,
  )}
  ${
    nodes.length > shown.length
      ? html`<li class="hint" .style=${`padding-left:${depth * 20}px`}>and ${nodes.length - shown.length} more</li>`
      : nothing
  }`;
}

/** @param {string} name @param {number} p @param {boolean} isOnPath @param {number} depth */
function probability(name, p, isOnPath, depth) {
  return html`<li class=${isOnPath ? "on-path" : ""} .style=${`padding-left:${depth * 20}px`}>
    <span class="name" dir="auto">${short(show(name), 50)}</span>
    <span class="probability"><i .style=${`width:${(100 * p).toFixed(1)}%`}></i></span>
    <span class="value">${p > 0 && p < 0.001 ? "< 0.1" : fixed(100 * p, 1)} %</span>
  </li>`;
}
