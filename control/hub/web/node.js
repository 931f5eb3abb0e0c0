// One node: what it should run, what it proved, what is wrong and what happened.

import { age, badge, bytes, chips, command, confirm, empty, facts, h, keyed, left, moment, problemBox, shape } from "./dom.js";
import { WORDS, doing, gaveUp, insteadOf, stateOf } from "./state.js";
import { Problem, api, store } from "./store.js";

export function node(id, { notice, go }) {
  const path = `api/v1/nodes/${encodeURIComponent(id)}`;
  const body = h("div", { class: "detail" });
  const events = h("section", { class: "card", "aria-labelledby": "events" }, h("h2", { id: "events" }, "Events"), h("p", { class: "quiet" }, "Loading…"));
  const element = h("div", {}, h("nav", { class: "crumbs", "aria-label": "Path" }, h("a", { href: "#/" }, "Fleet"), " / ", id), body);
  const part = keyed(body);
  let gone = false;
  let eventsTimer = 0;
  let heard = null;
  let causes = {};

  function draw() {
    const info = store.nodes.get(id);
    if (!info) {
      if (!store.loaded) return;
      gone = true;
      element.replaceChildren(h("h1", { tabindex: -1 }, id), empty("No such node", `There is no node ${id} in this fleet (any more).`, "holdfastctl node list"));
      return;
    }
    if (gone) return;
    const status = info.status;
    const state = stateOf(info);
    part("head", [state, info.health, info.labels, info.hardware.model], () => head(info, state));
    part("link", [state, info.proven, info.accepted, info.wanted, info.lastHeardAt, info.online], () => state === "offline" ? offline(info) : null);
    part("paused", status?.generation?.pausedUntil, () => status?.generation?.pausedUntil ? paused(status.generation) : null);
    part("problems", [info.cause, status?.generation?.cause, status?.conditions], () => problems(info));
    part("steps", [info.wanted, info.accepted, info.proven, status?.generation, info.release, info.online], () => steps(info));
    part("apps", [status?.apps, info.online, info.cause], () => apps(status, info));
    part("sides", [status?.os, causes, status?.kubernetes, status?.machine, status?.agent, status?.clockTrusted, info.hardware, info.enrolledAt, info.certificateExpiresAt, info.lastHeardAt], () => sides(info, causes));
    part("events", 0, () => events);
    part("labels", [info.labels, store.admin], () => labels(info, path, notice));
    part("danger", store.admin, () => store.admin ? danger(id, path, notice, go) : null);
    if (info.lastHeardAt !== heard) {
      heard = info.lastHeardAt;
      clearTimeout(eventsTimer);
      eventsTimer = setTimeout(loadEvents, 150);
    }
  }

  async function loadEvents() {
    try {
      const list = await api("GET", `${path}/events`);
      list.sort((a, b) => b.sequence - a.sequence);
      causes = fallbacks(list);
      draw();
      events.replaceChildren(h("h2", { id: "events" }, "Events"), list.length ? h("ol", { class: "events" }, list.slice(0, 100).map(event)) : h("p", { class: "quiet" }, "Nothing reported yet."));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      events.replaceChildren(h("h2", { id: "events" }, "Events"), problemBox(error));
    }
  }

  draw();
  const unsubscribe = store.subscribe(draw);
  return { element, title: id, dispose: () => { clearTimeout(eventsTimer); unsubscribe(); } };
}

function head(info, state) {
  return h("header", { class: "head" },
    h("h1", { tabindex: -1 }, info.id),
    h("p", {}, badge(state, WORDS[state]),
      state === "offline" && info.lastHeardAt ? h("span", { class: "quiet" }, ` ${(WORDS[info.health] ?? "Unknown").toLowerCase()} when last heard`) : null,
      " ", chips(info.labels)));
}

