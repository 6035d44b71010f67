/** Labels and taxonomies as people write them, and the path down a tree of probabilities. */

/** @typedef {{labels: string[], edges: null} | {labels: null, edges: [string, string][]}} Classes */

/**
 * Read labels (a line each, or with commas), edges [child, parent] or {"parent": [children]} in JSON, or indented
 * lines.
 * @param {string} text @returns {Classes}
 * @throws {Error} with what is wrong
 */
export function readClasses(text) {
  const trimmed = text.trim();
  if (!trimmed) throw new Error("Write labels, one a line, or a taxonomy as indented lines.");
  if (trimmed.startsWith("[") || trimmed.startsWith("{")) return fromJson(trimmed);
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  const isIndented = lines.some((line) => /^\s/.test(line));
  if (isIndented) return fromIndented(lines);
  const labels = (lines.length === 1 ? lines[0].split(",") : lines).map((line) => line.trim()).filter(Boolean);
  return { labels: [...new Set(labels)], edges: null };
}

/** @param {string} text @returns {Classes} */
function fromJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${/** @type {Error} */ (error).message}`);
  }
  if (Array.isArray(value) && value.every((each) => typeof each === "string")) {
    return { labels: [...new Set(value)], edges: null };
  }
  const isEdge = (/** @type {any} */ each) =>
    Array.isArray(each) && each.length === 2 && each.every((n) => typeof n === "string");
  if (Array.isArray(value) && value.every(isEdge)) return { labels: null, edges: value };
  if (!Array.isArray(value)) {
    const edges = Object.entries(value).flatMap(([parent, children]) =>
      Array.isArray(children) ? children.map((child) => /** @type {[string, string]} */ ([String(child), parent])) : [],
    );
    if (edges.length) return { labels: null, edges };
  }
  throw new Error('JSON is a list of labels, of edges ["child", "parent"], or {"parent": ["child"]}.');
}

/** @param {string[]} lines @returns {Classes} */
function fromIndented(lines) {
  /** @type {{depth: number, name: string}[]} */
  const above = [];
  /** @type {[string, string][]} */
  const edges = [];
  for (const line of lines) {
    const depth = line.match(/^\s*/)?.[0].replaceAll("\t", "    ").length ?? 0;
    const name = line.trim();
    while (above.length && above[above.length - 1].depth >= depth) above.pop();
    const parent = above.at(-1);
    if (parent) edges.push([name, parent.name]);
    above.push({ depth, name });
  }
  if (!edges.length) throw new Error("Of indented lines, some must stand below others.");
  return { labels: null, edges };
}

/**
 * @typedef {{name: string, mass: number, children: Node[]}} Node
 */

/**
 * The tree of a taxonomy with the probability of every node: that of the leaves below it, on shortest paths from a
 * root.
 * @param {[string, string][]} edges @param {Record<string, number>} scores of the leaves @returns {Node[]} the roots
 */
export function massTree(edges, scores) {
  /** @type {Map<string, string[]>} */
  const children = new Map();
  const nodes = new Set(edges.flat());
  const hasParent = new Set(edges.map(([child]) => child));
  for (const [child, parent] of edges) {
    if (!children.has(parent)) children.set(parent, []);
    const listed = /** @type {string[]} */ (children.get(parent));
    if (!listed.includes(child)) listed.push(child);
  }
  const made = new Map(
    [...nodes].map((name) => [name, { name, mass: scores[name] ?? 0, children: /** @type {Node[]} */ ([]) }]),
  );
  const roots = [...nodes].filter((name) => !hasParent.has(name));
  const order = [...roots];
  const seen = new Set(roots);
  const parents = new Map();
  for (let i = 0; i < order.length; i++) {
    for (const child of children.get(order[i]) ?? []) {
      if (seen.has(child)) continue;
      seen.add(child);
      parents.set(child, order[i]);
      order.push(child);
    }
  }
  for (const name of order.reverse()) {
    const node = /** @type {Node} */ (made.get(name));
    node.children.sort((a, b) => b.mass - a.mass);
    const parent = made.get(parents.get(name));
    if (!parent) continue;
    parent.mass += node.mass;
    parent.children.push(node);
  }
  return roots.map((name) => /** @type {Node} */ (made.get(name))).sort((a, b) => b.mass - a.mass);
}

/**
 * From a root down to the most probable child, for as long as it is probable enough. @param {Node[]} roots
 * @param {number} least
 */
export function pathDown(roots, least) {
  const path = [];
  for (let below = roots; below.length;) {
    const best = below[0];
    if (best.mass < least) break;
    path.push(best);
    below = best.children;
  }
  return path;
}
