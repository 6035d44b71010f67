/** What can be taken away: rows as JSON and CSV, and the question as code. */

import { collectionPath } from "./api.js";
import { hitsRequest, pathRequest, width } from "./requests.js";
import { itemOf, where } from "./state.js";

/** @typedef {{method: string, path: string, body?: any}} Asked */

const ODD = /[\u007f-\u009f\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** The request behind the view, with the query as it was put. @param {import("./app.js").App} app @returns {Asked} */
export function requestOf(app) {
  const { place } = app.store;
  const { collection } = place;
  const { rule } = app.requests;
  if (place.view === "classify" && app.ui.classified)
    return { method: "POST", path: "/classify", body: app.ui.classified.request };
  if (place.view === "collections") return { method: "GET", path: "/collections" };
  if (!place.parts.length) {
    return {
      method: "GET",
      path:
        place.view === "grid" ? collectionPath(collection, "/points?order=radius&k=48") : collectionPath(collection),
    };
  }
  const item =
    place.parts.length === 1 ? itemOf(place.parts[0]) : (app.store.data("item")?.item ?? itemOf(place.parts[0]));
  const other = place.other && itemOf(place.other);
  if (place.view === "compare" && other) {
    return {
      method: "POST",
      path: "/hierarchy/common_ancestors",
      body: { of: [item, other], k: 24, ...where(place), ...width(place, rule) },
    };
  }
  if (place.view === "path") return { method: "POST", ...pathRequest(place, item, other, rule) };
  if (place.view === "focus") {
    return {
      method: "POST",
      path: "/hierarchy/ancestors",
      body: { of: item, k: 100, ...where(place), ...width(place, rule) },
    };
  }
  return { method: "POST", ...hitsRequest(place, item, { k: app.requests.page, offset: 0 }, rule) };
}

/**
 * JSON in which no character hides or turns others; it is a literal of Python too, but for three words.
 * @param {any} value
 */
const written = (value) =>
  JSON.stringify(value).replace(ODD, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** @param {"curl" | "python"} language @param {Asked} asked @param {import("./api.js").Api} api */
export function codeOf(language, asked, api) {
  return language === "curl" ? curlOf(asked, api) : pythonOf(asked, api);
}

/** @param {Asked} asked @param {import("./api.js").Api} api */
function curlOf({ method, path, body }, api) {
  const quote = (/** @type {string} */ text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
  const lines = [`curl -s ${quote(api.base + path.slice(1))}`];
  if (method !== "GET" && method !== "POST") lines.push(`-X ${method}`);
  if (api.key) lines.push('-H "Authorization: Bearer $HYPCLIP_KEY"');
  if (body !== undefined) lines.push("-H 'Content-Type: application/json'", `-d ${quote(written(body))}`);
  return lines.join(" \\\n  ");
}

/** @type {Record<string, [string, string | null]>} the method of the client, and the field that comes first */
const METHODS = {
  "/retrieve": ["retrieve", "query"],
  "/hierarchy/ancestors": ["ancestors", "of"],
  "/hierarchy/descendants": ["descendants", "of"],
  "/hierarchy/common_ancestors": ["common_ancestors", "of"],
  "/hierarchy/traverse": ["traverse", "source"],
  "/classify": ["classify", "inputs"],
};

/** @param {Asked} asked @param {import("./api.js").Api} api */
function pythonOf({ path, body }, api) {
  const [method, first] = METHODS[path] ?? ["", null];
  const found = first
    ? `client.${method}(${argumentsOf(first, body)})`
    : path === "/collections"
      ? "client.collections()"
      : `client.collection(${written(decodeURIComponent(path.split("/")[2]))})`;
  const kind = api.key
    ? `Client(${written(api.base)}, api_key=os.environ["HYPCLIP_KEY"])`
    : `Client(${written(api.base)})`;
  const imports = `${api.key ? "import os\n\n" : ""}from hypclip.client import Client\n`;
  return `${imports}\nwith ${kind} as client:\n    found = ${found}\n    print(found)\n`;
}

/** @param {string} first @param {any} body */
function argumentsOf(first, body) {
  const { [first]: item, ...rest } = body;
  const named = Object.entries(rest)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${python(value)}`);
  return [python(item), ...named].join(", ");
}

/** A value as Python writes it. @param {any} value @returns {string} */
function python(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value)
      .map(([name, each]) => `${written(name)}: ${python(each)}`)
      .join(", ")}}`;
  }
  return written(value);
}

/** The rows of the view. @param {import("./app.js").App} app @returns {Record<string, any>[]} */
export function tableOf(app) {
  const { store } = app;
  switch (store.place.view) {
    case "grid":
      return store.place.parts.length ? (store.data("hits")?.hits ?? []) : (store.data("listing")?.points ?? []);
    case "path":
      return store.data("path")?.path ?? [];
    case "compare":
      return store.data("compare")?.common.hits ?? [];
    case "classify":
      return Object.entries(app.ui.classified?.scores ?? {}).map(([label, probability]) => ({ label, probability }));
    case "collections":
      return store.data("collections") ?? [];
    default:
      return columnRows(store.place.view === "focus" ? store.data("focus") : store.data("map"));
  }
}

/** @param {any} columns @returns {Record<string, any>[]} */
function columnRows(columns) {
  if (!columns) return [];
  const names = columns.header.columns.map((/** @type {any} */ column) => column.name);
  return Array.from(columns.key, (_, i) =>
    Object.fromEntries(names.map((/** @type {string} */ name) => [name, columns[name][i]])),
  );
}

/** @param {Record<string, any>[]} rows */
export function csvOf(rows) {
  const names = [...new Set(rows.flatMap(Object.keys))];
  return [names, ...rows.map((row) => names.map((name) => row[name]))]
    .map((line) => line.map(cell).join(","))
    .join("\r\n");
}

/** A cell that no spreadsheet takes for a formula. @param {any} value */
function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Have the browser save something. @param {string} name @param {Blob} blob */
export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