function offline(info) {
  const newer = info.wanted && info.wanted !== info.accepted;
  return h("div", { class: "problem offline" }, shape("offline"), h("div", {},
    h("p", { class: "message" }, info.lastHeardAt ? ["No link for ", age(info.lastHeardAt, { after: "" }), "."] : "This node was never heard of since it enrolled."),
    h("p", {}, info.proven ? ["Last proven: generation ", h("b", {}, info.proven), ", ", age(info.lastHeardAt), ". "] : "It has proven no generation. ",
      info.accepted ? ["It must be running generation ", h("b", {}, info.accepted), ", the newest that it was seen to accept, and keeps it running by itself."] : "It has accepted no document."),
    newer ? h("p", {}, "Generation ", h("b", {}, info.wanted), " waits for the link.") : null,
    h("p", { class: "action" }, "All below is as old as that.")));
}

/** What is wrong with the node as a whole, each thing once. */
function allProblems(info) {
  const found = [info.cause, info.status?.generation?.cause, ...(info.status?.conditions ?? [])].filter(Boolean);
  return found.filter((problem, index) => found.findIndex((other) => same(other, problem)) === index);
}

const same = (a, b) => a.code === b.code && a.message === b.message;

function problems(info) {
  const list = allProblems(info);
  if (list.length === 0) return null;
  return h("section", { "aria-label": "What is wrong" }, list.map((problem) => problemBox(problem)));
}

function steps(info) {
  const generation = info.status?.generation ?? {};
  const title = h("h2", {}, "Desired state", info.release ? h("a", { class: "release", href: `#/releases/${encodeURIComponent(info.release)}` }, info.release) : null);
  if (!info.wanted) {
    return h("section", { class: "card" }, title, h("p", { class: "quiet" }, "No release is assigned to this node."), command(`holdfastctl release assign RELEASE --node ${info.id}`));
  }
  const failed = gaveUp(info);
  const instead = insteadOf(info);
  const progress = generation.progress?.total ? generation.progress : null;
  const reached = [
    ["Wanted", info.wanted, "what the hub asks for"],
    ["Accepted", info.accepted, "verified and stored"],
    ["Applied", generation.applied, "written to Kubernetes"],
    ["Proven", info.proven, "seen ready"],
  ];
  const now = doing(info);
  return h("section", { class: "card" }, title,
    h("ol", { class: "steps" }, reached.map(([word, value, meaning], index) => {
      const done = value === info.wanted;
      const first = !done && reached.slice(0, index).every(([, earlier]) => earlier === info.wanted);
      const state = done ? "healthy" : first ? (failed ? "degraded" : info.online ? "progressing" : "offline") : "waiting";
      return h("li", { class: state }, state === "waiting" ? h("span", { class: "dot" }) : shape(state),
        h("span", { class: "word" }, word), h("span", { class: "value" }, value ?? "none"), h("span", { class: "quiet" }, meaning));
    })),
    instead ? h("p", { class: "instead" }, "Generation ", h("b", {}, instead), generation.phase === "rolled-back" ? ` runs in place of ${generation.accepted}, which failed and was rolled back, until something newer comes.` : " runs until the newer one is begun.") : null,
    now && info.online && generation.phase !== "rolled-back" ? h("p", { class: "quiet" }, `${now}.`) : null,
    progress && info.online ? h("progress", { max: progress.total, value: Math.min(progress.done, progress.total), "aria-label": "Progress of this phase" }) : null,
    generation.until && info.online ? h("p", { class: "quiet" }, "This phase ends by itself: ", moment(generation.until), ".") : null);
}

function paused(generation) {
  return h("div", { class: "problem progressing" }, shape("progressing"), h("div", {},
    h("p", { class: "message" }, "A person at the box paused changes until ", moment(generation.pausedUntil), "."),
    h("p", { class: "action" }, "What runs is looked after meanwhile. To go on at once, on the box: holdfast resume")));
}

function apps(status, info) {
  const list = status?.apps ?? [];
  return h("section", { class: "card" }, h("h2", {}, "Apps"),
    list.length === 0 ? h("p", { class: "quiet" }, status ? "None." : info.online ? "No report yet." : "Never reported.")
      : h("ul", { class: "apps" }, list.map((app) => h("li", {},
        badge(app.health, WORDS[app.health] ?? "Unknown"),
        h("span", { class: "name" }, app.name),
        h("span", { class: "quiet" }, `${app.ready} of ${app.objects} objects ready`),
        app.cause ? why(app.cause, allProblems(info).some((problem) => same(problem, app.cause))) : null))));
}

