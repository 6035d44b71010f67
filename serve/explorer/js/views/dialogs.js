/** Dialogs: the key that the server asks for, help, and what can be taken away from a view. */

import { html, nothing } from "../../vendor/lit-html.js";

/** @typedef {import("../app.js").App} App */

/** @param {App} app */
export function dialogs(app) {
  return html`${keyDialog(app)} ${helpDialog(app)} ${exportDialog(app)}`;
}

/** Show and hide the dialogs that the page has, after it was drawn. @param {App} app */
export function openDialogs(app) {
  for (const dialog of document.querySelectorAll("dialog")) {
    const isWanted = app.ui.dialog === dialog.id;
    if (isWanted && !dialog.open) dialog.showModal();
    if (!isWanted && dialog.open) dialog.close();
  }
}

/** @param {App} app */
function keyDialog(app) {
  return html`<dialog
    id="key-dialog"
    aria-labelledby="key-title"
    @cancel=${(/** @type {Event} */ e) => {
      e.preventDefault();
      app.act.giveKey(null);
    }}
  >
    <form
      @submit=${(/** @type {any} */ e) => {
        e.preventDefault();
        app.act.giveKey(e.target.querySelector("input").value);
      }}
    >
      <h2 id="key-title">This server asks for a key</h2>
      <p>It is kept in this tab until it is closed, and never becomes part of a link.</p>
      <label class="field-label" for="key">API key</label>
      <input
        id="key"
        type="password"
        autocomplete="off"
        spellcheck="false"
        aria-describedby="key-error"
        aria-invalid=${!!app.ui.keyError}
      />
      <p class="error" id="key-error" role="alert">${app.ui.keyError}</p>
      <p class="actions">
        <button class="button">Use this key</button>
        <button type="button" class="button quiet" @click=${() => app.act.giveKey(null)}>Not now</button>
      </p>
    </form>
  </dialog>`;
}

const KEYS = [
  ["/", "to the query"],
  ["Enter", "search; on a point: make it the query"],
  ["Shift Enter", "add the text to the query"],
  ["← ↑ → ↓", "to the next point in that direction"],
  ["u", "up: to what the selected point is, next on its way to the root"],
  ["d", "down: to its deepest instance"],
  ["c", "compare the selected point with the query"],
  ["0", "the whole disk again"],
  ["1 – 6", "map, grid, path, compare, classify, collections"],
  ["Esc", "close"],
  ["?", "this list"],
];

/** @param {App} app */
function helpDialog(app) {
  return html`<dialog id="help-dialog" aria-labelledby="help-title" @close=${() => app.act.dialog("", "help-dialog")}>
    <h2 id="help-title">How to read this</h2>
    <p>
      Every text and image is a point of hyperbolic space. Its <b>radius</b>, the distance to the root, tells how
      specific it is. A general point has a region, a cone or a half-space, and what lies in the region is an instance
      of it.
    </p>
    <p>
      <b>Map</b>: radii are true, on a scale that spreads them; angles only put together what is alike. <b>Focus</b>:
      the root, the focus and each other point lie in one plane, and distances to root and focus, and both regions, are
      exact.
    </p>
    <table>
      <caption>
        Keys
      </caption>
      <tbody>
        ${KEYS.map(
          ([key, word]) =>
            html`<tr>
              <th scope="row"><kbd>${key}</kbd></th>
              <td>${word}</td>
            </tr>`,
        )}
      </tbody>
    </table>
    <p class="actions">
      <a class="button quiet" href="docs">The interface for programs</a>
      <button class="button" @click=${() => app.act.dialog("")}>Close</button>
    </p>
  </dialog>`;
}

/** @param {App} app */
function exportDialog(app) {
  const isOpen = app.ui.dialog === "export-dialog";
  const { place } = app.store;
  const hasDisk = ["map", "focus", "compare"].includes(place.view);
  return html`<dialog
    id="export-dialog"
    aria-labelledby="export-title"
    @close=${() => app.act.dialog("", "export-dialog")}
  >
    <h2 id="export-title">Take it with you</h2>
    ${
      isOpen
        ? html`<p class="actions">
              <button class="button quiet" @click=${() => app.act.save("json")}>JSON</button>
              <button class="button quiet" @click=${() => app.act.save("csv")}>CSV</button>
              ${hasDisk ? html`<button class="button quiet" @click=${() => app.act.save("png")}>PNG</button>` : nothing}
              <button class="button quiet" @click=${() => app.act.copy(location.href, "link")}>Copy link</button>
            </p>
            ${code(app, "curl", app.act.code("curl"))} ${code(app, "Python", app.act.code("python"))}`
        : nothing
    }
    <p class="actions"><button class="button" @click=${() => app.act.dialog("")}>Close</button></p>
  </dialog>`;
}

/** @param {App} app @param {string} name @param {string} text */
function code(app, name, text) {
  return html`<section>
    <h3>As ${name} <button class="link" @click=${() => app.act.copy(text, name)}>copy</button></h3>
    <pre tabindex="0">${text}</pre>
  </section>`;
}
