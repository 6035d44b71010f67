/** The page: header, three columns, and what is said above them. */

import { html, nothing } from "../../vendor/lit-html.js";
import { show } from "../text.js";
import { classifyView } from "./classify.js";
import { collectionsView } from "./collections.js";
import { failure } from "./common.js";
import { compareView } from "./compare.js";
import { dialogs } from "./dialogs.js";
import { filters, isFiltered } from "./filters.js";
import { gridView } from "./grid.js";
import { inspector } from "./inspector.js";
import { mapView } from "./map.js";
import { pathView } from "./path.js";
import { queryBar } from "./query.js";

/** @typedef {import("../app.js").App} App */

/** @type {[string, string, (app: App) => any][]} */
const TABS = [
  ["map", "Map", mapView],
  ["grid", "Grid", gridView],
  ["path", "Path", pathView],
  ["compare", "Compare", compareView],
  ["classify", "Classify", classifyView],
  ["collections", "Collections", collectionsView],
];

/** The views that can be asked for: labels are texts, which a server without a model cannot read. @param {App} app */
export function tabsOf(app) {
  const { data } = app.store.loads.model ?? {};
  return data && data.model === null ? TABS.filter(([name]) => name !== "classify") : TABS;
}

/** @param {App} app */
export function shell(app) {
  const { place } = app.store;
  const tab = place.view === "focus" ? "map" : place.view;
  const view = TABS.find(([name]) => name === tab)?.[2] ?? mapView;
  return html` <a
      class="skip"
      href="#main"
      @click=${(/** @type {Event} */ e) => {
        e.preventDefault();
        document.getElementById("main")?.focus();
      }}
      >To the content</a
    >
    ${header(app)} ${banners(app)}
    <div class="columns ${place.selected !== null || app.ui.set ? "has-selection" : ""}">
      <aside class="left" aria-label="Query and filters">
        ${queryBar(app)}
        ${
          place.view === "collections" || place.view === "classify"
            ? nothing
            : html`<details
                class="filter-box"
                ?open=${app.ui.isWide || app.ui.areFiltersOpen}
                @toggle=${(/** @type {any} */ e) => {
                  app.ui.areFiltersOpen = e.target.open;
                }}
              >
                <summary>Filters${isFiltered(app) ? " ●" : ""}</summary>
                ${filters(app)}
              </details>`
        }
      </aside>
      <main id="main" tabindex="-1" aria-label=${TABS.find(([name]) => name === tab)?.[1] ?? ""}>
        <div
          class="tabs"
          role="tablist"
          aria-label="Views"
          @keydown=${(/** @type {KeyboardEvent} */ e) => tabKeys(app, e)}
        >
          ${tabsOf(app).map(
            ([name, word]) =>
              html`<button
                role="tab"
                id="tab-${name}"
                aria-selected=${tab === name}
                aria-controls="panel"
                tabindex=${tab === name ? 0 : -1}
                @click=${() => app.act.view(name)}
              >
                ${word}
              </button>`,
          )}
        </div>
        <div id="panel" role="tabpanel" aria-labelledby="tab-${tab}">${isMissing(app) ? missing(app) : view(app)}</div>
      </main>
      <aside class="right" aria-label="Inspector">${inspector(app)}</aside>
    </div>
    <div class="hidden" role="status" aria-live="polite">${app.ui.said}</div>
    ${app.ui.toast ? html`<div class="toast">${app.ui.toast}</div>` : nothing} ${dialogs(app)}`;
}

/** @param {App} app @param {KeyboardEvent} event */
function tabKeys(app, event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const tabs = tabsOf(app);
  const at = tabs.findIndex(([name]) => `tab-${name}` === /** @type {HTMLElement} */ (event.target).id);
  if (!step || at < 0) return;
  event.preventDefault();
  event.stopPropagation();
  const [name] = tabs[(at + step + tabs.length) % tabs.length];
  app.act.view(name);
  setTimeout(() => document.getElementById(`tab-${name}`)?.focus());
}

