// What the worker says of itself: its metrics, every two seconds, as charts.
//
// Flows in: /metrics, and how long it took from a press to the list that knows of it. Flows out: charts, and whether the worker answers.
// Always holds: nobody is asked while the page is hidden.

import { Away, ask, sleep } from "./client.js";
import { Chart, few, POINTS } from "./charts.js";
import { parse, Rate, total } from "./metrics.js";

export const EVERY_MS = 2000;
const AWAY_EVERY_MS = 4000;
/** Scored positives of the window that the hit rates are of, as the metrics name it. */
const WINDOW = "1000";
/** Fewer say little about which is better. */
const ENOUGH = 100;
const ARMS = [
  ["served", "served"],
  ["popularity", "popularity"],
  ["popularity_decayed", "popularity, decayed"],
  ["item_knn", "item neighbours"],
  ["mf", "factorization"],
  ["markov", "what comes next"],
];
const OUTCOMES = ["learned", "ignored", "duplicate", "dead"];

export class Worker {
  #said;
  #figures;
  #charts;
  #rates = OUTCOMES.map(() => new Rate());
  #presses = [];
  #lastPress = NaN;
  #back;

  /** charts: where they go; said: element of the state in words; figures: of sizes; back: called when the worker answers again. */
  constructor({ charts, said, figures, back }) {
    this.#said = said;
    this.#figures = figures;
    this.#back = back;
    const spanS = ((POINTS - 1) * EVERY_MS) / 1000;
    this.#charts = {
      events: new Chart({
        title: "Events a second",
        about: "Interactions of this worker's shards, by what became of them.",
        lines: OUTCOMES.map((name) => ({ name })),
        spanS,
        least: 10,
      }),
      freshness: new Chart({
        title: "Freshness, seconds",
        about: "Age of what lists are made of, and from your press to the list that knows of it.",
        lines: [{ name: "age" }, { name: "your press", dots: true }],
        spanS,
        least: 0.5,
      }),
      recall: new Chart({
        title: "Hit rate of ten",
        about: "Share of the latest 1,000 scored positives that a list of ten, made before, had.",
        lines: ARMS.map(([, name]) => ({ name })),
        spanS,
        least: 0.05,
      }),
      index: new Chart({
        title: "Index recall at 100",
        about: "Share of the exact best 100 by the factors that the graph finds.",
        lines: [{ name: "recall" }],
        spanS,
        least: 1,
      }),
      lag: new Chart({
        title: "Lag, records",
        about: "In Kafka, and not applied yet. Of evidence, one a shard is the mark of its last commit, and stays.",
        lines: [{ name: "interactions" }, { name: "evidence" }, { name: "other topics" }],
        spanS,
        least: 10,
      }),
    };
    charts.append(...Object.values(this.#charts).map(({ figure }) => figure));
  }

  /** From a press to the list on the screen, in seconds: shown with the next values. */
  pressed(seconds) {
    this.#presses.push(seconds);
  }

  /** Ask for ever. */
  async watch() {
    for (;;) {
      while (document.hidden) await looked();
      const began = performance.now();
      const answers = await this.#look(began);
      await sleep(Math.max(0, (answers ? EVERY_MS : AWAY_EVERY_MS) - (performance.now() - began)));
    }
  }

  async #look(atMs) {
    let samples;
    try {
      samples = parse(await ask("metrics"));
    } catch (error) {
      this.#state(error instanceof Away ? "The worker does not answer. Trying again…" : `No metrics: ${error.message}`, "away");
      this.#draw(new Map(), atMs);
      return false;
    }
    const wasAway = this.#said.dataset.state === "away";
    const shards = total(samples, "headrace_shards");
    this.#state(shards > 0 ? "The worker answers" : "The worker answers; it has no shards yet", "here");
    const [users, videos] = ["headrace_users", "headrace_videos"].map((name) => total(samples, name));
    this.#figures.textContent = `${few(shards)} shards, ${few(users)} users in memory, ${few(videos)} videos`;
    this.#draw(samples, atMs);
    if (wasAway) this.#back();
    return true;
  }

  /** In words; said once, and not again until it changes. */
  #state(text, state) {
    if (this.#said.textContent === text) return;
    this.#said.textContent = text;
    this.#said.dataset.state = state;
  }

  #draw(samples, atMs) {
    const { events, freshness, recall, index, lag } = this.#charts;
    events.add(OUTCOMES.map((outcome, number) => this.#rates[number].of(total(samples, "headrace_events", { outcome }), atMs)));
    const press = this.#presses.splice(0).at(-1) ?? NaN;
    if (Number.isFinite(press)) this.#lastPress = press;
    freshness.add([total(samples, "headrace_state_age_seconds"), press], { words: [undefined, few(this.#lastPress)] });
    this.#drawRecall(recall, samples);
    this.#drawIndex(index, samples);
    const lags = (samples.get("headrace_lag_records") ?? []).map(({ labels }) => labels.topic);
    const of = (names) => (names.length ? names.reduce((sum, topic) => sum + total(samples, "headrace_lag_records", { topic }), 0) : NaN);
    lag.add([of(lags.filter((topic) => topic === "interactions")), of(lags.filter((topic) => topic === "evidence")),
      of(lags.filter((topic) => !["interactions", "evidence"].includes(topic)))]);
  }

  #drawRecall(chart, samples) {
    const scored = total(samples, "headrace_online_scored");
    const rates = ARMS.map(([arm]) => (scored > 0 ? total(samples, "headrace_online_recall", { arm, window: WINDOW }) : NaN));
    const popular = rates[1];
    const words = rates.map((rate, number) => {
      if (!Number.isFinite(rate)) return "–";
      const ratio = popular > 0 && number !== 1 ? ` (${few(rate / popular)} × popularity)` : "";
      return `${rate.toFixed(3)}${ratio}`;
    });
    const note = scored >= ENOUGH ? `n = ${few(Math.min(scored, Number(WINDOW)))}` : `Only ${few(scored || 0)} are scored yet: too few to compare.`;
    chart.add(rates, { words, note: samples.size ? note : "" });
  }

  #drawIndex(chart, samples) {
    const [rows, waiting] = ["headrace_index_rows", "headrace_index_waiting_rows"].map((name) => total(samples, name));
    const graph = `${few(rows)} videos in the graph, ${few(waiting)} to be put in anew.`;
    const recall = total(samples, "headrace_index_recall_ratio");
    const note = rows === 0 ? "No graph: so few videos are searched exactly, and nothing is missed." : graph;
    chart.add([recall], { words: Number.isFinite(recall) ? [recall.toFixed(4)] : [], note: samples.size ? note : "" });
  }
}

function looked() {
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}
