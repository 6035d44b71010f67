/** What the tooltip says of a point. */

import { ANCESTOR, DESCENDANT, SELF } from "./layout.js";
import { distance } from "./plane.js";

/**
 * Caption, true numbers and picture of a row.
 * @param {import("./picture.js").Scene} scene
 * @param {import("./picture.js").Picture} screen
 * @param {import("./captions.js").Captions} captions
 * @param {number} row
 */
export function tip({ layout }, screen, captions, row) {
  if (!layout) return null;
  const { map, focus } = layout;
  const key = map.key[row];
  const [x, y] = screen.at(row);
  const modality = map.header.modalities[map.modality[row]];
  const lines = [`r = ${rounded(map.radius[row])} · ${modality}`];
  const member = layout.member(row);
  if (focus && member) {
    const { of, rule, target } = focus.header;
    const { root } = layout;
    const between = distance(root * of.radius, root * member.radius, member.angle) / root;
    lines.push(`distance to the ${target ? "first point" : "focus"} ${rounded(target ? member.radius : between)}`);
    if (rule && !(member.flags & SELF)) {
      const [above, below] = [member.flags & ANCESTOR, member.flags & DESCENDANT];
      lines.push(`${above ? "entails the focus" : "does not entail it"}, margin ${signed(member.above)}`);
      lines.push(`${below ? "entailed by the focus" : "not entailed by it"}, margin ${signed(member.below)}`);
    }
  }
  const picture = modality === "image" ? captions.pictures.get(key) : null;
  return { x, y, caption: captions.text(key) || "…", lines, picture };
}

/** @param {number} value */
function rounded(value) {
  return String(Number(value.toPrecision(3)));
}

/** @param {number} value */
function signed(value) {
  return value < 0 ? `\u2212${rounded(-value)}` : `+${rounded(value)}`;
}
