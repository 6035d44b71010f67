/** What the page shows, as the address bar has it: everything that a link can share. */

/**
 * @typedef {"near" | "above" | "below"} Verb
 * @typedef {"map" | "focus" | "grid" | "path" | "compare" | "classify" | "collections"} View
 * @typedef {{kind: "text", text: string} | {kind: "id", id: string}
 *   | {kind: "vector", embedding: number[], modality: "image" | "embedding", name?: string, url?: string}
 *   | {kind: "root"}} Thing
 * @typedef {Thing & {weight: number}} Part
 * @typedef {{values: (string | number | boolean | null)[]} | {gte?: number, lte?: number}} FieldFilter
 * @typedef {{
 *   collection: string, view: View, parts: Part[], verb: Verb, other: Thing | null, selected: string | null,
 *   modality: string | null, min: number | null, max: number | null, fields: Record<string, FieldFilter>,
 *   width: number | null, sort: "margin" | "distance" | "radius",
 *   exact: boolean, everyStop: boolean, entailed: boolean,
 * }} Place
 */

/** @type {View[]} */
export const VIEWS = ["map", "focus", "grid", "path", "compare", "classify", "collections"];
/** @type {Verb[]} */
export const VERBS = ["near", "above", "below"];
const SORTS = ["margin", "distance", "radius"];
const MODALITIES = ["text", "image", "embedding"];

/** @returns {Place} */
export function start(collection = "default") {
  return {
    collection,
    view: "map",
    parts: [],
    verb: "near",
    other: null,
    selected: null,
    modality: null,
    min: null,
    max: null,
    fields: {},
    width: null,
    sort: "margin",
    exact: false,
    everyStop: false,
    entailed: true,
  };
}

/** The condition on stored points, as requests have it. @param {Place} place @returns {Record<string, any>} */
export function where(place) {
  /** @type {Record<string, any>} */
  const asked = { collection: place.collection };
  if (place.modality) asked.modality = place.modality;
  if (place.min !== null) asked.min_radius = place.min;
  if (place.max !== null) asked.max_radius = place.max;
  const filter = fieldFilter(place);
  if (filter) asked.filter = filter;
  return asked;
}

/** @param {Place} place @returns {Record<string, any> | null} */
export function fieldFilter(place) {
  const entries = Object.entries(place.fields).map(([name, f]) => [name, "values" in f ? f.values : f]);
  return entries.length ? Object.fromEntries(entries) : null;
}

/** An item as requests take it. @param {Thing} thing @returns {any} */
export function itemOf(thing) {
  switch (thing.kind) {
    case "text":
      return { text: thing.text };
    case "id":
      return { id: thing.id };
    case "vector":
      return { embedding: thing.embedding };
    default:
      return { root: true };
  }
}

/** @param {Thing | null | undefined} a @param {Thing | null | undefined} b */
export const same = (a, b) => !!a && !!b && JSON.stringify(itemOf(a)) === JSON.stringify(itemOf(b));

/** The address of a place, from # on. @param {Place} place @returns {string} */
export function toHash(place) {
  /** @type {[string, string][]} */
  const found = [];
  const put = (/** @type {string} */ name, /** @type {string} */ value) => found.push([name, value]);
  for (const part of place.parts) put("of", thingToText(part));
  if (place.parts.some((part) => part.weight !== 1)) put("w", place.parts.map((part) => part.weight).join(","));
  if (place.verb !== "near") put("verb", place.verb);
  if (place.other) put("with", thingToText(place.other));
  if (place.selected !== null) put("sel", place.selected);
  if (place.modality) put("m", place.modality);
  if (place.min !== null || place.max !== null) put("r", `${place.min ?? ""}-${place.max ?? ""}`);
  for (const [name, filter] of Object.entries(place.fields)) {
    if ("values" in filter) for (const value of filter.values) put(`f.${name}`, valueToText(value));
    else put(`n.${name}`, `${filter.gte ?? ""}..${filter.lte ?? ""}`);
  }
  if (place.width !== null) put("eta", String(place.width));
  if (place.sort !== "margin") put("sort", place.sort);
  if (place.exact) put("exact", "1");
  if (place.everyStop) put("steps", "all");
  if (!place.entailed) put("entailment", "0");
  const query = found.map(([name, value]) => `${encode(name)}=${encode(value)}`).join("&");
  return `#/${encode(place.collection)}/${place.view}${query ? `?${query}` : ""}`;
}

