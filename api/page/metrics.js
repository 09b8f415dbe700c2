// Prometheus' text format, as far as the page needs it.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n" };

/** Samples by name: a Map from name to [{labels, value}]; values that are no number are NaN. */
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const sample = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!sample) continue;
    const [, name, labels, value] = sample;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ labels: labelsOf(labels), value: numberOf(value) });
  }
  return found;
}

function labelsOf(text = "") {
  const labels = {};
  for (const [, name, value] of text.matchAll(LABEL)) labels[name] = value.replace(/\\(.)/g, (_, c) => ESCAPES[c] ?? c);
  return labels;
}

function numberOf(text) {
  const infinite = { "+Inf": Infinity, "-Inf": -Infinity }[text];
  return infinite ?? Number(text);
}

/** Sum of the samples of a name whose labels are as given; NaN if there is none. */
export function total(samples, name, labels = {}) {
  const wanted = Object.entries(labels);
  const fit = (samples.get(name) ?? []).filter((sample) => wanted.every(([label, value]) => sample.labels[label] === value));
  return fit.length ? fit.reduce((sum, { value }) => sum + value, 0) : NaN;
}

/**
 * How fast a sum grows, a second, from one look to the next; NaN at first, and where it fell: another worker has taken shards over, or
 * this one has started anew.
 */
export class Rate {
  #last = null;

  of(value, atMs) {
    const last = this.#last;
    this.#last = { value, atMs };
    const rate = last ? ((value - last.value) * 1000) / (atMs - last.atMs) : NaN;
    return rate >= 0 ? rate : NaN;
  }
}
