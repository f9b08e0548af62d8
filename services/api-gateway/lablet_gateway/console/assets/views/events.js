// What happens: the live tail, and the story of one resource.

import * as api from "../api.js";
import { atMost, h } from "../dom.js";
import { ms, showSpan, showTime } from "../time.js";
import { badge, empty, head, link, search, trouble } from "../ui.js";
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
    if (story.subject !== subject) story = { subject, events: [], error: null };
    try {
      const found = await api.get(`/events?subject=${encodeURIComponent(subject)}`);
      if (story.subject === subject) story = { subject, events: found, error: null };
    } catch (error) {
      story = { subject, events: [], error };
    }
    draw();
  };

  const soon = atMost(() => void load(story.subject), 1_000);

  const body = (event) => h("pre", {}, JSON.stringify(event, null, 2));

  const line = (event) => {
    const { kind: of, fact, subject } = tell(event);
    const id = subject.split("/").slice(1).join("/");
    const open = opened === event.id;
    return h(
      "li",
      { key: event.id, class: `event kind-${of}` },
      h("time", { title: event.time }, showTime(event.time)),
      h("span", { class: "what" }, `${of} ${fact}`),
      PLACES[of] ? link(`${PLACES[of]}/${encodeURIComponent(id)}`, id) : h("span", {}, id),
      h("span", { class: "dim" }, event.data?.status?.reason ?? ""),
      h("span", { class: "grow" }),
      h("a", { href: `#/events/${encodeURIComponent(subject)}`, "aria-label": `Story of ${subject}` }, "story"),
      h("button", { type: "button", class: "quiet", "aria-expanded": open ? "true" : "false", "aria-label": `${open ? "Close" : "Open"} ${of} ${fact} of ${id}`, onclick: () => {
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
        ? h(
            "ol",
            { class: "story", "aria-label": `Events of ${subject}` },
            story.events.map((event, at) => {
              const { fact } = tell(event);
              const pause = at ? ms(event.time) - ms(story.events[at - 1].time) : 0;
              const phase = event.data?.status?.phase;
              const wordsOf = (one) => one?.data?.status?.message ?? one?.data?.status?.reason ?? "";
              const words = wordsOf(event) === wordsOf(story.events[at - 1]) ? "" : wordsOf(event);
              const open = opened === event.id;
              return [
                pause >= 60_000 ? h("li", { key: `pause-${event.id}`, class: "pause dim" }, `${showSpan(pause)} later`) : null,
                h(
                  "li",
                  { key: event.id },
                  h("time", { datetime: event.time }, showTime(event.time)),
                  h("span", { class: "what" }, fact),
                  phase ? badge(phase) : null,
                  h("span", { class: "grow" }, words),
                  h("span", { class: "dim" }, event.source),
                  h("button", { type: "button", class: "quiet", "aria-expanded": open ? "true" : "false", "aria-label": `${open ? "Close" : "Open"} ${fact}`, onclick: () => {
                    opened = open ? "" : event.id;
                    draw();
                  } }, open ? "close" : "open"),
                  open ? body(event) : null,
                ),
              ];
            }),
          )
        : empty("Nothing has been told about it, or its events lie too far back."),
    );

  return {
    moved([subject]) {
      if (subject) void load(subject);
    },
    changed(_, one) {
      if (one && `${one.kind.replace(/^Worker(Pool|Template)$/, "$1").toLowerCase()}/${one.metadata.id}` === story.subject) soon();
    },
    gone: () => soon.cancel(),
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
        head(
          "Events",
          h("select", { "aria-label": "Kind", value: kind, onchange: (event) => {
            kind = event.target.value;
            draw();
          } }, h("option", { value: "" }, "Every kind"), kinds.map((name) => h("option", { key: name, value: name }, name))),
          search(text, (words) => {
            text = words;
            draw();
          }, "Type, id or correlation id"),
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
