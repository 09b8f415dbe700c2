// Requests to the worker that serves this page.
//
// Flows in: a path and perhaps a body. Flows out: what was answered; a `Problem` that says in words why it was not what was asked for, or
// `Away` where nobody answers. Always holds: the key goes to this worker only, and is kept no longer than the tab.

const KEY = "headrace-key";
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;

/** An answer that is not what was asked for; its message is for people (RFC 9457, `detail`). */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  /** Whether the same request may be met soon: state is being recovered, a gateway finds nobody, or it was too often. */
  get passes() {
    return [429, 502, 503, 504].includes(this.status);
  }
}

/** Nobody answers. */
export class Away extends Error {
  constructor() {
    super("the worker does not answer");
  }
}

export function key() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function useKey(text) {
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

/** Ask once. Throws Problem, Away, or what `signal` was aborted with. */
export async function ask(path, { body, signal } = {}) {
  const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
  const request = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    Object.assign(request, { method: "POST", body: JSON.stringify(body) });
    headers["Content-Type"] = "application/json";
  }
  let answer, text;
  try {
    answer = await fetch(new URL(path, document.baseURI), request);
    text = await answer.text();
  } catch {
    signal?.throwIfAborted();
    throw new Away();
  }
  if (!answer.ok) throw new Problem(answer.status, detailOf(text) ?? `the worker answers ${answer.status} ${answer.statusText}`);
  return answer.headers.get("Content-Type")?.startsWith("application/json") ? JSON.parse(text) : text;
}

/**
 * Ask until there is an answer, for as long as the worker is away or says that it will have one soon.
 *
 * waiting: told each time why it takes longer; forMs: after so long, the last error is thrown.
 */
export async function askPatiently(path, { body, signal, waiting, forMs = Infinity } = {}) {
  const until = performance.now() + forMs;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    try {
      return await ask(path, { body, signal });
    } catch (error) {
      const passes = error instanceof Away || (error instanceof Problem && error.passes);
      if (!passes || performance.now() + pause > until) throw error;
      waiting?.(error);
      await sleep(pause);
      signal?.throwIfAborted();
    }
  }
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** An id for an event; `crypto.randomUUID` is not there for pages of plain HTTP. */
export function freshId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function detailOf(text) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return undefined;
  }
}
