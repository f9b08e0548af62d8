// Every seat's lab: its phase, its nodes, how to reach it, what it left behind.

import * as api from "../api.js";
import { atMost, h } from "../dom.js";
import { showAgo, showSlot } from "../time.js";
import { act, badge, bytes, check, copyable, empty, facts, head, link, moves, search, table } from "../ui.js";

const DOWN = new Set(["Terminated"]);

export const nodeStates = (instance) =>
  instance.status.nodes.length
    ? h(
        "ul",
        { class: "nodes", "aria-label": "Nodes of the lab" },
        instance.status.nodes.map((node) => h("li", { key: node.label, class: `node ${node.state.toLowerCase()}`, title: `${node.label}: ${node.state}` }, node.label, h("small", {}, node.state))),
      )
    : null;

export function instances({ live, draw }) {
  let text = "";
  let ended = false;
  let extra = {};
  let asked = 0;

  const load = async (id) => {
    const mine = ++asked;
    if (extra.id !== id) extra = { id };
    const [access, files] = await Promise.allSettled([api.get(`/instances/${id}/access`), api.get(`/instances/${id}/artifacts`)]);
    if (mine !== asked) return;
    extra = { id, access: access.value, refused: access.reason?.message, files: files.value?.items ?? [] };
    draw();
  };

  const soon = atMost(() => extra.id && void load(extra.id), 1_000);

  const detail = (id) => {
    const one = live.find("instance", id);
    if (!one) return h("div", { class: "view" }, link("instances", "← Instances"), empty(`There is no instance ${id}, or it has been archived.`));
    const post = (verb, words) => act(words, () => api.ask("POST", `/instances/${id}/${verb}`, { body: {} }));
    const phase = one.status.phase;
    return h(
      "div",
      { class: "view narrow" },
      link("instances", "← Instances"),
      h("h1", {}, id, " ", badge(phase)),
      facts([
        ["Reservation", link(`reservations/${one.spec.reservation}`, one.spec.reservation)],
        ["Seat", one.spec.seat],
        ["Definition", one.spec.definition],
        ["Worker", link(`workers/${one.spec.worker}`, one.spec.worker)],
        ["Slot", showSlot(one.spec)],
        ["Reason", one.status.message ?? one.status.reason],
        ["Score", one.status.score ? `${one.status.score.passed ? "passed" : "not passed"}${one.status.score.points === null ? "" : `, ${one.status.score.points} of ${one.status.score.maximum ?? "?"}`}` : null],
      ]),
      h(
        "div",
        { class: "actions" },
        phase === "Running" ? h("button", { type: "button", onclick: () => post("collect", "Collecting has begun") }, "Collect now") : null,
        phase === "Running" ? h("button", { type: "button", onclick: () => post("stop", "The lab is being stopped") }, "Stop") : null,
        phase === "Stopped" ? h("button", { type: "button", onclick: () => post("start", "The lab is being started") }, "Start") : null,
        phase === "Failed" ? h("button", { type: "button", onclick: () => post("retry", "Another try has begun") }, "Try again") : null,
      ),
      h("h2", {}, "Ports"),
      extra.access?.ports?.length
        ? h("ul", { class: "doors" }, extra.access.ports.map((port) => h("li", { key: port.name }, h("b", {}, port.name), " ", copyable(`${port.host}:${port.port}`))))
        : h("p", { class: "dim" }, extra.refused ?? "Known when the lab is on its worker."),
      h("h2", {}, "Nodes"),
      nodeStates(one) ?? h("p", { class: "dim" }, "Not started yet."),
      h("h2", {}, "Files"),
      extra.files?.length
        ? table(
            [
              { title: "Name", of: (file) => file.name },
              { title: "What", of: (file) => file.role },
              { title: "Size", of: (file) => bytes(file.bytes), class: "number" },
              { title: "What can be done", hidden: true, of: (file) => h("button", { type: "button", onclick: () => act(`${file.name} saved`, () => api.download(`/artifacts/${file.digest}?instance=${encodeURIComponent(one.metadata.id)}`, file.name.replaceAll("/", "-"))) }, "Download") },
            ],
            extra.files,
            { key: (file) => `${file.role}/${file.name}/${file.attempt}`, caption: "Files of the instance" },
          )
        : h("p", { class: "dim" }, "Nothing yet; configurations are collected at the end of the slot."),
      h("h2", {}, "Story"),
      moves(one.status.history),
    );
  };

  return {
    moved([id]) {
      if (!id) extra = {};
      else if (id !== extra.id) void load(id);
    },
    changed(kinds, one) {
      if (extra.id && kinds.has("instance") && (!one || one.metadata.id === extra.id)) soon();
    },
    gone: () => soon.cancel(),
    draw([id]) {
      if (id) return detail(id);
      const wanted = text.toLowerCase();
      const rows = live
        .of("instance")
        .filter((one) => ended || !DOWN.has(one.status.phase))
        .filter((one) => `${one.metadata.id} ${one.spec.definition} ${one.spec.worker} ${one.status.phase} ${one.metadata.owner}`.toLowerCase().includes(wanted))
        .sort((one, other) => (one.spec.start < other.spec.start ? -1 : 1));
      return h(
        "div",
        { class: "view" },
        head(
          "Instances",
          search(text, (words) => {
            text = words;
            draw();
          }),
          check("ended ones too", ended, (on) => {
            ended = on;
            draw();
          }),
        ),
        rows.length
          ? table(
              [
                { title: "Instance", of: (one) => one.metadata.id },
                { title: "Phase", of: (one) => badge(one.status.phase) },
                { title: "Definition", of: (one) => one.spec.definition },
                { title: "Seat", of: (one) => one.spec.seat, class: "number" },
                { title: "Worker", of: (one) => link(`workers/${one.spec.worker}`, one.spec.worker) },
                { title: "Slot", of: (one) => showSlot(one.spec) },
                { title: "Ends", of: (one) => showAgo(one.spec.end) },
                { title: "Nodes", of: (one) => `${one.status.nodes.filter((node) => node.state === "BOOTED").length}/${one.status.nodes.length}`, class: "number" },
              ],
              rows.slice(0, 500),
              { key: (one) => one.metadata.id, href: (one) => `#/instances/${one.metadata.id}`, fresh: (one) => live.isFresh("instance", one.metadata.id), caption: "Instances" },
            )
          : empty("No lab is running or about to. Seats become instances shortly before their slot begins."),
      );
    },
  };
}
