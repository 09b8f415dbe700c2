// The live page: a list for somebody, what they do with it, and the list anew.
//
// Flows in: what is typed and pressed. Flows out: events, and the list that knows of them. Always holds: the list on the screen is the
// answer to the latest question; an older answer that comes late is dropped.

import { ask, askPatiently, freshId, key, Problem, useKey } from "./client.js";
import { Entries, titleOf } from "./entries.js";
import { Worker } from "./worker.js";

const N = 10;
const FOUND = 10;
const TYPING_PAUSE_MS = 200;
/** Of a session and of what is left out, as many as the worker takes and as fit into a URL. */
const MOST_SESSION = 20;
const MOST_SKIPPED = 50;
/** An event that the worker could not take for so long is given up, in words. */
const PATIENCE_MS = 30_000;
/** Times that an answer is asked for anew because it does not know of what was pressed; each waits a second. */
const LOOKS = 5;

const ACTIONS = { watch: "Watch", like: "Like", skip: "Skip" };
const DONE = { watch: "watched", like: "liked", skip: "skipped" };
const SOURCES = {
  owner: "from what is known of them",
  session: "from what was just watched",
  trending: "nothing is known of them: what is watched now",
  standby: "from what another worker had written of them",
  replica: "another worker knows them: from the videos alone",
};

const at = (id) => document.getElementById(id);

const state = {
  mode: "user",
  user: "",
  /** Videos of the anonymous session, the latest last. */
  session: [],
  /** Ids that were skipped, by whom; the worker learns from a skip, and may list the video again. */
  skipped: new Map(),
  recommendationId: null,
  /** Who the list on the screen is for, and whether it is still to come. */
  shownFor: null,
  fresh: true,
  asking: null,
};

const list = new Entries(at("list"), ACTIONS, (video, action) => press(video, action, list));
const found = new Entries(at("found"), ACTIONS, (video, action) => press(video, action, found));
const worker = new Worker({ charts: at("charts"), said: at("connection"), figures: at("figures"), back: () => begin() });

function who() {
  return state.mode === "session" ? "session" : `user ${state.user}`;
}

function skippedBy(whom) {
  if (!state.skipped.has(whom)) state.skipped.set(whom, []);
  return state.skipped.get(whom);
}

/** Ask for the list and show it. `said` begins the sentence on what has changed; `beganMs` is when it was pressed. */
async function show({ minOffset = 0, said = "", beganMs = null } = {}) {
  if (state.mode === "user" && !state.user) return;
  state.asking?.abort();
  const asking = (state.asking = new AbortController());
  const whom = who();
  if (state.shownFor !== whom) clear(whom);
  at("list").setAttribute("aria-busy", "true");
  try {
    const answer = await answerFor(minOffset, asking.signal);
    put(answer, { said, beganMs, late: state.mode === "user" && answer.source !== "replica" && answer.offset < minOffset });
  } catch (error) {
    if (asking.signal.aborted) return;
    say(`No list: ${error.message}.`, { bad: true });
  }
  if (state.asking === asking) at("list").removeAttribute("aria-busy");
}

/** Take away what is somebody else's: a press would be counted for the wrong one. */
function clear(whom) {
  state.shownFor = whom;
  state.fresh = true;
  list.show([]);
  at("about").textContent = "";
  at("list-title").textContent = state.mode === "session" ? "List for nobody known" : `List for ${state.user}`;
}

async function answerFor(minOffset, signal) {
  const asked = new URLSearchParams({ n: N });
  if (state.mode === "user") asked.set("user_id", state.user);
  else for (const { video_id } of state.session) asked.append("session", video_id);
  for (const id of skippedBy(who())) asked.append("exclude", id);
  if (minOffset) {
    asked.set("min_offset", minOffset);
    asked.set("wait_ms", 1000);
  }
  for (let look = 1; ; look++) {
    const answer = await askPatiently(`v1/recommend?${asked}`, { signal, waiting });
    if (answer.offset >= minOffset || answer.source === "replica" || look === LOOKS) return answer;
  }
}

