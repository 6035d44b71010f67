/** Text of others made safe to read, and numbers made short. Nothing here makes markup. */

const SYMBOLS = 0x2400;
const REPLACEMENT = "\u{FFFD}";

/** Names of characters that turn or hide the text around them. */
const HIDDEN = new Map([
  [0x00ad, "⟨SHY⟩"],
  [0x034f, "⟨CGJ⟩"],
  [0x061c, "⟨ALM⟩"],
  [0x180e, "⟨MVS⟩"],
  [0x200b, "⟨ZWSP⟩"],
  [0x200e, "⟨LRM⟩"],
  [0x200f, "⟨RLM⟩"],
  [0x2028, "⟨LSEP⟩"],
  [0x2029, "⟨PSEP⟩"],
  [0x202a, "⟨LRE⟩"],
  [0x202b, "⟨RLE⟩"],
  [0x202c, "⟨PDF⟩"],
  [0x202d, "⟨LRO⟩"],
  [0x202e, "⟨RLO⟩"],
  [0x2060, "⟨WJ⟩"],
  [0x2066, "⟨LRI⟩"],
  [0x2067, "⟨RLI⟩"],
  [0x2068, "⟨FSI⟩"],
  [0x2069, "⟨PDI⟩"],
  [0xfeff, "⟨BOM⟩"],
]);
const ODD = /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/**
 * Text with control and bidirectional characters as symbols, so that it shows what it holds.
 * @param {unknown} value
 * @returns {string}
 */
export function show(value) {
  return String(value)
    .replace(LONE, REPLACEMENT)
    .replace(ODD, (each) => {
      const code = each.charCodeAt(0);
      if (code < 0x20) return String.fromCharCode(SYMBOLS + code);
      if (code === 0x7f) return "\u2421";
      return HIDDEN.get(code) ?? REPLACEMENT;
    });
}

/** @param {string} text @param {number} most */
export function short(text, most = 60) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
}

const NAMES = ["caption", "phrase", "text", "name", "title", "label", "class"];

/**
 * What a point is called: the caption of its metadata, or else its id; of a query its own name.
 * @param {{id: string | null, name?: string, metadata?: Record<string, unknown>}} point
 */
export function label(point) {
  if (point.id === null) return point.name ?? "";
  if (point.id === "[ROOT]" && !Object.keys(point.metadata ?? {}).length) return "root";
  for (const name of NAMES) {
    const value = point.metadata?.[name];
    if (typeof value === "string" && value.trim()) return show(value);
  }
  return show(point.id);
}

/** A point in a sentence. @param {{id: string | null, name?: string, modality?: string | null,
 *   metadata?: Record<string, unknown>}} point */
export const spoken = (point) => `${point.modality === "image" ? "the image " : ""}“${short(label(point), 40)}”`;

/** A value of the metadata on one line. @param {unknown} value */
export function plain(value) {
  return show(typeof value === "string" ? value : JSON.stringify(value));
}

/** @param {number} value @param {number} digits */
export function fixed(value, digits = 2) {
  return Number.isFinite(value) ? value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1") : "–";
}

const COUNTS = new Intl.NumberFormat("en");

/** @param {number} n */
export const count = (n) => COUNTS.format(n);

/** "1 point", "2 points". @param {number} n @param {string} one @param {string} [many] */
export const counted = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** @param {number} radians */
export const degrees = (radians) => `${fixed((radians * 180) / Math.PI, 0)}°`;
