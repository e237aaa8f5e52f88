// What the status page shows: numbers as text, lines, and rows of tables. Whatever a client has named is shown as text.

const SVG = "http://www.w3.org/2000/svg";
const POINTS = 120;
const HEIGHT = 36;

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (number) => whole.format(number);
export const rate = (number) => (number < 100 ? tenths : whole).format(number);

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${(number < 10 && unit ? tenths : whole).format(number)} ${units[unit]}`;
}

export function milliseconds(seconds) {
  return seconds < 1 ? `${(seconds < 0.01 ? tenths : whole).format(seconds * 1000)} ms` : `${tenths.format(seconds)} s`;
}

export function duration(seconds) {
  const rounded = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [Math.floor(rounded / 86400), Math.floor(rounded / 3600) % 24, Math.floor(rounded / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${rounded % 60} s` : `${rounded} s`;
}

/** Make an element with text, or with other elements. */
export function element(name, className = "", ...content) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...content);
  return node;
}

/** What would not be seen, or would turn around what follows; but not the joiners that some scripts and emoji need. */
const UNSEEN = /((?![\u200C\u200D])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}])/u;

/** Make what shows a text that somebody else has chosen: whatever is in it is seen, and changes nothing around it. */
export function isolated(text) {
  const parts = text.split(UNSEEN).map((part, place) => (place % 2 ? element("span", "unseen", codePoint(part)) : part));
  return element("bdi", "", ...parts);
}

const codePoint = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

function drawn(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** One figure, with its line: `add` takes its values, null where there is none. */
export class Figure {
  #values = [];
  #format;
  #value = element("dd", "value", "–");
  #note = element("dd", "note");
  #path = drawn("path", {});

  constructor(label, format) {
    this.#format = format;
    const box = { viewBox: `0 0 ${POINTS - 1} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" };
    const svg = drawn("svg", box);
    svg.append(drawn("line", { x1: 0, x2: POINTS - 1, y1: HEIGHT, y2: HEIGHT }), this.#path);
    this.node = element("div", "figure", element("dt", "", label), this.#value, this.#note, element("dd", "line", svg));
  }

  add(value) {
    this.#values.push(value);
    if (this.#values.length > POINTS) this.#values.shift();
  }

  /** Show what was added last, and `note` below it. */
  show(note) {
    const value = this.#values.at(-1);
    this.#value.textContent = value === null ? "–" : this.#format(value);
    this.#note.textContent = note;
    this.#path.setAttribute("d", this.#line());
  }

  #line() {
    const highest = Math.max(...this.#values.filter((value) => value !== null), Number.EPSILON);
    const first = POINTS - this.#values.length;
    let isDown = false;
    return this.#values.map((value, index) => {
      const command = isDown && value !== null ? "L" : "M";
      isDown = value !== null;
      return isDown ? `${command}${first + index} ${(HEIGHT * (1 - value / highest)).toFixed(1)}` : "";
    }).join("");
  }
}

/** The rows of a table, which stay where they are as long as somebody is at one of them. */
export class Rows {
  #body;
  #make;
  #rows = new Map();

  /** `make(item)` answers `{node, update(item)}`; an item has a `key`. */
  constructor(body, make) {
    this.#body = body;
    this.#make = make;
  }

  show(items) {
    const keys = new Set(items.map((item) => item.key));
    for (const [key, { node }] of this.#rows) {
      if (keys.has(key)) continue;
      if (node.contains(document.activeElement)) this.#body.focus();
      node.remove();
      this.#rows.delete(key);
    }
    const isBusy = this.#body.contains(document.activeElement) || this.#body.matches(":hover");
    items.forEach((item, place) => {
      const row = this.#rows.get(item.key) ?? this.#make(item);
      row.update(item);
      const there = this.#body.children[place] ?? null;
      if (!this.#rows.has(item.key)) this.#body.insertBefore(row.node, isBusy ? null : there);
      else if (!isBusy && row.node !== there) this.#body.insertBefore(row.node, there);
      this.#rows.set(item.key, row);
    });
  }
}

/** Make a cell; on a narrow screen `label` stands before it. */
export function cell(className, label = "") {
  const node = element("td", className);
  node.setAttribute("role", "cell");
  if (label) node.dataset.label = label;
  return node;
}

export function row(...cells) {
  const node = element("tr", "", ...cells);
  node.setAttribute("role", "row");
  return node;
}
