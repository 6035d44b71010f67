/** Stored points and their thumbnails, asked for together and kept: a screenful is one request. */

import { collectionPath, readHeader } from "./api.js";

/**
 * @typedef {{id: string, key: number, radius: number, modality: string, metadata: Record<string, unknown>,
 *   thumbnail: boolean}} Point
 * @typedef {{url: string, width: number, height: number, blob: Blob}} Thumbnail
 */

const AT_ONCE = 256;
const KEPT_THUMBNAILS = 3000;

export class Points {
  /** @param {import("./api.js").Api} api @param {string} collection @param {() => void} changed */
  constructor(api, collection, changed) {
    this.api = api;
    this.collection = collection;
    this.changed = changed;
    /** @type {Map<number, Point>} */
    this.byKey = new Map();
    /** @type {Map<string, Point>} */
    this.byId = new Map();
    /** @type {Map<string, Thumbnail | null>} null: there is none */
    this.thumbnails = new Map();
    this.keys = new Batch((keys) => this.#lookUp({ keys }));
    this.ids = new Batch((ids) => this.#lookUp({ ids }));
    this.images = new Batch((ids) => this.#fetchThumbnails(ids));
  }

  /** @param {Point} point */
  keep(point) {
    this.byKey.set(point.key, point);
    this.byId.set(point.id, point);
    if (point.thumbnail === false) this.thumbnails.set(point.id, null);
  }

  /** Points of some keys; unknown ones are left out. @param {Iterable<number>} keys @returns {Promise<Point[]>} */
  async ofKeys(keys) {
    const asked = [...keys];
    await this.keys.all(asked.filter((key) => !this.byKey.has(key)));
    return asked.flatMap((key) => this.byKey.get(key) ?? []);
  }

  /** Points of some ids; unknown ones are left out. @param {Iterable<string>} ids @returns {Promise<Point[]>} */
  async ofIds(ids) {
    const asked = [...ids];
    await this.ids.all(asked.filter((id) => !this.byId.has(id)));
    return asked.flatMap((id) => this.byId.get(id) ?? []);
  }

  /**
   * The thumbnail of a point; undefined while it is on its way, null where there is none.
   * @param {string} id @returns {Thumbnail | null | undefined}
   */
  thumbnail(id) {
    const found = this.thumbnails.get(id);
    if (found === undefined) this.images.all([id]).catch(() => {});
    return found;
  }

  /** @param {Iterable<string>} ids @returns {Promise<void>} */
  async loadThumbnails(ids) {
    await this.images.all([...ids].filter((id) => !this.thumbnails.has(id)));
  }

  /** @param {{keys?: number[], ids?: string[]}} body */
  async #lookUp(body) {
    const { points } = await this.api.json("POST", collectionPath(this.collection, "/points/lookup"), body);
    for (const point of points) this.keep(point);
  }

  /** @param {string[]} ids */
  async #fetchThumbnails(ids) {
    const path = collectionPath(this.collection, "/thumbnails");
    try {
      const response = await this.api.send({ method: "POST", path, body: { ids } });
      const buffer = await response.arrayBuffer();
      const { header, start } = readHeader(buffer);
      for (const { id, width, height, offset, length } of header.thumbnails) {
        const blob = new Blob([new Uint8Array(buffer, start + offset, length)], { type: "image/webp" });
        this.thumbnails.set(id, { url: URL.createObjectURL(blob), width, height, blob });
      }
    } finally {
      for (const id of ids) if (!this.thumbnails.has(id)) this.thumbnails.set(id, null);
      this.#forgetOld();
      this.changed();
    }
  }

  #forgetOld() {
    for (const [id, thumbnail] of this.thumbnails) {
      if (this.thumbnails.size <= KEPT_THUMBNAILS) break;
      if (thumbnail) URL.revokeObjectURL(thumbnail.url);
      this.thumbnails.delete(id);
    }
  }

  close() {
    for (const thumbnail of this.thumbnails.values()) if (thumbnail) URL.revokeObjectURL(thumbnail.url);
    this.thumbnails.clear();
  }
}

/** What is asked for one by one within a moment, sent together. @template T */
class Batch {
  /** @param {(all: T[]) => Promise<void>} send */
  constructor(send) {
    this.send = send;
    /** @type {Map<T, Promise<void>>} */
    this.asked = new Map();
    /** @type {T[]} */
    this.waiting = [];
    /** @type {Promise<void> | null} */
    this.next = null;
  }

  /** @param {T[]} wanted @returns {Promise<void>} */
  async all(wanted) {
    await Promise.all(wanted.map((each) => this.#one(each)));
  }

  /** @param {T} each @returns {Promise<void>} */
  #one(each) {
    const known = this.asked.get(each);
    if (known) return known;
    this.waiting.push(each);
    this.next ??= new Promise((resolve) => setTimeout(resolve)).then(() => this.#flush());
    const sent = this.next.finally(() => this.asked.delete(each));
    this.asked.set(each, sent);
    return sent;
  }

  async #flush() {
    const all = this.waiting;
    this.waiting = [];
    this.next = null;
    const parts = [];
    for (let i = 0; i < all.length; i += AT_ONCE) parts.push(all.slice(i, i + AT_ONCE));
    await Promise.all(parts.map((part) => this.send(part)));
  }
}
