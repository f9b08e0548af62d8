// How the mesh is: services and what they own, inboxes, bridges, dead letters.

import * as api from "../api.js";
import { h } from "../dom.js";
import { showTime } from "../time.js";
import { act, badge, confirmFirst, empty, facts, field, head, note, table, trouble, waiting } from "../ui.js";

const EVERY = 3_000;

export function health({ draw }) {
  let mesh = null;
  let ready = null;
  let letters = [];
  let more = false;
  let error = null;

  const load = async () => {
    try {
      const [state, dead, answer] = await Promise.all([api.get("/mesh"), api.get("/dead-letters?limit=200"), fetch("/readyz").then((one) => one.json())]);
      mesh = state;
      letters = dead.items;
      more = Boolean(dead.nextCursor);
      ready = answer;
      error = null;
    } catch (problem) {
      error = problem;
    }
    draw();
  };

  let timer = 0;
  const follow = async () => {
    await load();
    if (timer !== null) timer = setTimeout(follow, EVERY);
  };
  void follow();

  const replay = (letter) => act("Published again", async () => {
    await api.call("POST", `/dead-letters/${letter.sequence}/replay`);
    await load();
  });

  const forget = (letter) =>
    confirmFirst(`Forget dead letter ${letter.sequence}?`, `${letter.reason}. It is gone for good: nobody can replay it.`, "Forget it", async () => {
      await api.call("DELETE", `/dead-letters/${letter.sequence}`);
      await load();
    });

  const purge = () => {
    const wanted = { consumer: "" };
    const consumers = [...new Set(letters.map((one) => one.consumer))].sort();
    confirmFirst("Forget dead letters?", "They are gone for good: nobody can replay them.", "Forget them", async () => {
      const query = wanted.consumer ? `?consumer=${encodeURIComponent(wanted.consumer)}` : "";
      const { purged } = await (await api.call("DELETE", `/dead-letters${query}`)).json();
      note(`${purged} forgotten`);
      await load();
    }, {
      fields: (again) => field("Of which consumer", h("select", { name: "consumer", value: wanted.consumer, onchange: (event) => {
        wanted.consumer = event.target.value;
        again();
      } }, h("option", { value: "" }, more ? `all, more than ${letters.length}` : `all ${letters.length}`), consumers.map((name) => h("option", { key: name, value: name }, `${name} (${letters.filter((one) => one.consumer === name).length})`)))),
    });
  };

  const show = (letter) =>
    confirmFirst(`Dead letter ${letter.sequence}`, `${letter.reason} (after ${letter.attempts} attempts, ${showTime(letter.at)})`, "Replay", () => replay(letter), {
      fields: () => [facts([["Consumer", letter.consumer], ["Subject", letter.subject]]), h("pre", {}, letter.payload)],
    });

  return {
    gone: () => {
      clearTimeout(timer);
      timer = null;
    },
    draw() {
      return h(
        "div",
        { class: "view" },
        head("Health"),
        trouble(error),
        ready
          ? h("div", { class: "checks" }, badge(ready.status === "ready" ? "Ready" : "Failed"), Object.entries(ready.checks).map(([name, state]) => h("span", { key: name, class: state === "ok" ? "check ok" : "check bad", title: state }, `${name}: ${state}`)))
          : null,
        mesh
          ? [
              h("h2", {}, "Services"),
              table(
                [
                  { title: "Service", of: (one) => one.service },
                  { title: "Replicas", of: (one) => one.replicas.join(", ") || h("span", { class: "warning" }, "none") },
                  { title: "Waiting in inboxes", of: (one) => one.inbox.reduce((sum, shard) => sum + shard.waiting, 0), class: "number" },
                  { title: "Where", of: (one) => one.inbox.filter((shard) => shard.waiting).map((shard) => `${shard.shard}: ${shard.waiting}`).join(", ") || "–" },
                ],
                mesh.services,
                { key: (one) => one.service, caption: "Services" },
              ),
            ]
          : null,
        mesh || error ? null : waiting("The mesh's state"),
        h("h2", {}, "Dead letters"),
        letters.length ? h("div", { class: "actions" }, h("button", { type: "button", class: "danger", onclick: purge }, "Forget them …")) : null,
        letters.length
          ? table(
              [
                { title: "Number", of: (one) => one.sequence },
                { title: "When", of: (one) => showTime(one.at) },
                { title: "Consumer", of: (one) => one.consumer },
                { title: "Reason", of: (one) => one.reason },
                { title: "Attempts", of: (one) => one.attempts, class: "number" },
                { title: "What can be done", hidden: true, of: (one) => h(
                  "div",
                  { class: "actions" },
                  h("button", { type: "button", "aria-label": `Show ${one.sequence}`, onclick: () => show(one) }, "Show"),
                  h("button", { type: "button", "aria-label": `Replay ${one.sequence}`, onclick: () => replay(one) }, "Replay"),
                  h("button", { type: "button", class: "danger", "aria-label": `Forget ${one.sequence}`, onclick: () => forget(one) }, "Forget"),
                ) },
              ],
              letters,
              { key: (one) => one.sequence, caption: "Dead letters" },
            )
          : empty("None: every message has been dealt with."),
        mesh
          ? [
              h("h2", {}, "Owners"),
              table(
                [
                  { title: "Shard", of: (one) => `${one.service} · ${one.shard}` },
                  { title: "Owner", of: (one) => one.replica },
                  { title: "Fencing token", of: (one) => one.token, class: "number" },
                ],
                mesh.owners,
                { key: (one) => `${one.service}/${one.shard}`, caption: "Owners of shards" },
              ),
              h("h2", {}, "Bridges"),
              table(
                [
                  { title: "Kind", of: (one) => one.kind },
                  { title: "Published up to", of: (one) => one.revision, class: "number" },
                  { title: "Behind", of: (one) => (one.behind ? h("span", { class: "warning" }, `${one.behind} revisions`) : "nothing"), class: "number" },
                ],
                mesh.bridges,
                { key: (one) => one.kind, caption: "Bridges" },
              ),
            ]
          : null,
      );
    },
  };
}
