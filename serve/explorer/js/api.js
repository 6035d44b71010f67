/** Requests to the server: JSON and binary columns in, errors as one type, waiting where the server says when. */

export class ApiError extends Error {
  /**
   * @param {number} status 0 when there was no answer
   * @param {string} type @param {string} message @param {string} requestId @param {number} retryAfter seconds
   */
  constructor(status, type, message, requestId = "", retryAfter = 0) {
    super(message);
    this.status = status;
    this.type = type;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }
}

/**
 * Where a request is under way again later.
 * @typedef {{until: number, error: ApiError, cancel: () => void}} Waiting
 * @typedef {{header: any, [column: string]: any}} Columns
 * @typedef {{method: string, path: string, body?: any, signal?: AbortSignal, form?: FormData, quiet?: boolean}} Ask
 */

/** @type {Record<string, Uint32ArrayConstructor | Float32ArrayConstructor | Uint8ArrayConstructor>} */
const COLUMN_TYPES = { uint32: Uint32Array, float32: Float32Array, uint8: Uint8Array };
const KEY = "hypclip-key";
const TRIES = 5;

/** @param {ArrayBuffer} buffer @returns {{header: any, start: number}} */
export function readHeader(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  return { header: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))), start: 4 + length };
}

/** Read a body of columns. @param {ArrayBuffer} buffer @returns {Columns} */
export function readColumns(buffer) {
  const { header, start } = readHeader(buffer);
  /** @type {Columns} */
  const columns = { header };
  for (const { name, type, offset, length } of header.columns) {
    columns[name] = new COLUMN_TYPES[type](buffer, start + offset, length);
  }
  return columns;
}

export class Api {
  /** @param {string} base URL of the server, with a slash at the end */
  constructor(base) {
    this.base = base;
    /** @type {() => Promise<boolean>} asks for a key; false when there will be none */
    this.askForKey = async () => false;
    /** @type {(waiting: Waiting | null) => void} */
    this.onWaiting = () => {};
    /** @type {(offline: boolean) => void} */
    this.onOffline = () => {};
    /** @type {Map<string, {etag: string, columns: Columns}>} */
    this.kept = new Map();
  }

  /** @returns {string} */
  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(value) {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  }

  /**
   * @param {string} method @param {string} path @param {any} [body] @param {AbortSignal} [signal]
   * @returns {Promise<any>}
   */
  async json(method, path, body, signal) {
    return (await this.send({ method, path, body, signal })).json();
  }

  /**
   * @param {string} method @param {string} path @param {any} [body] @param {AbortSignal} [signal]
   * @returns {Promise<Columns>}
   */
  async columns(method, path, body, signal) {
    const kept = method === "GET" ? this.kept.get(path) : undefined;
    const response = await this.send({ method, path, body, signal }, kept ? { "if-none-match": kept.etag } : {});
    if (response.status === 304 && kept) return kept.columns;
    const columns = readColumns(await response.arrayBuffer());
    const etag = response.headers.get("etag");
    if (method === "GET" && etag) this.kept.set(path, { etag, columns });
    return columns;
  }

  /**
   * Send until there is an answer: with a key where one is asked for, and again where the server is full.
   * @param {Ask} ask @param {Record<string, string>} headers @returns {Promise<Response>}
   */
  async send(ask, headers = {}) {
    for (let attempt = 1; ; attempt++) {
      const asked = this.key;
      const error = await this.#once(ask, headers);
      if (error instanceof Response) return error;
      if (error.status === 401 && (this.key !== asked || (await this.askForKey()))) continue;
      const isFull = (error.status === 429 || error.status === 503) && error.retryAfter > 0;
      if (!isFull || attempt === TRIES || !(await this.#wait(error, ask.signal))) throw error;
    }
  }

  /** @param {Ask} ask @param {Record<string, string>} extra @returns {Promise<Response | ApiError>} */
  async #once({ method, path, body, form, signal }, extra) {
    /** @type {Record<string, string>} */
    const headers = { ...extra };
    if (this.key) headers.authorization = `Bearer ${this.key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    let response;
    try {
      const content = form ?? (body === undefined ? undefined : JSON.stringify(body));
      response = await fetch(this.base + path.replace(/^\//, ""), { method, headers, body: content, signal });
    } catch (error) {
      if (/** @type {Error} */ (error).name === "AbortError") throw error;
      this.onOffline(true);
      return new ApiError(0, "no_answer", "The server does not answer. What you see stays; try again when it is back.");
    }
    this.onOffline(false);
    if (response.ok || response.status === 304) return response;
    return await refusal(response);
  }

  /**
   * @param {ApiError} error @param {AbortSignal | undefined} signal @returns {Promise<boolean>} whether to try again
   */
  #wait(error, signal) {
    return new Promise((resolve, reject) => {
      const done = (/** @type {boolean} */ again) => {
        clearTimeout(timer);
        this.onWaiting(null);
        resolve(again);
      };
      const timer = setTimeout(done, error.retryAfter * 1000, true);
      signal?.addEventListener("abort", () => {
        clearTimeout(timer);
        this.onWaiting(null);
        reject(signal.reason);
      });
      this.onWaiting({ until: Date.now() + error.retryAfter * 1000, error, cancel: () => done(false) });
    });
  }
}

/** @param {Response} response @returns {Promise<ApiError>} */
async function refusal(response) {
  const wait = Number(response.headers.get("retry-after")) || 0;
  const id = response.headers.get("x-request-id") ?? "";
  try {
    const { error } = await response.json();
    return new ApiError(response.status, String(error.type), String(error.message), String(error.request_id), wait);
  } catch {
    return new ApiError(response.status, "unexpected_answer", `The server answered ${response.status}.`, id, wait);
  }
}

/** Path of a collection. @param {string} name @param {string} [rest] */
export const collectionPath = (name, rest = "") => `/collections/${encodeURIComponent(name)}${rest}`;
