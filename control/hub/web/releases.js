// Releases: what can run, on which nodes it should, and how far they are.

import { age, badge, bytes, command, empty, h, moment, problemBox } from "./dom.js";
import { line } from "./fleet.js";
import { STATES, byWorst, stateOf } from "./state.js";
import { Problem, api, store } from "./store.js";

export function releases(_query, { notice }) {
  const list = h("div", { class: "list" }, h("p", { class: "quiet" }, "Loading…"));
  const element = h("div", {}, h("h1", { tabindex: -1 }, "Releases"), list);
  let known = null;

  function draw() {
    if (!known) return;
    list.replaceChildren(...(known.length === 0 ? [empty("No releases yet", "A release is a set of apps under a name; it never changes. Make one from a directory of Kubernetes manifests, and give it to nodes:",
      "holdfastctl release create hello-1 -f examples/hello", "holdfastctl release assign hello-1 --selector site=berlin --wait")] : known.map(row)));
  }

  async function load() {
    try {
      known = await api("GET", "api/v1/releases");
      known.sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
      draw();
    } catch (error) {
      list.replaceChildren();
      notice(error);
    }
  }
  load();
  return { element, title: "Releases", dispose: store.subscribe(draw) };
}

const nodesOf = (name) => [...store.nodes.values()].filter((node) => node.release === name);

function row(release) {
  return h("a", { class: "item", href: `#/releases/${encodeURIComponent(release.name)}` },
    h("span", { class: "name" }, release.name),
    h("span", { class: "apps-of" }, release.apps.map((app) => h("span", { class: "chip" }, app))),
    h("span", { class: "counts" }, counts(nodesOf(release.name))),
    h("span", { class: "quiet" }, "by ", release.createdBy, ", ", age(release.createdAt)));
}

function counts(nodes) {
  if (nodes.length === 0) return h("span", { class: "quiet" }, "on no node");
  return STATES.map(([state, word]) => [state, word, nodes.filter((node) => stateOf(node) === state).length])
    .filter(([, , count]) => count).map(([state, word, count]) => badge(state, `${count} ${word.toLowerCase()}`));
}

export function release(name, { notice }) {
  const body = h("div", { class: "detail" }, h("p", { class: "quiet" }, "Loading…"));
  const element = h("div", {}, h("nav", { class: "crumbs", "aria-label": "Path" }, h("a", { href: "#/releases" }, "Releases"), " / ", name), h("h1", { tabindex: -1 }, name), body);
  const nodes = h("div", { class: "nodes" });

  function draw() {
    const on = nodesOf(name).sort(byWorst);
    nodes.replaceChildren(...(on.length ? on.slice(0, 200).map(line) : [h("p", { class: "quiet" }, "On no node yet."), command(`holdfastctl release assign ${name} --node NODE --wait`)]));
  }

  async function load() {
    try {
      const info = await api("GET", `api/v1/releases/${encodeURIComponent(name)}`);
      // What is not there would be shown as the word `null`.
      body.replaceChildren(...[
        h("p", { class: "quiet" }, "Made by ", info.createdBy, ", ", moment(info.createdAt), " · ", h("code", { class: "digest" }, info.digest)),
        h("section", { class: "card" }, h("h2", {}, "Nodes"), nodes),
        store.admin ? assign(name, notice) : null,
        info.content?.os ? system(info.content.os) : null,
        h("section", { class: "card" }, h("h2", {}, "Apps"), h("ul", { class: "apps" }, (info.content?.apps ?? []).map(app))),
        h("section", { class: "card" }, h("h2", {}, "As the hub keeps it"), h("details", {}, h("summary", {}, "JSON"), h("pre", {}, JSON.stringify(info.content, null, 2)))),
      ].filter(Boolean));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      body.replaceChildren(problemBox(error));
    }
  }

  draw();
  load();
  return { element, title: name, dispose: store.subscribe(draw) };
}

/** The operating system that the release wants. */
function system(os) {
  return h("section", { class: "card" }, h("h2", {}, "Operating system"),
    h("p", {}, h("b", {}, os.version), " for ", Object.keys(os.images).join(" and "),
      os.maxBytesPerSecond ? h("span", { class: "quiet" }, `, fetched with at most ${bytes(os.maxBytesPerSecond)} a second`) : null));
}

function app(item) {
  const sources = item.manifests.flatMap((source) => source.inline
    ? source.inline.map((object) => `${object.kind} ${object.metadata?.namespace ? `${object.metadata.namespace}/` : ""}${object.metadata?.name ?? ""}`)
    : [`${source.blob.size.toLocaleString()} bytes of manifests, ${source.blob.digest.slice(0, 19)}…`]);
  return h("li", {}, h("span", { class: "name" }, item.name), item.namespace ? h("span", { class: "quiet" }, `in ${item.namespace}`) : null,
    h("div", { class: "why" }, sources.map((source) => h("span", { class: "chip" }, source))));
}

function assign(name, notice) {
  const selector = h("input", { name: "selector", placeholder: "site=berlin,tier!=test", autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  const names = h("input", { name: "nodes", placeholder: "shop-17 shop-18", autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  const answer = h("p", { class: "quiet", role: "status" });
  return h("section", { class: "card" }, h("h2", {}, "Assign to nodes"),
    h("form", { class: "fields", onsubmit: async (event) => {
      event.preventDefault();
      const nodes = names.value.split(/[\s,]+/).filter(Boolean);
      if (!nodes.length && !selector.value.trim()) {
        answer.textContent = "Name nodes, or give a label selector.";
        return;
      }
      try {
        const done = await api("POST", `api/v1/releases/${encodeURIComponent(name)}/assign`, { nodes, selector: selector.value.trim() || null });
        const count = Object.keys(done.generations).length;
        answer.textContent = `Sent to ${count} ${count === 1 ? "node" : "nodes"}.`;
        await store.reload();
      } catch (error) {
        notice(error);
      }
    } },
    h("label", {}, "Nodes by name", names), h("label", {}, "Nodes by label", selector), h("div", { class: "buttons" }, h("button", { class: "primary" }, "Assign"), answer)));
}