/** The place of an address; what cannot be read is left out. @param {string} hash @returns {Place} */
export function fromHash(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [collection, view] = path.split("/").map(decode);
  const place = start(collection || "default");
  place.view = VIEWS.find((each) => each === view) ?? "map";
  const pairs = query
    .split("&")
    .filter(Boolean)
    .map((pair) => pair.split(/=(.*)/s).slice(0, 2).map(decode));
  for (const [name, value = ""] of pairs) readPair(place, name, value);
  if (!place.parts.length && place.view === "focus") place.view = "map";
  return place;
}

/** @param {Place} place @param {string} name @param {string} value */
function readPair(place, name, value) {
  if (name === "of") {
    const thing = thingFromText(value);
    if (thing) place.parts.push({ ...thing, weight: 1 });
  } else if (name === "w") {
    value.split(",").forEach((each, i) => {
      const part = place.parts[i];
      if (part && Number(each) >= 0) part.weight = Number(each);
    });
  } else if (name === "verb") place.verb = VERBS.find((each) => each === value) ?? "near";
  else if (name === "with") place.other = thingFromText(value);
  else if (name === "sel" && value) place.selected = value;
  else if (name === "m" && MODALITIES.includes(value)) place.modality = value;
  else if (name === "r") [place.min, place.max] = value.split("-").map(numberOf);
  else if (name.startsWith("f.")) {
    const filter = (place.fields[name.slice(2)] ??= { values: [] });
    if ("values" in filter) filter.values.push(valueFromText(value));
  } else if (name.startsWith("n.")) {
    const [gte, lte] = value.split("..").map(numberOf);
    place.fields[name.slice(2)] = { ...(gte !== null && { gte }), ...(lte !== null && { lte }) };
  } else if (name === "eta") place.width = numberOf(value);
  else if (name === "sort" && SORTS.includes(value)) place.sort = /** @type {Place["sort"]} */ (value);
  else if (name === "exact") place.exact = value === "1";
  else if (name === "steps") place.everyStop = value === "all";
  else if (name === "entailment") place.entailed = value !== "0";
}

/** @param {Thing} thing */
function thingToText(thing) {
  switch (thing.kind) {
    case "text":
      return `text:${thing.text}`;
    case "id":
      return `id:${thing.id}`;
    case "vector":
      return `${thing.modality === "image" ? "image" : "vector"}:${vectorToText(thing.embedding)}`;
    default:
      return "root:";
  }
}

/** @param {string} text @returns {Thing | null} */
function thingFromText(text) {
  const [kind, rest = ""] = text.split(/:(.*)/s);
  if (kind === "root") return { kind: "root" };
  if (!rest) return null;
  if (kind === "text") return { kind: "text", text: rest };
  if (kind === "id") return { kind: "id", id: rest };
  const embedding = kind === "image" || kind === "vector" ? vectorFromText(rest) : null;
  return embedding && { kind: "vector", embedding, modality: kind === "image" ? "image" : "embedding" };
}

/** Numbers as float32 in base64url. @param {number[]} vector */
export function vectorToText(vector) {
  const bytes = new Uint8Array(Float32Array.from(vector).buffer);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {string} text @returns {number[] | null} */
export function vectorFromText(text) {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const vector = [...new Float32Array(bytes.buffer)];
    return vector.length && vector.every(Number.isFinite) ? vector : null;
  } catch {
    return null;
  }
}

/** A string as it is, unless it could be taken for a number, true, false or null. @param {any} value */
function valueToText(value) {
  return typeof value === "string" && valueFromText(value) === value ? value : JSON.stringify(value);
}

/** @param {string} text @returns {string | number | boolean | null} */
function valueFromText(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? text : value;
  } catch {
    return text;
  }
}

/** @param {string} text */
const numberOf = (text) => (text === "" || !Number.isFinite(Number(text)) ? null : Number(text));

/** @param {string} text */
const encode = (text) =>
  encodeURIComponent(text.toWellFormed?.() ?? text)
    .replaceAll("%3A", ":")
    .replaceAll("%20", "+");

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}