/** The cause of an app; what to do about it stands at the top already where that names the same. */
function why(cause, known) {
  return h("div", { class: "why" }, h("p", { class: "message" }, cause.message),
    known ? null : [cause.action ? h("p", { class: "action" }, cause.action) : null, h("p", { class: "code" }, h("code", {}, cause.code))]);
}

function sides(info, causes) {
  const { status, hardware } = info;
  const kubernetes = status?.kubernetes;
  const machine = status?.machine;
  const free = machine?.diskBytes ? machine.diskFreeBytes / machine.diskBytes : null;
  return h("div", { class: "columns" },
    status?.os ? system(status.os, causes) : null,
    h("section", { class: "card" }, h("h2", {}, "Kubernetes"),
      kubernetes ? facts([
        ["State", badge(kubernetes.health, WORDS[kubernetes.health] ?? "Unknown")],
        ["Version", kubernetes.version],
        ["Started by Holdfast", kubernetes.restarts === 1 ? "once" : `${kubernetes.restarts} times`],
      ]) : h("p", { class: "quiet" }, "No report yet."),
      kubernetes?.cause ? problemBox(kubernetes.cause, kubernetes.health === "degraded" ? "degraded" : "progressing") : null),
    h("section", { class: "card" }, h("h2", {}, "Machine"), facts([
      ["Host name", machine?.hostname],
      ["Model", hardware.model],
      ["Serial number", hardware.serial],
      ["Processor", [machine?.cpus || hardware.cpus, hardware.architecture].filter(Boolean).join(" × ")],
      ["Memory", bytes(machine?.memoryBytes || hardware.memoryBytes)],
      ["Disk free", free === null ? null : h("span", {}, `${bytes(machine.diskFreeBytes)} of ${bytes(machine.diskBytes)} `,
        h("meter", { min: 0, max: 1, low: 0.1, high: 0.2, optimum: 1, value: free, "aria-label": "Free part of the disk" }))],
      ["Written to flash", flash(machine?.flash)],
      ["System", status?.agent?.operatingSystem || hardware.operatingSystem],
      ["Clock", status ? (status.clockTrusted ? "right, as far as it can tell" : "not trusted: below the last signed time") : null],
    ])),
    h("section", { class: "card" }, h("h2", {}, "Link"), facts([
      ["Last word", info.lastHeardAt ? age(info.lastHeardAt) : "never"],
      ["Holdfast", status?.agent?.version],
      ["Enrolled", moment(info.enrolledAt)],
      ["Certificate ends", left(info.certificateExpiresAt)],
    ])));
}

/** By version of the operating system that did not come up, why, as far as the events still tell. */
function fallbacks(list) {
  const causes = {};
  for (const item of list.filter(({ kind }) => kind === "os-rolled-back")) {
    const version = /^version (\S+) of the operating system/.exec(item.message)?.[1];
    if (version) causes[version] ??= item.message;
  }
  return causes;
}

/** The image that the box runs, and what it could go back to. */
function system(os, causes) {
  const bad = os.bad ?? [];
  const why = bad.map((version) => causes[version]).filter(Boolean);
  return h("section", { class: "card system" }, h("h2", {}, "Operating system"),
    facts([
      ["Version", h("b", {}, os.version)],
      ["Slot", os.slot.toUpperCase()],
      ["This boot", os.good ? badge("healthy", "Good") : badge("progressing", "Not good yet")],
      ["Other slot", os.other ?? "empty or not whole"],
      ["Did not come up", bad.length ? h("span", {}, bad.map((version) => h("span", { class: "chip" }, version))) : null],
    ]),
    why.map((text) => h("p", { class: "note cause" }, sentence(text))),
    bad.length ? h("p", { class: "quiet note" }, "A version that did not come up is not tried again; make one under another version.") : null);
}

/** What is written to the flash each day, and how long it lasts where the device says so. */
function flash(facts) {
  const daily = facts?.written?.bytesPerDay;
  if (daily === undefined && facts?.lifeUsedPercent === undefined) return null;
  const own = facts.byHoldfast?.bytesPerDay;
  const parts = [
    daily === undefined ? null : `${daily ? bytes(daily) : "nothing"} a day${own === undefined ? "" : `, ${own ? bytes(own) : "nothing"} of it by Holdfast`}`,
    facts.lifeUsedPercent === undefined ? null : `${facts.lifeUsedPercent} % of its life used`,
    facts.daysLeft === undefined ? null : `worn out in ${facts.daysLeft} days at this rate`,
  ];
  return parts.filter(Boolean).join("; ");
}

