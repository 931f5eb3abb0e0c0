// What was done or tried at the hub, newest first.

import { age, empty, h, moment } from "./dom.js";
import { api } from "./store.js";

export function audit(_query, { notice }) {
  let events = [];
  const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search the audit log", oninput: draw });
  const list = h("div", { class: "list" }, h("p", { class: "quiet" }, "Loading…"));
  const element = h("div", {}, h("h1", { tabindex: -1 }, "Audit"),
    h("div", { class: "toolbar" }, search, h("button", { type: "button", onclick: load }, "Read again")), list);

  function draw() {
    const word = search.value.toLowerCase();
    const found = events.filter((event) => `${event.actor} ${event.action} ${event.subject} ${event.detail}`.toLowerCase().includes(word));
    list.replaceChildren(...(found.length ? found.map(row) : [events.length ? h("p", { class: "quiet" }, "Nothing fits.") : empty("Nothing yet", "Every change and every refused try is written here.", "holdfastctl audit --limit 20")]));
  }

  async function load() {
    try {
      events = await api("GET", "api/v1/audit?limit=500");
      events.sort((a, b) => b.sequence - a.sequence);
      draw();
    } catch (error) {
      list.replaceChildren();
      notice(error);
    }
  }

  load();
  return { element, title: "Audit", dispose: () => {} };
}

function row(event) {
  const refused = event.action.endsWith(".refused");
  return h("div", { class: `item audit${refused ? " refused" : ""}` },
    h("span", { class: "quiet when" }, h("span", { class: "wide" }, moment(event.at)), h("span", { class: "narrow" }, age(event.at))),
    h("span", { class: "name" }, event.action),
    h("span", {}, event.actor, h("span", { class: "quiet" }, " → "), event.subject),
    h("span", { class: "quiet" }, event.detail));
}
