// What happens: the live tail, and the story of one resource.

import * as api from "../api.js";
import { h } from "../dom.js";
import { showTime } from "../time.js";
import { empty, link, table, trouble } from "../ui.js";
import { tell } from "../words.js";

const SHOWN = 300;
const PLACES = { reservation: "reservations", instance: "instances", worker: "workers", scaling: "workers", definition: "definitions" };

export function events({ live, draw }) {
  let kind = "";
  let text = "";
  let held = null;
  let story = { subject: "", events: [], error: null };
  let opened = "";

  const load = async (subject) => {
    story = { subject, events: [], error: null };
    try {
      const found = await api.get(`/events?subject=${encodeURIComponent(subject)}`);
      if (story.subject === subject) story = { subject, events: found, error: null };
    } catch (error) {
      story = { subject, events: [], error };
    }
    draw();
  };

  const body = (event) => h("pre", {}, JSON.stringify(event, null, 2));

  const line = (event) => {
    const { kind: of, fact, subject } = tell(event);
    const id = subject.split("/").slice(1).join("/");
    const open = opened === event.id;
    return h(
      "li",
      { key: event.id, class: `event kind-${of}` },
      h("time", { title: event.time }, showTime(event.time)),
      h("b", {}, `${of} ${fact}`),
      PLACES[of] ? link(`${PLACES[of]}/${encodeURIComponent(id)}`, id) : h("span", {}, id),
      h("span", { class: "dim" }, event.data?.status?.reason ?? ""),
      h("span", { class: "grow" }),
      h("a", { href: `#/events/${encodeURIComponent(subject)}` }, "story"),
      h("button", { type: "button", class: "quiet", "aria-expanded": open ? "true" : "false", onclick: () => {
        opened = open ? "" : event.id;
        draw();
      } }, open ? "close" : "open"),
      open ? body(event) : null,
    );
  };

  const storyPage = (subject) =>
    h(
      "div",
      { class: "view" },
      link("events", "← Events"),
      h("h1", {}, subject),
      trouble(story.error),
      story.events.length
        ? table(
            [
              { title: "When", of: (event) => showTime(event.time) },
              { title: "What", of: (event) => tell(event).fact },
              { title: "Phase", of: (event) => `${event.data?.previousPhase ? `${event.data.previousPhase} → ` : ""}${event.data?.status?.phase ?? ""}` },
              { title: "Reason", of: (event) => event.data?.status?.message ?? event.data?.status?.reason ?? "" },
              { title: "By", of: (event) => event.source },
              { title: "Sequence", of: (event) => String(BigInt(event.sequence ?? "0")), class: "number" },
            ],
            story.events,
            { key: (event) => event.id, caption: `Events of ${subject}` },
          )
        : empty("Nothing has been told about it, or its events lie too far back."),
    );

  return {
    moved([subject]) {
      if (subject) void load(subject);
    },
    draw([subject]) {
      if (subject) return storyPage(subject);
      const wanted = text.toLowerCase();
      const from = held ?? live.tail;
      const rows = from
        .filter((event) => !kind || event.type.startsWith(`io.lablet.${kind}.`))
        .filter((event) => !wanted || `${event.type} ${event.subject} ${event.correlationid ?? ""} ${event.tenant ?? ""}`.toLowerCase().includes(wanted))
        .slice(-SHOWN)
        .reverse();
      const kinds = [...new Set(live.tail.map((event) => event.type.split(".")[2]))].sort();
      return h(
        "div",
        { class: "view" },
        h("h1", {}, "Events"),
        h(
          "div",
          { class: "tools" },
          h("select", { "aria-label": "Kind", value: kind, onchange: (event) => {
            kind = event.target.value;
            draw();
          } }, h("option", { value: "" }, "Every kind"), kinds.map((name) => h("option", { key: name, value: name }, name))),
          h("input", { type: "search", placeholder: "Type, id or correlation id", "aria-label": "Filter", value: text, oninput: (event) => {
            text = event.target.value;
            draw();
          } }),
          h("button", { type: "button", "aria-pressed": held ? "true" : "false", onclick: () => {
            held = held ? null : [...live.tail];
            draw();
          } }, held ? "Go on" : "Hold"),
          h("span", { class: "dim" }, held ? "held" : `${live.tail.length} since you came`),
        ),
        rows.length ? h("ol", { class: "tail" }, rows.map(line)) : empty("Nothing has happened since you came. Reserve a seat and watch."),
      );
    },
  };
}
