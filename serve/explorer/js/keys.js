/** Keys of the whole page. */

import { tabsOf } from "./views/shell.js";

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function startKeys(app) {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.key === "Escape") return escape(app, target);
    if (app.ui.dialog || target.matches("input:not([type=checkbox],[type=range]), textarea, select")) return;
    if (run(app, event.key)) event.preventDefault();
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    addEventListener(name, (event) => app.inputs.drag(/** @type {DragEvent} */ (event)));
  }
  addEventListener("paste", (event) => app.inputs.paste(/** @type {ClipboardEvent} */ (event)));
}

/** @param {App} app @param {HTMLElement} target */
function escape(app, target) {
  if (app.ui.dialog) return;
  if (target.matches("textarea, input")) target.blur();
  else if (app.ui.isChoosing) app.ui.isChoosing = false;
  else if (app.ui.set) app.act.dropSet();
  else if (app.store.place.selected !== null) app.store.go({ selected: null });
}

/** @param {App} app @param {string} key @returns {boolean} whether it is one of the page's */
function run(app, key) {
  const tab = tabsOf(app)[Number(key) - 1];
  if (tab) app.act.view(tab[0]);
  else if (key === "/") document.getElementById("query")?.focus();
  else if (key === "?") app.act.dialog("help-dialog");
  else if (key === "0") app.bridge.disk?.home();
  else if (key === "u") app.act.step("above");
  else if (key === "d") app.act.step("below");
  else if (key === "c") app.act.compareSelected();
  else return false;
  return true;
}
