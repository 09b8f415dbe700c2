// Videos on the screen, each with its buttons.
//
// Flows in: videos as the API has them. Flows out: list items, and what was pressed. Always holds: a video that stays keeps its element, so
// that the focus stays with it; text is put in as text, never as markup.

export function titleOf(video) {
  return video.title ?? video.video_id;
}

/** The reasons of an entry as one phrase; a video that they name is named by its title. */
export function reasonsOf(video) {
  const words = (video.reasons ?? []).map(({ text, video_id, title }) => (video_id && title ? text.replace(video_id, () => title) : text));
  return words.join("; ");
}

function element(name, attributes, ...children) {
  const node = document.createElement(name);
  Object.assign(node, attributes);
  node.append(...children);
  return node;
}

export class Entries {
  #list;
  #actions;
  #nodes = new Map();

  /** list: an `ol` or `ul`; actions: {name: label}; pressed: called with the video, the action's name. */
  constructor(list, actions, pressed) {
    this.#list = list;
    this.#actions = actions;
    list.addEventListener("click", ({ target }) => {
      const button = target.closest("button[data-action]");
      const video = button && this.#nodes.get(button.closest("li").dataset.video)?.video;
      if (video) pressed(video, button.dataset.action);
    });
  }

  get videos() {
    return [...this.#nodes.values()].map(({ video }) => video);
  }

  /**
   * Show these videos in this order; returns what changed: {added, gone, moved}.
   *
   * If the focus was in an entry that goes, the one in its place gets it, not one of its buttons: who presses Enter twice must not press
   * another video's.
   */
  show(videos, { compare = true } = {}) {
    const before = [...this.#nodes.keys()];
    const focused = this.#list.contains(document.activeElement) ? document.activeElement : null;
    const held = focused ? before.indexOf(focused.closest("li").dataset.video) : -1;
    const nodes = new Map();
    for (const [place, video] of videos.entries()) {
      const entry = this.#nodes.get(video.video_id) ?? { node: element("li", { tabIndex: -1 }) };
      entry.video = video;
      this.#fill(entry, compare ? movedBy(before.indexOf(video.video_id), place, before.length) : "");
      nodes.set(video.video_id, entry);
    }
    const ids = [...nodes.keys()];
    this.#nodes = nodes;
    this.#list.replaceChildren(...[...nodes.values()].map(({ node }) => node));
    if (focused?.isConnected) focused.focus();
    else if (focused && ids.length) nodes.get(ids[Math.min(held, ids.length - 1)]).node.focus();
    const kept = ids.filter((id) => before.includes(id));
    return {
      added: ids.filter((id) => !before.includes(id)),
      gone: before.filter((id) => !nodes.has(id)),
      moved: kept.filter((id) => before.indexOf(id) !== ids.indexOf(id)),
    };
  }

  /** Say something beside a video, if it is here; nothing takes it away again. */
  note(videoId, text) {
    const entry = this.#nodes.get(videoId);
    if (entry) entry.said.textContent = text;
  }

  busy(videoId, is) {
    const entry = this.#nodes.get(videoId);
    if (entry) entry.node.setAttribute("aria-busy", String(is));
  }

  /** Offer these actions only. */
  offer(names) {
    for (const { buttons } of this.#nodes.values()) {
      for (const [name, button] of Object.entries(buttons)) button.hidden = !names.includes(name);
    }
    this.offered = names;
  }

  #fill(entry, moved) {
    if (!entry.buttons) this.#build(entry);
    const { video, node, parts, buttons } = entry;
    const title = titleOf(video);
    node.dataset.video = video.video_id;
    parts.title.textContent = title;
    parts.id.textContent = video.title ? video.video_id : "";
    parts.moved.textContent = moved;
    parts.moved.hidden = !moved;
    node.classList.toggle("new", moved === "new");
    parts.why.textContent = reasonsOf(video);
    parts.score.textContent = video.score?.toFixed(3) ?? "";
    parts.score.parentNode.hidden = video.score === undefined;
    for (const [name, button] of Object.entries(buttons)) {
      button.setAttribute("aria-label", `${this.#actions[name]} ${title}`);
      button.hidden = this.offered ? !this.offered.includes(name) : false;
    }
  }

  #build(entry) {
    const parts = {
      title: element("span", { className: "name" }),
      id: element("code", { className: "quiet" }),
      moved: element("span", { className: "moved" }),
      why: element("p", { className: "why" }),
      score: element("span"),
    };
    entry.said = element("span", { className: "done" });
    entry.parts = parts;
    entry.buttons = {};
    for (const [name, label] of Object.entries(this.#actions)) {
      entry.buttons[name] = element("button", { type: "button", textContent: label });
      entry.buttons[name].dataset.action = name;
    }
    entry.node.append(
      element("div", { className: "what" }, element("p", {}, parts.title, " ", parts.id, " ", parts.moved, " ", entry.said), parts.why),
      element(
        "span",
        { className: "score quiet", title: "Orders within this list only" },
        element("span", { className: "unseen", textContent: "score " }),
        parts.score,
      ),
      element("div", { className: "do" }, ...Object.values(entry.buttons)),
    );
  }
}

function movedBy(from, to, length) {
  if (!length) return "";
  if (from < 0) return "new";
  if (from === to) return "";
  return from > to ? `up ${from - to}` : `down ${to - from}`;
}