const LEVELS = { info: "info", warning: "warning", alarm: "degraded" };

/** A message as a sentence of its own. */
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** `lastShutdown` as `last shutdown`. */
const spaced = (key) => key.replace(/([a-z])([A-Z])/g, (_, before, after) => `${before} ${after.toLowerCase()}`);

/** What tells more than the message, by kind of event. */
const DETAILS = {
  booted: ({ system, clockTrusted }) => [["slot", system?.slot], ["kernel", system?.kernel], ["clock", clockTrusted === false ? "not trusted" : null]],
  "factory-reset": (details) => Object.entries(details).map(([key, value]) => [spaced(key), value === true ? "yes" : value === false ? "no" : value]),
};

function details(item) {
  const known = (DETAILS[item.kind]?.(item.details ?? {}) ?? []).filter(([, value]) => ["string", "number"].includes(typeof value) && value !== "");
  return known.length ? h("p", {}, known.map(([key, value]) => h("span", { class: "chip" }, h("span", { class: "key" }, `${key}:\u00a0`), String(value)))) : null;
}

function event(item) {
  const level = LEVELS[item.severity] ?? "info";
  return h("li", { class: level },
    level === "info" ? h("span", { class: "dot" }) : shape(level),
    h("div", {},
      h("p", {}, item.severity === "info" ? null : h("b", {}, item.severity === "alarm" ? "Alarm: " : "Warning: "), sentence(item.message), item.generation ? h("span", { class: "quiet" }, ` · ${item.generation}`) : null),
      item.problem ? h("p", { class: "action" }, item.problem.message === item.message ? null : `${item.problem.message} `, item.problem.action, " ", h("code", {}, item.problem.code)) : null,
      details(item),
      h("p", { class: "code" }, age(item.at), " · ", h("code", {}, item.kind))));
}

function labels(info, path, notice) {
  const card = h("section", { class: "card" }, h("h2", {}, "Labels"));
  const change = async (labels) => {
    try {
      const answer = await api("PATCH", `${path}/labels`, { labels });
      if (answer?.id) store.nodes.set(answer.id, answer);
      await store.reload();
    } catch (error) {
      notice(error);
    }
  };
  const entries = Object.entries(info.labels);
  card.append(entries.length ? h("p", {}, entries.map(([key, value]) => h("span", { class: "chip" }, h("span", { class: "key" }, `${key}=`), value,
    store.admin ? h("button", { type: "button", class: "remove", "aria-label": `Remove label ${key}`, onclick: () => change({ [key]: null }) }, "×") : null)))
    : h("p", { class: "quiet" }, "None. Labels pick nodes for releases."));
  if (store.admin) {
    const input = h("input", { name: "label", placeholder: "site=berlin", required: true, pattern: "[^=\\s]+=[^=\\s]*", title: "key=value", "aria-label": "New label, key=value", autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
    card.append(h("form", { class: "inline", onsubmit: (event) => {
      event.preventDefault();
      const at = input.value.indexOf("=");
      change({ [input.value.slice(0, at).trim()]: input.value.slice(at + 1).trim() });
    } }, input, h("button", {}, "Add")));
  }
  return card;
}

function danger(id, path, notice, go) {
  return h("section", { class: "card" }, h("h2", {}, "Take out of the fleet"),
    h("p", { class: "quiet" }, "Revokes the node's certificate and forgets it here. What runs on it keeps running; to come back, it needs a new token."),
    h("button", { type: "button", class: "danger", onclick: async () => {
      if (!await confirm(`Take ${id} out of the fleet?`, "Its certificate is revoked at once. This cannot be undone.", "Take it out")) return;
      try {
        await api("DELETE", path);
        store.nodes.delete(id);
        go("#/");
      } catch (error) {
        notice(error);
      }
    } }, "Take out…"));
}
