// Line charts of the last minutes, drawn as SVG.
//
// Flows in: a value for each line, now and then. Flows out: a figure with its curves, and the latest values in words beside it, so that
// nobody has to see the curves. Always holds: a chart keeps POINTS values a line at most; a value that is no number leaves a gap.

const SVG = "http://www.w3.org/2000/svg";
export const POINTS = 151;
const HEIGHT = 120;
const LEFT = 46;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 18;
const GRID = 3;

/** A number in few digits. */
export function few(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const digits = size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString("en", { maximumFractionDigits: digits, notation: size >= 1e6 ? "compact" : "standard" });
}

/** The least of 1, 2 or 5 times a power of ten that is not below `value`. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9)) ?? 10 * power;
}

function drawn(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function made(name, attributes, ...children) {
  const node = document.createElement(name);
  Object.assign(node, attributes);
  node.append(...children);
  return node;
}

function dot(number, x, y) {
  return drawn("circle", { class: `dot line-${number}`, cx: x, cy: y, r: 3.5 });
}

export class Chart {
  #lines;
  #span;
  #values;
  #least;
  #svg;
  #summary;
  #note;
  #shown = new Map();

  /**
   * title, about: in words; lines: [{name, dots}], at most six; spanS: seconds that POINTS values last;
   * least: what the axis reaches at least, so that noise about 0 does not fill the chart.
   */
  constructor({ title, about, lines, spanS, least = 1 }) {
    this.#lines = lines;
    this.#span = spanS;
    this.#least = least;
    this.#values = lines.map(() => []);
    const id = `chart-${title.toLowerCase().replaceAll(/\W+/g, "-")}`;
    this.#summary = drawn("title", { id });
    this.#svg = drawn("svg", { role: "img", "aria-labelledby": id, height: HEIGHT });
    this.#note = made("p", { className: "quiet note" });
    const legend = made("ul", { className: "legend" });
    for (const [number, { name, dots }] of lines.entries()) {
      const sample = drawn("svg", { width: 24, height: 9, "aria-hidden": "true" });
      sample.append(dots ? dot(number, 12, 4.5) : drawn("path", { d: "M0 4H24", class: `line line-${number}` }));
      const value = made("b", { textContent: "–" });
      this.#shown.set(name, value);
      legend.append(made("li", {}, sample, ` ${name} `, value));
    }
    this.figure = made("figure", { className: "chart" });
    this.figure.append(
      made("figcaption", {}, made("h3", { textContent: title }), made("p", { className: "quiet", textContent: about })),
      this.#svg,
      legend,
      this.#note,
    );
    this.title = title;
    new ResizeObserver(() => this.draw()).observe(this.figure);
  }

  /** Take one value for each line; `words` beside a value instead of the number, where there are some; `note` below. */
  add(values, { words = [], note = "" } = {}) {
    for (const [number, value] of values.entries()) {
      const kept = this.#values[number];
      kept.push(value);
      if (kept.length > POINTS) kept.shift();
      this.#shown.get(this.#lines[number].name).textContent = words[number] ?? few(value);
    }
    this.#note.textContent = note;
    this.draw();
  }

  draw() {
    const width = this.#svg.clientWidth;
    if (!width) return;
    const known = this.#values.flat().filter(Number.isFinite);
    const most = roundUp(Math.max(this.#least, ...known));
    const x = (place, of) => LEFT + ((POINTS - of + place) / (POINTS - 1)) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (let step = 0; step <= GRID - 1; step++) {
      const value = (most * step) / (GRID - 1);
      parts.push(drawn("path", { class: "grid", d: `M${LEFT} ${y(value)}H${width - RIGHT}` }));
      parts.push(drawn("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, few(value)));
    }
    parts.push(drawn("text", { x: LEFT, y: HEIGHT - 4 }, `${Math.round(this.#span / 60)} min ago`));
    parts.push(drawn("text", { x: width - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, "now"));
    // The first line is the one to look at: it is drawn last, over the others.
    for (let number = this.#lines.length - 1; number >= 0; number--) {
      const values = this.#values[number];
      const points = values.map((value, place) => (Number.isFinite(value) ? [x(place, values.length), y(value)] : null));
      if (this.#lines[number].dots) {
        for (const point of points) {
          if (point) parts.push(dot(number, ...point));
        }
      } else {
        parts.push(drawn("path", { class: `line line-${number}`, d: curve(points) }));
      }
    }
    this.#summary.textContent = `${this.title}. ${this.#inWords()}`;
    this.#svg.replaceChildren(this.#summary, ...parts);
  }

  #inWords() {
    const lines = this.#lines.map(({ name }, number) => {
      const values = this.#values[number].filter(Number.isFinite);
      if (!values.length) return `${name}: nothing known`;
      return `${name}: now ${few(this.#values[number].at(-1))}, from ${few(Math.min(...values))} to ${few(Math.max(...values))}`;
    });
    return lines.join("; ");
  }
}

function curve(points) {
  let path = "";
  for (const [place, point] of points.entries()) {
    if (point) path += `${place && points[place - 1] ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
  }
  return path;
}