function put(answer, { said, beganMs, late }) {
  const same = !state.fresh;
  state.fresh = false;
  state.recommendationId = answer.recommendation_id;
  list.offer(state.mode === "session" ? ["watch", "skip"] : Object.keys(ACTIONS));
  const titles = new Map(list.videos.map((video) => [video.video_id, titleOf(video)]));
  const { added, gone, moved } = list.show(answer.items, { compare: same });
  for (const video of list.videos) titles.set(video.video_id, titleOf(video));
  const time = new Date(answer.as_of_ms).toLocaleTimeString();
  at("about").textContent = `${SOURCES[answer.source] ?? answer.source}; as of ${answer.as_of_ms ? time : "an unknown time"}`;
  const seconds = beganMs === null ? null : (performance.now() - beganMs) / 1000;
  if (seconds !== null && !late) worker.pressed(seconds);
  const words = [said];
  if (late) words.push("The worker has not learned it yet: the list does not know of it.");
  else if (seconds !== null) words.push(`The list knew of it after ${Math.round(seconds * 1000)} ms:`);
  words.push(same ? changesOf({ added, gone, moved }) : `${answer.items.length} videos.`);
  const name = (ids) => ids.map((id) => titles.get(id)).join(", ");
  const heard = same ? [added.length && `New: ${name(added)}.`, gone.length && `Gone: ${name(gone)}.`] : [];
  say(words.filter(Boolean).join(" "), { heard: heard.filter(Boolean).join(" ") });
}

function changesOf({ added, gone, moved }) {
  const counted = [[added, "new"], [gone, "gone"], [moved, "moved"]].filter(([ids]) => ids.length);
  return counted.length ? `${counted.map(([ids, word]) => `${ids.length} ${word}`).join(", ")}.` : "the same as before.";
}

/** Say why it takes longer. */
function waiting(error) {
  say(`${error.message}. Trying again…`, { bad: true });
}

/** Say something, on the screen and aloud; `heard` is for those who do not see the list: its entries say it too. */
function say(text, { bad = false, heard = "" } = {}) {
  const aloud = Object.assign(document.createElement("span"), { className: "unseen", textContent: ` ${heard}` });
  // The same again would be read out again.
  if (at("said").textContent !== text + aloud.textContent) at("said").replaceChildren(text, aloud);
  at("said").classList.toggle("bad", bad);
}

async function press(video, action, from) {
  const beganMs = performance.now();
  const whom = who();
  const said = `${DONE[action][0].toUpperCase()}${DONE[action].slice(1)}: ${titleOf(video)}.`;
  if (state.mode === "user" && !state.user) {
    found.note(video.video_id, "choose a user first");
    at("user").focus();
    return;
  }
  if (video.pending) return;
  video.pending = true;
  from.busy(video.video_id, true);
  try {
    const minOffset = state.mode === "session" ? 0 : await send(video, action, from);
    if (action === "skip") state.skipped.set(whom, [...skippedBy(whom).filter((id) => id !== video.video_id), video.video_id].slice(-MOST_SKIPPED));
    else if (state.mode === "session") watched(video);
    for (const entries of [list, found]) entries.note(video.video_id, DONE[action]);
    if (who() === whom) await show({ minOffset, said, beganMs });
  } catch (error) {
    say(`Not taken: ${error.message}.`, { bad: true });
  } finally {
    video.pending = false;
    for (const entries of [list, found]) entries.busy(video.video_id, false);
  }
}

/** Send what was done; the offset from which on a list knows of it. */
async function send(video, action, from) {
  const event = { event_id: freshId(), user_id: state.user, video_id: video.video_id, event: action, at_ms: Date.now() };
  if (action === "watch" && video.duration_seconds > 0) {
    event.watch_seconds = event.duration_seconds = video.duration_seconds;
  }
  if (from === list && state.recommendationId) event.recommendation_id = state.recommendationId;
  // Its id makes sending it twice the same as once.
  const { offsets } = await askPatiently("v1/events", { body: event, waiting, forMs: PATIENCE_MS });
  return Math.max(...Object.values(offsets));
}

