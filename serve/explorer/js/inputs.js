/** What is brought to the page: images and files that are dropped, pasted or picked, and labels. */

import { ApiError, collectionPath } from "./api.js";
import { itemOf } from "./state.js";
import { readClasses } from "./taxonomy.js";
import { count, label } from "./text.js";
import { POINT_TYPE } from "./views/common.js";

const LISTED = 1000;
const MOST_EDGES = 10_000;
/** Of a file of labels; a text field that holds much more stops the page. */
const MOST_CLASSES_BYTES = 4e6;
const [CHILD, PARENT] = ["text", "kind_of"];

/** Whether the metadata of a collection names a taxonomy. @param {import("./app.js").App} app */
export function hasTaxonomy(app) {
  const names = (app.store.data("fields")?.fields ?? []).map((/** @type {any} */ field) => field.name);
  return names.includes(CHILD) && names.includes(PARENT);
}

export class Inputs {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
  }

  get ui() {
    return this.app.ui;
  }

  // Images

  /** @param {any} event */
  pick(event) {
    const [file] = event.target.files;
    if (file) this.useFile(file);
    event.target.value = "";
  }

  /** @param {ClipboardEvent} event */
  paste(event) {
    const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (!file || event.defaultPrevented) return;
    event.preventDefault();
    this.useFile(file);
  }

  /** @param {DragEvent} event */
  drag(event) {
    const types = event.dataTransfer?.types ?? [];
    const isOurs = types.includes(POINT_TYPE);
    if (!types.includes("Files") && !isOurs) return;
    event.preventDefault();
    const isDropping = event.type === "dragover";
    if (this.ui.isDropping !== isDropping) {
      this.ui.isDropping = isDropping;
      this.app.redraw();
    }
    if (event.type !== "drop") return;
    if (isOurs) {
      if (/** @type {HTMLElement} */ (event.target).closest(".query"))
        this.app.act.addPart({ kind: "id", id: event.dataTransfer?.getData(POINT_TYPE) ?? "" });
      return;
    }
    const { files } = /** @type {DataTransfer} */ (event.dataTransfer);
    if (!files.length) return;
    if (/\.(txt|json)$/i.test(files[0].name)) this.#classesFrom(files[0]);
    else this.useFile(files[0], files.length);
  }

  /**
   * Embed an image and search with its point; the image itself stays in this page.
   * @param {File} file @param {number} dropped how many there were, of which this is the first
   */
  async useFile(file, dropped = 1) {
    const form = new FormData();
    form.append("image", file, "image");
    this.ui.queryError = null;
    this.app.act.toast(
      dropped > 1
        ? `One image is taken at a time: embedding the first of ${count(dropped)} …`
        : "Embedding the image …",
    );
    try {
      if (!(await isReadable(file))) {
        throw new ApiError(422, "invalid_image", `“${file.name}” cannot be read. Drop an image, not a folder.`);
      }
      const response = await this.app.api.send({ method: "POST", path: "/embed", form });
      const [{ embedding }] = (await response.json()).data;
      const view =
        this.app.store.place.view === "map" || this.app.store.place.view === "collections"
          ? "focus"
          : this.app.store.place.view;
      this.app.act.query(
        { kind: "vector", embedding, modality: "image", name: file.name, url: URL.createObjectURL(file) },
        view,
      );
    } catch (error) {
      this.ui.queryError = /** @type {ApiError} */ (error);
      this.app.redraw();
    }
  }

  // Classes

  /** @param {any} event */
  openClasses(event) {
    const [file] = event.target.files;
    if (file) this.#classesFrom(file);
    event.target.value = "";
  }

  /** @param {File} file */
  async #classesFrom(file) {
    const { ui } = this;
    ui.classesError = "";
    if (file.size > MOST_CLASSES_BYTES) {
      ui.classesError = `“${file.name}” is too large for labels or a taxonomy: over ${MOST_CLASSES_BYTES / 1e6} MB.`;
    } else if (await isReadable(file)) ui.classes = await file.text();
    else ui.classesError = `“${file.name}” cannot be read.`;
    this.app.store.go({ view: "classify" });
  }

  async labelsFromCollection() {
    const words = new Set();
    try {
      const path = collectionPath(this.app.store.place.collection, "/points?order=radius&k=200&modality=text");
      for (const point of (await this.app.api.json("GET", path)).points) words.add(label(point));
      this.ui.classes = [...words].join("\n");
    } catch (error) {
      this.ui.classifyError = /** @type {ApiError} */ (error);
    }
    this.app.redraw();
  }

  /** The taxonomy that the texts of the collection name: `text` below `kind_of`, as train/embed.py writes them. */
  async taxonomyFromCollection() {
    /** @type {[string, string][]} */
    const edges = [];
    try {
      let after = null;
      do {
        const asked = new URLSearchParams({ k: String(LISTED), modality: "text", ...(after !== null && { after }) });
        const path = collectionPath(this.app.store.place.collection, `/points?${asked}`);
        const page = await this.app.api.json("GET", path);
        for (const { metadata } of page.points) {
          if (metadata[CHILD] && metadata[PARENT]) edges.push([String(metadata[CHILD]), String(metadata[PARENT])]);
        }
        after = page.next;
      } while (after !== null && edges.length < MOST_EDGES);
      this.ui.classes = JSON.stringify(edges).replaceAll("],[", "],\n[");
      this.ui.template = "{}"; // as the texts are stored
    } catch (error) {
      this.ui.classifyError = /** @type {ApiError} */ (error);
    }
    this.app.redraw();
  }

  async runClassify() {
    const { ui, app } = this;
    Object.assign(ui, { classesError: "", classifyError: null });
    try {
      const { labels, edges } = readClasses(ui.classes);
      const { parts, collection } = this.app.store.place;
      const inputs = [parts.length === 1 ? itemOf(parts[0]) : resolved(this.app.store)];
      const body = { inputs, ...(edges ? { taxonomy: edges } : { labels }), templates: [ui.template], collection };
      ui.isClassifying = true;
      app.redraw();
      const { data } = await app.api.json("POST", "/classify", body);
      ui.classified = { edges, scores: data[0].scores, request: body };
    } catch (error) {
      if (error instanceof ApiError) ui.classifyError = error;
      else ui.classesError = /** @type {Error} */ (error).message;
    } finally {
      ui.isClassifying = false;
      app.redraw();
    }
  }
}

/** Whether the bytes of a file can be had, which those of a folder cannot. @param {File} file */
async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/** @param {import("./store.js").Store} store */
function resolved(store) {
  const item = store.data("item")?.item;
  if (!item) throw new Error("The query is not there yet; try again in a moment.");
  return item;
}
