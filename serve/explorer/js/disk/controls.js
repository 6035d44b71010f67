/** What lies over the disk: buttons, hint and tooltip. Built node by node: no HTML is ever parsed. */

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  home: "M4 11 12 4l8 7M6.5 9.5V20h11V9.5",
  closer: "M12 5v14M5 12h14",
  wider: "M5 12h14",
  lasso: "M5 14c-3-4 1-9 8-9s9 6 4 9-13 1-10 4 4 2 3 3",
  trueScale: "M3 12a9 9 0 1 0 18 0 9 9 0 1 0-18 0M10.5 12a1.5 1.5 0 1 0 3 0 1.5 1.5 0 1 0-3 0",
  thumbnails: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01",
};

/**
 * @typedef {{trueScale: boolean, thumbnails: boolean, thumbnailSize: number, labels: boolean}} Options
 * @typedef {object} Actions
 * @property {() => void} home
 * @property {(factor: number) => void} zoom
 * @property {() => void} lasso
 * @property {(options: Partial<Options>) => void} set
 */

/**
 * @param {string} tag
 * @param {string} className
 * @param {string} [text]
 */
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** The controls of one disk. */
export class Controls {
  /**
   * @param {HTMLElement} host
   * @param {Actions} actions
   * @param {Options} options
   */
  constructor(host, actions, options) {
    this.bar = element("div", "disk-controls");
    this.bar.setAttribute("role", "group");
    this.bar.setAttribute("aria-label", "Disk");
    this.#button("home", "Back to the whole disk (0)", actions.home);
    this.#button("closer", "Zoom in (+)", () => actions.zoom(1.4));
    this.#button("wider", "Zoom out (-)", () => actions.zoom(1 / 1.4));
    this.lasso = this.#button("lasso", "Lasso: select points by drawing round them (or Shift-drag)", actions.lasso);
    this.trueScale = this.#button("trueScale", "True scale: the literal Poincaré disk", () =>
      actions.set({ trueScale: this.trueScale.getAttribute("aria-pressed") !== "true" }));
    this.thumbnails = this.#button("thumbnails", "Images on the disk", () =>
      actions.set({ thumbnails: this.thumbnails.getAttribute("aria-pressed") !== "true" }));
    this.size = /** @type {HTMLInputElement} */ (element("input", ""));
    Object.assign(this.size, { type: "range", min: "32", max: "112", step: "8", title: "Size of the images" });
    this.size.setAttribute("aria-label", "Size of the images");
    this.size.addEventListener("input", () => actions.set({ thumbnailSize: Number(this.size.value) }));
    this.bar.append(this.size);
    this.hint = element("p", "disk-hint");
    this.tooltip = element("div", "disk-tooltip");
    this.tooltip.hidden = true;
    this.spoken = element("div", "disk-unseen");
    this.spoken.setAttribute("aria-live", "polite");
    this.parts = [this.hint, this.bar, this.tooltip, this.spoken];
    host.append(...this.parts);
    this.show(options, false);
  }

  /**
   * Show the state of the switches.
   * @param {Options} options
   * @param {boolean} lassoing
   */
  show(options, lassoing) {
    this.lasso.setAttribute("aria-pressed", String(lassoing));
    this.trueScale.setAttribute("aria-pressed", String(options.trueScale));
    this.thumbnails.setAttribute("aria-pressed", String(options.thumbnails));
    this.size.hidden = !options.thumbnails;
    this.size.value = String(options.thumbnailSize);
  }

  /**
   * Say what is not plain to see.
   * @param {import("./layout.js").Layout} layout
   * @param {boolean} lassoing
   */
  explain(layout, lassoing) {
    const hints = [];
    if (lassoing) hints.push("Draw round points; the line closes by itself. Escape leaves.");
    if (layout.twoFoci) hints.push("Rings: distance d to the first point. Dotted: distance d\u2082 to the second.");
    if (layout.trueScale) hints.push("True scale: the literal Poincaré disk, whose rim is infinitely far away.");
    this.hint.textContent = hints.join(" ");
  }

  /**
   * Show a tooltip beside a place, or hide it.
   * @param {{x: number, y: number, caption: string, lines: string[], picture: ImageBitmap | null} | null} shown
   * @param {{width: number, height: number}} frame
   */
  tip(shown, frame) {
    this.tooltip.hidden = !shown;
    if (!shown) return;
    const { caption, lines, picture } = shown;
    /** @type {HTMLElement[]} */
    const parts = [element("strong", "", caption), ...lines.map((line) => element("span", "", line))];
    if (picture) {
      const canvas = /** @type {HTMLCanvasElement} */ (element("canvas", ""));
      [canvas.width, canvas.height] = [picture.width, picture.height];
      canvas.getContext("2d")?.drawImage(picture, 0, 0);
      parts.unshift(canvas);
    }
    this.tooltip.replaceChildren(...parts);
    const [width, height] = [this.tooltip.offsetWidth, this.tooltip.offsetHeight];
    const x = shown.x + 16 + width < frame.width ? shown.x + 16 : Math.max(4, shown.x - 16 - width);
    const y = Math.max(4, Math.min(frame.height - height - 4, shown.y - height / 2));
    this.tooltip.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  }

  /**
   * Announce a text.
   * @param {string} text
   */
  say(text) {
    this.spoken.textContent = text;
  }

  close() {
    for (const part of this.parts) part.remove();
  }

  /**
   * @param {keyof typeof ICONS} icon
   * @param {string} title
   * @param {() => void} act
   */
  #button(icon, title, act) {
    const button = /** @type {HTMLButtonElement} */ (element("button", ""));
    button.type = "button";
    button.title = title;
    button.setAttribute("aria-label", title);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", ICONS[icon]);
    svg.append(path);
    button.append(svg);
    button.addEventListener("click", act);
    this.bar.append(button);
    return button;
  }
}
