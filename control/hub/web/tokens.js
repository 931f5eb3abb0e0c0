// Enrolment tokens: make one (shown this once), see what became of the others, revoke.

import { age, badge, command, confirm, copy, empty, h, left } from "./dom.js";
import { api, store } from "./store.js";

const SHAPES = { open: ["progressing", "Open"], spent: ["healthy", "Spent"], expired: ["offline", "Expired"], revoked: ["degraded", "Revoked"] };

export function tokens(_query, { notice }) {
  const list = h("div", { class: "list" }, h("p", { class: "quiet" }, "Loading…"));
  const fresh = h("div", { role: "status" });
  const element = h("div", {}, h("h1", { tabindex: -1 }, "Enrolment tokens"),
    store.admin ? form(notice, fresh, load) : h("p", { class: "quiet" }, "You can look, but only an admin can make or revoke tokens."),
    fresh, list);

  async function load() {
    try {
      const known = await api("GET", "api/v1/tokens");
      known.sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
      list.replaceChildren(...(known.length ? known.map(row) : [empty("No tokens yet", "A box joins with a token that works once. Make one above, or in a terminal:", "holdfastctl token create --name my-first-node --ttl 24h")]));
    } catch (error) {
      list.replaceChildren();
      notice(error);
    }
  }

  function row(token) {
    const [state, word] = SHAPES[token.state] ?? ["unknown", token.state];
    return h("div", { class: "item token" },
      h("span", {}, badge(state, word)),
      h("span", { class: "name" }, token.nodeName ?? h("span", { class: "quiet" }, "any name"), " ", Object.entries(token.labels).map(([key, value]) => h("span", { class: "chip" }, h("span", { class: "key" }, `${key}=`), value))),
      h("span", { class: "quiet" },
        token.state === "spent" && token.spentBy ? ["used by ", h("a", { href: `#/nodes/${encodeURIComponent(token.spentBy)}` }, token.spentBy)] : token.state === "open" ? ["ends ", left(token.expiresAt)] : null,
        token.serial ? ` · only serial ${token.serial}` : null),
      h("span", { class: "quiet" }, h("code", {}, token.id), " by ", token.createdBy, ", ", age(token.createdAt)),
      store.admin && token.state === "open" ? h("button", { type: "button", class: "small danger", onclick: async () => {
        if (!await confirm("Revoke this token?", `No box can join with ${token.id} any more.`, "Revoke")) return;
        try {
          await api("DELETE", `api/v1/tokens/${encodeURIComponent(token.id)}`);
        } catch (error) {
          notice(error);
        }
        load();
      } }, "Revoke…") : h("span", {}));
  }

  load();
  // A token is spent when a node appears.
  let count = store.nodes.size;
  const unsubscribe = store.subscribe(() => {
    if (store.nodes.size !== count) {
      count = store.nodes.size;
      load();
    }
  });
  return { element, title: "Tokens", dispose: unsubscribe };
}

function form(notice, fresh, reload) {
  const plain = { autocomplete: "off", autocapitalize: "none", spellcheck: "false" };
  const name = h("input", { name: "name", placeholder: "the box's own", pattern: "[a-z0-9]([a-z0-9\\-]{0,61}[a-z0-9])?", title: "lower-case letters, digits and -", ...plain });
  const labels = h("input", { name: "labels", placeholder: "site=berlin tier=edge", ...plain });
  const serial = h("input", { name: "serial", placeholder: "any machine", ...plain });
  const ttl = h("select", { name: "ttl" }, [["3600", "1 hour"], ["86400", "24 hours"], ["604800", "7 days"], ["2592000", "30 days"]].map(([value, word]) => h("option", { value, selected: value === "86400" }, word)));
  return h("section", { class: "card" }, h("form", { class: "fields", onsubmit: async (event) => {
    event.preventDefault();
    const pairs = labels.value.split(/[\s,]+/).filter(Boolean).map((pair) => [pair.split("=", 1)[0], pair.slice(pair.indexOf("=") + 1)]);
    if (labels.value.split(/[\s,]+/).some((pair) => pair && !pair.includes("="))) {
      labels.setCustomValidity("Write labels as key=value.");
      labels.reportValidity();
      labels.oninput = () => labels.setCustomValidity("");
      return;
    }
    try {
      const made = await api("POST", "api/v1/tokens", { ttlSeconds: Number(ttl.value), nodeName: name.value || null, labels: Object.fromEntries(pairs), serial: serial.value || null });
      show(made, fresh);
      fresh.scrollIntoView({ block: "start" });
      name.value = "";
      reload();
    } catch (error) {
      notice(error);
    }
  } },
  h("label", {}, "Name of the node", name), h("label", {}, "Valid for", ttl), h("label", {}, "Labels", labels), h("label", {}, "Serial number", serial),
  h("div", { class: "buttons" }, h("button", { class: "primary" }, "Make a token"))));
}

function show(made, fresh) {
  const button = h("button", { type: "button", class: "primary", onclick: () => copy(made.token, button) }, "Copy the token");
  fresh.replaceChildren(h("section", { class: "card fresh", "aria-label": "New token", "data-token": made.info.id },
    h("h2", {}, "Your new token"),
    h("p", {}, "It is shown this once, and works once. On the box, type:"),
    command(`holdfast enrol ${made.token}`),
    h("div", { class: "buttons" }, button, h("button", { type: "button", onclick: () => fresh.replaceChildren() }, "Done, hide it"))));
}
