// Builds the page's elements. Text goes in as text nodes only, so nothing that a node or an operator wrote is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes (`onclick` and friends are listeners, null and false are left out), then children; strings become text. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

function add(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// Each state has a shape of its own, so that it can be told without colour.
const SHAPES = {
  healthy: [["circle", { cx: 8, cy: 8, r: 7, class: "fill" }], ["path", { d: "M4.800 8.300l2.200 2.200 4.200-4.700", class: "mark" }]],
  progressing: [["circle", { cx: 8, cy: 8, r: 6, class: "track" }], ["path", { d: "M8 2a6 6 0 0 1 6 6", class: "line turn" }]],
  degraded: [["path", { d: "M8 1.200 15.400 14.400H0.600Z", class: "fill round" }], ["path", { d: "M8 6v4M8 12.100v.1", class: "mark" }]],
  offline: [["circle", { cx: 8, cy: 8, r: 6, class: "line dashed" }], ["path", { d: "M5 8h6", class: "line" }]],
  warning: [["rect", { x: 2.500, y: 2.500, width: 11, height: 11, rx: 2, class: "line", transform: "rotate(45 8 8)" }], ["path", { d: "M8 4.800v3.700M8 11v.1", class: "line" }]],
  unknown: [["rect", { x: 2.500, y: 2.500, width: 11, height: 11, rx: 2, class: "line", transform: "rotate(45 8 8)" }], ["path", { d: "M8 11v.1M6.600 6.700a1.450 1.450 0 1 1 1.400 1.900", class: "line thin" }]],
};

/** The shape of a state. It says nothing to a screen reader: the word stands beside it. */
export function shape(state) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `shape ${state}`);
  svg.setAttribute("aria-hidden", "true");
  for (const [tag, attributes] of SHAPES[state] ?? SHAPES.unknown) {
    const part = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
    svg.append(part);
  }
  return svg;
}

/** Shape and word of a state. */
export function badge(state, word = state) {
  return h("span", { class: `badge ${state}` }, shape(state), word);
}

// --- time -------------------------------------------------------------------------------------------------------------------

let clockOffset = 0;

/** Sets the clock by what the hub says, so that ages are right on a phone whose clock is wrong. */
export function setHubClock(text) {
  const now = Date.parse(text);
  if (Number.isFinite(now)) clockOffset = now - Date.now();
}

/** Milliseconds since 1970 by the hub's clock. */
export function hubNow() {
  return Date.now() + clockOffset;
}

/** `12 s`, `4 min`, `3 h 20 min`, `5 d`. */
export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 && hours < 6 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/** An age that goes on ticking: `{before}12 s{after}`. */
export function age(at, { before = "", after = " ago" } = {}) {
  const element = h("time", { datetime: at, title: new Date(at).toLocaleString(), "data-age": at, "data-before": before, "data-after": after });
  tick(element);
  return element;
}

/** Time that is left until then. */
export function left(at) {
  const element = h("time", { datetime: at, title: new Date(at).toLocaleString(), "data-left": at });
  tick(element);
  return element;
}

function tick(element) {
  let text;
  if (element.dataset.left) {
    const rest = Date.parse(element.dataset.left) - hubNow();
    text = rest > 0 ? `in ${span(rest)}` : `${span(-rest)} ago`;
  } else {
    text = element.dataset.before + span(hubNow() - Date.parse(element.dataset.age)) + element.dataset.after;
  }
  if (element.textContent !== text) element.textContent = text;
}

setInterval(() => {
  if (!document.hidden) document.querySelectorAll("[data-age], [data-left]").forEach(tick);
}, 1000);

/** A moment as people write it here. */
export function moment(at) {
  return h("time", { datetime: at, title: at }, new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }));
}

/** `7.6 GiB`. */
export function bytes(count) {
  if (!count) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = count;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 10 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

// --- parts that several pages use -----------------------------------------------------------------------------------------------

/** A problem with its code, message and what to do. */
export function problemBox(problem, state = "degraded") {
  return h("div", { class: `problem ${state}` },
    shape(state),
    h("div", {},
      h("p", { class: "message" }, problem.message),
      problem.action ? h("p", { class: "action" }, problem.action) : null,
      h("p", { class: "code" }, h("code", {}, problem.code), problem.since ? [" · since ", age(problem.since, { after: "" })] : null)));
}

/** Labels as chips. */
export function chips(labels) {
  return Object.entries(labels ?? {}).map(([key, value]) => h("span", { class: "chip" }, h("span", { class: "key" }, `${key}=`), value));
}

/** What to do where there is nothing yet: a line and the next command to type. */
export function empty(title, text, ...commands) {
  return h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, text), commands.map(command));
}

/** A command with a button that copies it. */
export function command(text) {
  const button = h("button", { type: "button", class: "small", onclick: () => copy(text, button) }, "Copy");
  return h("div", { class: "command" }, h("code", {}, text), button);
}

/** Copies text, and says so on the button. */
export async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without HTTPS a browser may refuse; the text is then selected for the person to copy.
    const source = button.parentElement.querySelector("code, textarea");
    if (source) getSelection().selectAllChildren(source);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => { button.textContent = before; }, 2000);
}

/** A list of names and values; empty values are left out. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** Asks before something that cannot be undone; answers true or false. */
export function confirm(title, text, verb) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "confirm-title", onclose: () => { resolve(dialog.returnValue === "yes"); dialog.remove(); } },
      h("form", { method: "dialog" },
        h("h2", { id: "confirm-title" }, title), h("p", {}, text),
        h("div", { class: "buttons" },
          h("button", { value: "no", autofocus: true }, "Cancel"),
          h("button", { value: "yes", class: "danger" }, verb))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Replaces a part of the page only if what it is made from changed, so that focus and selection stay where they are. */
export function keyed(host) {
  const made = new Map();
  return (key, input, build) => {
    const print = JSON.stringify(input);
    const old = made.get(key);
    if (old?.print === print) return;
    const element = build() ?? h("div", { hidden: true });
    if (old) {
      const focused = old.element.contains(document.activeElement);
      old.element.replaceWith(element);
      if (focused) (element.matches("a, button") ? element : element.querySelector("a, button, input"))?.focus();
    } else {
      host.append(element);
    }
    made.set(key, { print, element });
  };
}
