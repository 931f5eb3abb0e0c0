// What the page knows: the operator, the nodes, and whether news still arrives. Views subscribe; nothing here draws.
//
// The truth comes in two ways: one read of /api/v1/nodes after every (re)connect, and the stream of changes after it.

import { setHubClock } from "./dom.js";

/** An answer of the hub that says no: code, message and action, as everywhere in Holdfast. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.message);
    this.status = status;
    this.code = body.code;
    this.action = body.action ?? "";
  }
}

/** Calls the operator API; answers its JSON, or null where there is none. Throws a Problem. */
export async function api(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem(0, { code: "hub-unreachable", message: "The hub does not answer.", action: "Check the link to the hub; this page goes on trying." });
  }
  const date = response.headers.get("date");
  if (date && !store.streamed) setHubClock(date);
  const text = await response.text();
  let json = null;
  try {
    json = text ? JSON.parse(text) : null;
  } catch {
    // Not JSON: a proxy's page, mostly; the status says enough.
  }
  if (response.ok) return json;
  if (response.status === 401 && store.who) store.loggedOut();
  throw new Problem(response.status, json?.code ? json : {
    code: `http-${response.status}`, message: `The hub answered ${response.status} to ${method} ${path}.`, action: "See the hub's log of this moment.",
  });
}

// How long the stream may be silent before it counts as broken: the hub says something every 10 seconds.
const SILENCE_MS = 25_000;

class Store {
  who = null;
  nodes = new Map();
  loaded = false;
  streamed = false;
  lastNews = 0;
  link = "connecting";
  onLogout = () => {};
  #listeners = new Set();
  #source = null;
  #retry = 0;
  #timer = 0;
  #pending = 0;

  get admin() {
    return this.who?.role === "admin";
  }

  /** Calls `listener` soon after changes, once for many of them; answers the way to stop that. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #changed() {
    if (this.#pending) return;
    this.#pending = setTimeout(() => {
      this.#pending = 0;
      for (const listener of [...this.#listeners]) listener();
    }, 30);
  }

  async logIn(bearerToken) {
    await api("POST", "api/v1/session", { bearerToken });
    return this.resume();
  }

  /** Takes up a session that the browser still has a cookie of; throws a Problem if there is none. */
  async resume() {
    this.who = await api("GET", "api/v1/whoami");
    this.#connect();
  }

  async logOut() {
    await api("DELETE", "api/v1/session").catch(() => {});
    this.loggedOut();
  }

  loggedOut() {
    this.#close();
    clearTimeout(this.#timer);
    this.who = null;
    this.nodes.clear();
    this.loaded = false;
    this.onLogout();
  }

  #close() {
    this.#source?.close();
    this.#source = null;
  }

  #connect() {
    this.#close();
    clearTimeout(this.#timer);
    const source = new EventSource("api/v1/stream");
    this.#source = source;
    source.onopen = () => this.#opened();
    source.onerror = () => this.#broken();
    source.addEventListener("tick", (event) => {
      const { now } = JSON.parse(event.data);
      this.streamed = true;
      setHubClock(now);
      this.#news();
    });
    source.addEventListener("node", (event) => {
      const node = JSON.parse(event.data);
      this.nodes.set(node.id, node);
      this.#news();
    });
    source.addEventListener("node-deleted", (event) => {
      this.nodes.delete(JSON.parse(event.data).id);
      this.#news();
    });
    this.#watch();
  }

  #watch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#broken(), SILENCE_MS);
  }

  async #opened() {
    try {
      await this.reload();
      this.#retry = 0;
    } catch {
      this.#broken();
    }
  }

  /** Reads all nodes again. */
  async reload() {
    const nodes = await api("GET", "api/v1/nodes");
    this.nodes = new Map(nodes.map((node) => [node.id, node]));
    this.loaded = true;
    this.#news();
  }

  #news() {
    this.link = "live";
    this.lastNews = Date.now();
    this.#watch();
    this.#changed();
  }

  /** Looks at once whether the stream still lives, where it has been silent. */
  wake() {
    if (this.who && Date.now() - this.lastNews > SILENCE_MS / 2) {
      this.#retry = 0;
      this.#connect();
    }
  }

  #broken() {
    if (!this.who) return;
    this.#close();
    this.link = "reconnecting";
    this.#changed();
    // Full jitter, at most half a minute: many pages must not come back in step when a hub returns.
    const wait = Math.random() * Math.min(30_000, 1000 * 2 ** this.#retry) + 250;
    this.#retry += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(async () => {
      try {
        // The stream cannot say why it was refused; this can, and a session that is over leads to the log-in.
        await api("GET", "api/v1/whoami");
        if (this.who) this.#connect();
      } catch {
        this.#broken();
      }
    }, wait);
  }
}

export const store = new Store();
