// The first page: how many nodes are how, and each of them in a line, worst first.

import { age, badge, chips, empty, h, keyed, shape } from "./dom.js";
import { STATES, WORDS, appsLine, byWorst, causeOf, doing, osOf, stateOf } from "./state.js";
import { store } from "./store.js";

// More lines than that help nobody; the search does.
const PAGE = 200;

export function fleet(query) {
  let only = query.get("state");
  let text = query.get("q") ?? "";
  let system = query.get("os") ?? "";
  let limit = PAGE;

  const tiles = h("div", { class: "tiles", role: "group", "aria-label": "Nodes by state" });
  const search = h("input", { type: "search", placeholder: "Name, label, release or OS", "aria-label": "Search nodes", value: text, oninput: () => {
    text = search.value;
    limit = PAGE;
    draw();
  } });
  const summary = h("p", { class: "quiet count", role: "status" });
  const list = h("div", { class: "nodes" });
  const rest = h("button", { type: "button", onclick: () => { limit += PAGE; draw(); } });
  const systems = h("select", { "aria-label": "Operating system", onchange: () => {
    system = systems.value;
    limit = PAGE;
    draw();
  } });
  const bar = h("div", { class: "toolbar" }, search, systems, summary);
  const blank = h("div", {});
  const element = h("div", {}, h("h1", { class: "visually-hidden", tabindex: -1 }, "Fleet"), tiles, bar, blank, list, rest);

  const rows = new Map();
  const tile = keyed(tiles);

  function draw() {
    const all = [...store.nodes.values()].sort(byWorst);
    const counts = Object.fromEntries(STATES.map(([state]) => [state, 0]));
    for (const node of all) counts[stateOf(node)] += 1;
    for (const state of ["healthy", "progressing", "degraded", "offline", "unknown"]) {
      const count = counts[state];
      const pressed = only === state;
      tile(state, [count, pressed], () => state === "unknown" && !count && !pressed ? null
        : h("button", { type: "button", class: `tile ${state}${count ? "" : " none"}`, "aria-pressed": String(pressed), onclick: () => {
          only = pressed ? null : state;
          draw();
        } }, h("span", { class: "number" }, count), h("span", { class: "word" }, shape(state), WORDS[state])));
    }

    drawSystems(all);
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = all.filter((node) => (!only || stateOf(node) === only) && (!system || osOf(node) === system) && words.every((word) => haystack(node).includes(word)));
    const shown = found.slice(0, limit);
    bar.hidden = all.length === 0;
    summary.textContent = found.length === all.length ? `${all.length} ${all.length === 1 ? "node" : "nodes"}` : `${found.length} of ${all.length} nodes`;
    rest.hidden = found.length <= limit;
    rest.textContent = `Show ${Math.min(PAGE, found.length - limit)} more`;
    blank.replaceChildren(...(all.length === 0 && store.loaded ? [empty("No nodes yet",
      "A box joins with a token that works once. Make one, then give it to the box:",
      "holdfastctl token create --name my-first-node", "holdfast enrol TOKEN")]
      : found.length === 0 && store.loaded ? [h("p", { class: "quiet" }, "No node fits. "), h("button", { type: "button", class: "small", onclick: () => {
        only = null;
        text = search.value = "";
        system = "";
        draw();
      } }, "Show all")] : []));

    const wanted = new Set();
    shown.forEach((node, index) => {
      wanted.add(node.id);
      const print = JSON.stringify(node);
      let row = rows.get(node.id);
      if (row?.print !== print) {
        const fresh = { print, element: line(node) };
        if (row) {
          const focused = row.element === document.activeElement;
          row.element.replaceWith(fresh.element);
          if (focused) fresh.element.focus();
        }
        rows.set(node.id, row = fresh);
      }
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
    });
    for (const [id, row] of rows) {
      if (wanted.has(id)) continue;
      row.element.remove();
      rows.delete(id);
    }
  }

  /** The versions that nodes run, with how many do; nothing to choose where no node runs an image. */
  function drawSystems(all) {
    const counts = new Map();
    for (const node of all) if (osOf(node)) counts.set(osOf(node), (counts.get(osOf(node)) ?? 0) + 1);
    // A choice that no node fits any more stays to be seen, and to be taken back.
    if (system && !counts.has(system)) counts.set(system, 0);
    systems.hidden = counts.size === 0;
    const versions = [...counts].sort(([a], [b]) => b.localeCompare(a, undefined, { numeric: true }));
    const print = JSON.stringify([versions, system]);
    if (systems.dataset.print === print) return;
    systems.dataset.print = print;
    systems.replaceChildren(h("option", { value: "" }, "Any operating system"), ...versions.map(([version, count]) => h("option", { value: version }, `${version} (${count})`)));
    systems.value = system;
  }

  draw();
  return { element, title: "Fleet", dispose: store.subscribe(draw) };
}

function haystack(node) {
  return [node.id, node.release ?? "", osOf(node) ?? "", ...Object.entries(node.labels).map(([key, value]) => `${key}=${value}`)].join(" ").toLowerCase();
}

/** One node as a link to its own page. */
export function line(node) {
  const state = stateOf(node);
  const cause = causeOf(node);
  const now = doing(node);
  return h("a", { class: `node ${state}`, href: `#/nodes/${encodeURIComponent(node.id)}` },
    h("span", { class: "who" },
      badge(state, WORDS[state]),
      h("span", { class: "name" }, node.id),
      h("span", { class: "labels" }, chips(node.labels))),
    h("span", { class: "what" },
      h("span", { class: "release" }, node.release ?? h("span", { class: "quiet" }, "no release"), node.release ? h("span", { class: "quiet" }, ` · ${appsLine(node)}`) : null,
        osOf(node) ? h("span", { class: "quiet" }, ` · OS ${osOf(node)}`) : null),
      state === "offline" ? h("span", { class: "line" }, offlineLine(node))
        : cause && state !== "healthy" ? h("span", { class: "line cause" }, cause.message)
          : now ? h("span", { class: "line quiet" }, now) : null),
    h("span", { class: "generation" }, generations(node)),
    h("span", { class: "heard" }, node.lastHeardAt ? age(node.lastHeardAt) : "never heard"));
}

/** The honest line about a node without a link: what is known, how old that is, and what must hold. */
export function offlineLine(node) {
  if (!node.lastHeardAt) return "Enrolled, but never heard of since.";
  return [
    node.proven ? [`Last proven ${node.proven}, `, age(node.lastHeardAt)] : ["Nothing proven; last heard ", age(node.lastHeardAt)],
    node.accepted ? `; must be running generation ${node.accepted}` : "; has no document",
  ];
}

function generations(node) {
  if (!node.wanted) return h("span", { class: "quiet none" }, "–");
  if (node.proven === node.wanted) return [h("span", { class: "proven" }, node.proven), h("span", { class: "quiet" }, " proven")];
  return [h("span", { class: "proven" }, node.proven ?? "none"), h("span", { class: "quiet" }, " proven → "), h("span", { class: "wanted" }, node.wanted), h("span", { class: "quiet" }, " wanted")];
}
