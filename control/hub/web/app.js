// Composition of the page: session, header with the sign of life, and the view that the address names.

import { h, shape, span } from "./dom.js";
import { audit } from "./audit.js";
import { fleet } from "./fleet.js";
import { login } from "./login.js";
import { node } from "./node.js";
import { release, releases } from "./releases.js";
import { tokens } from "./tokens.js";
import { Problem, store } from "./store.js";

const header = document.getElementById("header");
const main = document.getElementById("main");
const notices = document.getElementById("notices");
const NAV = [["#/", "Fleet"], ["#/releases", "Releases"], ["#/tokens", "Tokens"], ["#/audit", "Audit"]];
let view = null;

/** Shows an error until it is closed or another page is opened. */
function notice(error) {
  if (error.status === 401) return;
  const box = h("div", { class: "notice" }, shape("degraded"), h("div", {},
    h("p", { class: "message" }, error.message), error.action ? h("p", { class: "action" }, error.action) : null,
    error instanceof Problem ? h("p", { class: "code" }, h("code", {}, error.code)) : null),
  h("button", { type: "button", class: "remove", "aria-label": "Close", onclick: () => box.remove() }, "×"));
  notices.replaceChildren(box);
}

function go(address) {
  location.hash = address;
}

function route() {
  const [path, query] = location.hash.replace(/^#/, "").split("?", 2);
  const [first, second] = path.split("/").filter(Boolean).map(decodeURIComponent);
  const context = { notice, go };
  const parameters = new URLSearchParams(query);
  if (first === "nodes" && second) return node(second, context);
  if (first === "releases" && second) return release(second, context);
  if (first === "releases") return releases(parameters, context);
  if (first === "tokens") return tokens(parameters, context);
  if (first === "audit") return audit(parameters, context);
  return fleet(parameters, context);
}

function show(next) {
  view?.dispose();
  view = next;
  notices.replaceChildren();
  main.replaceChildren(view.element);
  document.title = view.title === "Fleet" ? "Holdfast" : `${view.title} · Holdfast`;
}

function open(event) {
  if (!store.who) return;
  show(route());
  drawHeader();
  scrollTo(0, 0);
  // After a click the reader of a screen reader should stand at the new page's title; on the first load where they are.
  if (event) main.querySelector("h1")?.focus();
}

let sign = null;

function drawHeader() {
  if (!store.who) {
    header.replaceChildren();
    sign = null;
    return;
  }
  const here = location.hash.split("?")[0] || "#/";
  const current = (address) => address === "#/" ? here === "#/" || here.startsWith("#/nodes") : here.startsWith(address);
  sign = h("span", { class: "sign", role: "status" });
  header.replaceChildren(
    h("a", { class: "brand", href: "#/" }, h("img", { src: "assets/icon.svg", alt: "", width: 28, height: 28 }), h("span", { class: "product" }, "Holdfast")),
    h("nav", { class: "tabs", "aria-label": "Pages" }, NAV.map(([address, word]) => h("a", { href: address, "aria-current": current(address) ? "page" : null }, word))),
    sign,
    h("details", { class: "who-menu" },
      h("summary", { "aria-label": `Logged in as ${store.who.name}` }, store.who.name),
      h("div", {}, h("p", { class: "quiet" }, `${store.who.name}, ${store.who.role}`), h("button", { type: "button", onclick: () => store.logOut() }, "Log out"))));
  drawSign();
}

/** Whether what is shown is the present. */
function drawSign() {
  if (!sign) return;
  const silent = store.lastNews ? Date.now() - store.lastNews : null;
  const live = store.link === "live";
  sign.className = `sign ${live ? "live" : "lost"}`;
  document.body.classList.toggle("stale", !live && store.loaded);
  const word = live ? "Live" : store.link === "connecting" ? "Connecting…" : "Reconnecting…";
  const text = !live && silent !== null ? `${word} last update ${span(silent)} ago` : word;
  if (sign.dataset.text === text) return;
  sign.dataset.text = text;
  sign.replaceChildren(h("span", { class: "pulse", "aria-hidden": "true" }), h("span", { class: "text" }, text));
}

function askToLogIn() {
  drawHeader();
  show(login(() => open()));
  view.focus.focus();
}

store.onLogout = askToLogIn;
store.subscribe(drawSign);
setInterval(drawSign, 1000);
addEventListener("hashchange", open);
addEventListener("unhandledrejection", (event) => notice(event.reason));
// A phone that wakes up should not wait for a timer to find out that the stream is dead.
addEventListener("online", () => store.wake());
document.addEventListener("visibilitychange", () => { if (!document.hidden) store.wake(); });

try {
  await store.resume();
  open();
} catch (error) {
  askToLogIn();
  if (error.status !== 401) notice(error);
}