/** @param {App} app */
function header(app) {
  const { place } = app.store;
  const names = (app.store.data("collections") ?? []).map((/** @type {any} */ c) => c.name);
  const listed = names.includes(place.collection) ? names : [...names, place.collection];
  const isDark = document.documentElement.dataset.theme === "dark";
  return html`<header class="top">
    <h1>
      <svg class="logo" viewBox="0 0 24 24" aria-hidden="true">
        <circle cx="12" cy="12" r="10.5"></circle>
        <circle cx="12" cy="12" r="5"></circle>
        <path d="M12 12 20 6M12 12l7.6 6.8"></path>
      </svg>
      hypclip <span>explorer</span>
    </h1>
    <label class="collection-pick"
      ><span class="hidden">Collection</span
      ><select .value=${place.collection} @change=${(/** @type {any} */ e) => app.act.openCollection(e.target.value)}>
        ${listed.map(
          (/** @type {string} */ name) =>
            html`<option value=${name} ?selected=${name === place.collection}>${show(name)}</option>`,
        )}
      </select></label
    >
    <div class="tools">
      ${
        app.api.key
          ? html`<button class="button quiet" @click=${() => app.act.forgetKey()}>Forget key</button>`
          : nothing
      }
      <button class="button quiet" @click=${() => app.act.dialog("export-dialog")}>Export</button>
      <button
        class="icon"
        aria-label=${isDark ? "Light colours" : "Dark colours"}
        title=${isDark ? "Light" : "Dark"}
        @click=${() => app.act.theme()}
      >
        <svg viewBox="0 0 20 20" aria-hidden="true">
          <path d="M10 2.5a7.5 7.5 0 1 0 0 15Z"></path>
          <circle cx="10" cy="10" r="7.5" class="line"></circle>
        </svg>
      </button>
      <button class="icon" aria-label="Help" title="Help (?)" @click=${() => app.act.dialog("help-dialog")}>?</button>
    </div>
  </header>`;
}

/** @param {App} app */
function banners(app) {
  const { waiting, isOffline } = app.ui;
  const { model, collections } = app.store.loads;
  const failed = [model, collections].find((load) => load?.status === "failed");
  const fault = failed?.error.status ? failed.error : null;
  return html`<div class="banners">
    ${
      isOffline
        ? html`<div class="banner" role="alert">
            The server does not answer. What you see stays.
            <button class="button quiet" @click=${() => app.act.retryFailed()}>Try again</button>
          </div>`
        : nothing
    }
    ${
      waiting
        ? html`<div class="banner" role="status">
            <span
              >The server is busy. Asking again in ${Math.max(0, Math.ceil((waiting.until - Date.now()) / 1000))}
              s.</span
            >
            <button class="button quiet" @click=${() => waiting.cancel()}>Cancel</button>
          </div>`
        : nothing
    }
    ${fault ? html`${failure(app, fault, ["model", "collections", "map"])}` : nothing}
  </div>`;
}

/** @param {App} app */
function isMissing({ store }) {
  const all = store.data("collections");
  return (
    store.place.view !== "collections" && all && !all.some((/** @type {any} */ c) => c.name === store.place.collection)
  );
}

/** @param {App} app */
function missing(app) {
  const all = app.store.data("collections");
  return html`<div class="notice">
    <strong>There is no collection “${show(app.store.place.collection)}”</strong> ${
      all.length
        ? html`<p class="actions">
            ${all.map(
              (/** @type {any} */ c) =>
                html`<button class="button quiet" @click=${() => app.act.openCollection(c.name)}>
                  ${show(c.name)}
                </button>`,
            )}
          </p>`
        : html`<p>Nothing is stored here yet. Embed images and texts from a terminal:</p>
            <pre>python train/embed.py --checkpoint DIR --index DIR --images FOLDER --classes FILE</pre>
            <p>or write a few lines of text here, with a key of scope write:</p>
            <textarea
              rows="4"
              aria-label="Lines of text to add"
              placeholder="one text a line"
              @input=${(/** @type {any} */ e) => {
                app.ui.lines = e.target.value;
              }}
            ></textarea>
            <p class="actions"><button class="button" @click=${() => app.act.addLines()}>Add these lines</button></p>
            ${app.ui.writeError ? failure(app, app.ui.writeError, []) : nothing}`
    }
  </div>`;
}
