/** What can be taken away: rows as JSON and CSV, and the question as code. */

import { collectionPath } from "./api.js";
import { hitsRequest, pathRequest, width } from "./requests.js";
import { itemOf, where } from "./state.js";

/**
 * A request, and the call of the client that makes it where that does not follow from the path; whether it is answered
 * in binary.
 * @typedef {{path: string, body?: any, call?: string, isBinary?: boolean}} Asked
 */

const ODD = /[\u007f-\u009f\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** The request behind the view, with the query as it was put. @param {import("./app.js").App} app @returns {Asked} */
export function requestOf(app) {
  const { place } = app.store;
  const { collection } = place;
  const { rule } = app.requests;
  if (place.view === "classify" && app.ui.classified) return { path: "/classify", body: app.ui.classified.request };
  if (place.view === "collections") return { path: "/collections", call: "client.collections()" };
  if (!place.parts.length) return place.view === "grid" ? listingOf(app) : mapOf(collection);
  const isMean = place.parts.length > 1;
  const item = (isMean && app.store.data("item")?.item) || itemOf(place.parts[0]);
  const other = place.other && itemOf(place.other);
  if (place.view === "compare" && other) {
    return {
      path: "/hierarchy/common_ancestors",
      body: { of: [item, other], k: 24, ...where(place), ...width(place, rule) },
    };
  }
  if (place.view === "path") return { ...pathRequest(place, item, other, rule) };
  if (place.view === "focus") {
    return {
      path: "/hierarchy/ancestors",
      body: { of: item, k: 100, ...where(place), ...width(place, rule) },
    };
  }
  const asked = hitsRequest(place, item, { k: app.requests.page, offset: 0 }, rule);
  return { ...asked, ...(isMean && { call: meanCall(place, asked) }) };
}

/** A call for a mean, which says what it is of. @param {import("./state.js").Place} place @param {Asked} asked */
function meanCall({ parts, collection }, { path, body }) {
  const weights = parts.map((part) => part.weight);
  const mean = `client.mean(${python(parts.map(itemOf))}, ${python(weights)}, ${written(collection)})`;
  return callOf(...METHODS[path], body, `{"embedding": ${mean}.embedding}`);
}

/** @param {import("./app.js").App} app @returns {Asked} */
function listingOf(app) {
  const { collection, filter, ...conditions } = where(app.store.place);
  const asked = { order: "radius", k: app.requests.page, ...conditions, ...(filter && { filter }) };
  const text = Object.entries(asked).map(([name, value]) => [name, name === "filter" ? written(value) : String(value)]);
  const call = `client.points(${named({ ...asked, collection })})`;
  return { path: collectionPath(collection, `/points?${new URLSearchParams(text)}`), call };
}

/** @param {string} collection @returns {Asked} */
const mapOf = (collection) => ({
  path: collectionPath(collection, "/map"),
  call: `client.map(${written(collection)})`,
  isBinary: true,
});

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
function curlOf({ path, body, isBinary }, api) {
  const quote = (/** @type {string} */ text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
  const lines = [`curl -s ${quote(api.base + path.slice(1))}`];
  if (isBinary) lines.push("--output answer.bin");
  if (api.key) lines.push('-H "Authorization: Bearer $HYPCLIP_KEY"');
  if (body !== undefined) lines.push("-H 'Content-Type: application/json'", `-d ${quote(written(body))}`);
  return lines.join(" \\\n  ");
}

/** @type {Record<string, [string, string]>} the method of the client, and the field that comes first */
const METHODS = {
  "/retrieve": ["retrieve", "query"],
  "/hierarchy/ancestors": ["ancestors", "of"],
  "/hierarchy/descendants": ["descendants", "of"],
  "/hierarchy/common_ancestors": ["common_ancestors", "of"],
  "/hierarchy/traverse": ["traverse", "source"],
  "/classify": ["classify", "inputs"],
};

/** @param {Asked} asked @param {import("./api.js").Api} api */
function pythonOf({ path, body, call }, api) {
  const key = api.key ? ', api_key=os.environ["HYPCLIP_KEY"]' : "";
  const imports = `${api.key ? "import os\n\n" : ""}from hypclip.client import Client\n`;
  const found = call ?? callOf(...METHODS[path], body);
  return `${imports}\nwith Client(${written(api.base)}${key}) as client:\n    found = ${found}\n    print(found)\n`;
}

/** @param {string} method @param {string} first @param {any} body @param {string} item as Python has it */
function callOf(method, first, body, item = python(body[first])) {
  const { [first]: _, ...rest } = body;
  const more = named(rest);
  return `client.${method}(${item}${more && ", "}${more})`;
}

/** Named arguments of a call. @param {Record<string, any>} given */
function named(given) {
  const entries = Object.entries(given).filter(([, value]) => value !== undefined);
  return entries.map(([name, value]) => `${name}=${python(value)}`).join(", ");
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