function watched(video) {
  state.session = [...state.session.filter(({ video_id }) => video_id !== video.video_id), video].slice(-MOST_SESSION);
  drawSession();
}

function drawSession() {
  at("session-none").hidden = state.session.length > 0;
  at("session").replaceChildren(
    ...state.session.map((video) => {
      const chip = document.createElement("li");
      const forget = document.createElement("button");
      Object.assign(forget, { type: "button", textContent: "Forget" });
      forget.setAttribute("aria-label", `Forget ${titleOf(video)}`);
      forget.addEventListener("click", () => {
        state.session = state.session.filter((other) => other !== video);
        drawSession();
        at("list-title").focus();
        show({ said: `Forgotten: ${titleOf(video)}.` });
      });
      chip.append(titleOf(video), " ", forget);
      return chip;
    }),
  );
}

async function search() {
  const query = at("query").value.trim();
  search.asking?.abort();
  const asking = (search.asking = new AbortController());
  if (!query) {
    found.show([], { compare: false });
    at("found-said").textContent = "";
    return;
  }
  const later = (error) => (at("found-said").textContent = `${error.message}. Trying again…`);
  try {
    const asked = new URLSearchParams({ query, n: FOUND });
    const { items } = await askPatiently(`v1/videos?${asked}`, { signal: asking.signal, waiting: later });
    found.offer(state.mode === "session" ? ["watch", "skip"] : Object.keys(ACTIONS));
    found.show(items, { compare: false });
    at("found-said").textContent = items.length === FOUND ? `The first ${FOUND} that fit` : `${items.length || "None"} found`;
  } catch (error) {
    if (!asking.signal.aborted) at("found-said").textContent = `No search: ${error.message}.`;
  }
}

/** Some users to pick from; whoever may not see them types one. `how`: to ask once, or patiently. */
async function suggest(how = ask) {
  try {
    const { user_ids } = await how("v1/users?n=50", { waiting });
    at("users").replaceChildren(...user_ids.map((id) => Object.assign(document.createElement("option"), { value: id })));
    return user_ids;
  } catch (error) {
    if (error instanceof Problem && [401, 403].includes(error.status)) at("key-box").open = true;
    return [];
  }
}

function choose(user) {
  state.user = user;
  at("user").value = user;
  history.replaceState(null, "", `#${new URLSearchParams({ user })}`);
  forgetNotes();
  show();
}

/** What is said beside videos of a search is of one person. */
function forgetNotes() {
  for (const { video_id } of found.videos) found.note(video_id, "");
}

function setMode(mode) {
  state.mode = mode;
  at("user-row").hidden = mode !== "user";
  at("session-row").hidden = mode !== "session";
  const names = mode === "session" ? ["watch", "skip"] : Object.keys(ACTIONS);
  found.offer(names);
  list.offer(names);
  forgetNotes();
  show();
}

at("who").addEventListener("submit", (event) => {
  event.preventDefault();
  if (state.mode === "user") choose(at("user").value);
});
for (const radio of document.querySelectorAll("input[name=mode]")) radio.addEventListener("change", () => setMode(radio.value));
at("user").addEventListener("focus", () => suggest());
at("again").addEventListener("click", () => show({ said: "Asked again." }));
at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
at("query").addEventListener("input", () => {
  clearTimeout(search.typing);
  search.typing = setTimeout(search, TYPING_PAUSE_MS);
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("key").value.trim());
  at("key-said").textContent = key() ? "The key is used from now on." : "No key is used.";
  begin();
});

function userOfAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("user");
}

/** Show the list of whom the address names, else of somebody who was here lately. */
async function begin() {
  const users = await suggest(askPatiently);
  if (state.user || state.mode !== "user") show();
  else if (userOfAddress() || users.length) choose(userOfAddress() || users[0]);
  else say("Type the id of a user, known or not.");
}

window.addEventListener("hashchange", () => {
  if (userOfAddress() && userOfAddress() !== state.user) choose(userOfAddress());
});

begin();
worker.watch();
