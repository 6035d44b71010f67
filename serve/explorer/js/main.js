/** Start of the page. */

import { App } from "./app.js";
import { startKeys } from "./keys.js";
import { startTheme } from "./theme.js";

startTheme();
const app = new App(/** @type {HTMLElement} */ (document.getElementById("app")));
startKeys(app);
