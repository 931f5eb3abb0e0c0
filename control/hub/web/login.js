// Log-in: the bearer token becomes a session cookie that scripts cannot read.

import { h, problemBox } from "./dom.js";
import { store } from "./store.js";

export function login(done) {
  const field = h("input", { type: "password", name: "token", id: "token", required: true, placeholder: "hfop_…", autocomplete: "current-password", autocapitalize: "none", spellcheck: "false", autofocus: true });
  const failure = h("div", { role: "alert" });
  const button = h("button", { class: "primary" }, "Log in");
  const element = h("div", { class: "login" },
    h("img", { src: "assets/icon.svg", alt: "", width: 56, height: 56 }),
    h("h1", { tabindex: -1 }, "Holdfast"),
    h("form", { class: "card", onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      failure.replaceChildren();
      try {
        await store.logIn(field.value.trim());
        done();
      } catch (error) {
        failure.replaceChildren(problemBox(error));
        field.select();
      } finally {
        button.disabled = false;
      }
    } },
    // Password managers want a name beside the secret.
    h("input", { type: "text", name: "username", autocomplete: "username", value: "holdfast", hidden: true }),
    h("label", { for: "token" }, "Operator token"), field, failure, button,
    h("p", { class: "quiet" }, "The hub wrote the first one to ", h("code", {}, "admin.token"), " in its data directory when it first started. More are made with ", h("code", {}, "holdfastctl operator create NAME"), ".")));
  return { element, title: "Log in", dispose: () => {}, focus: field };
}
