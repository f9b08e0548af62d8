// A one-time link to a seat: made by whoever booked the class, opened by whoever shall sit there.

import * as api from "../api.js";
import { h } from "../dom.js";
import { copyable, dialog, head, link, note, trouble, waiting } from "../ui.js";

const addressOf = (code) => `${location.origin}/#/claim/${encodeURIComponent(code)}`;

/** Makes a link for every free seat, and shows them this once. */
export function claimLinks(id) {
  const state = { links: null, error: null };
  const box = dialog(`Links for ${id}`, (_, close) =>
    h(
      "form",
      { onsubmit: (event) => {
        event.preventDefault();
        close();
      } },
      h("p", {}, "Each link gives one seat to whoever opens it first, until the slot ends. They are shown this once; earlier links of these seats count no more."),
      trouble(state.error),
      state.links
        ? h("ol", { class: "plain links" }, state.links.map((one) => h("li", { key: one.seat }, h("b", {}, `Seat ${one.seat}`), " ", copyable(addressOf(one.code)))))
        : state.error ? null : waiting("The list of links"),
      h("footer", {}, h("button", { class: "primary" }, "Done")),
    ));
  const make = async () => {
    try {
      const answer = await api.call("POST", `/reservations/${id}/claims`, { body: {}, headers: { Prefer: "wait=10", "Idempotency-Key": api.randomKey() } });
      state.links = (await answer.json()).links;
    } catch (error) {
      state.error = error;
    }
    box.again();
  };
  void make();
}

export function claim({ draw }) {
  let error = null;

  const take = async (code) => {
    try {
      const { resource, decided } = await api.ask("POST", `/claims/${encodeURIComponent(code)}`);
      note(decided ? `A seat of ${resource.spec.definition} is yours` : "Asked for; it appears here in a moment");
      location.replace("#/mylab");
    } catch (problem) {
      error = problem;
      draw();
    }
  };

  return {
    moved: ([code]) => {
      if (code) void take(code);
    },
    draw: () => h("div", { class: "view narrow" }, head("Taking a seat"), trouble(error), error ? h("p", {}, link("mylab", "What is mine already")) : waiting("The link")),
  };
}
