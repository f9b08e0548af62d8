// Bookings: the list, one in detail with its reasons and its story, and what can be done with it.

import * as api from "../api.js";
import { h } from "../dom.js";
import { MINUTE, addDays, iso, ms, readTime, showSlot, showTime } from "../time.js";
import { act, badge, check, confirmFirst, empty, facts, field, head, link, note, search, table } from "../ui.js";
import { waterfall } from "../waterfall.js";
import { reasons, slotOf, tell, verdict } from "../words.js";
import { booking as bookingForm } from "./booking.js";
import { claimLinks } from "./claim.js";

const OPEN = new Set(["Pending", "Held", "Scheduled", "Waitlisted", "Active"]);
const PASSING = new Set(["StartingSoon", "EndingSoon"]);
const PHASES = ["Pending", "Held", "Scheduled", "Waitlisted", "Active", "Completed", "Rejected", "Cancelled", "Expired", "Failed"];

const onDay = (one, day) => {
  const slot = slotOf(one);
  const from = Date.parse(`${day}T00:00`);
  return slot !== null && ms(slot.start) < addDays(from, 1) && ms(slot.end) > from;
};

export function reservations({ live, who, draw }) {
  let text = "";
  let phase = "open";
  let day = "";
  let own = false;
  let story = { id: "", events: [] };
  let trace = { id: "" };

  const load = async (id) => {
    if (story.id !== id) story = { id, events: [] };
    try {
      const events = await api.get(`/events?subject=${encodeURIComponent(`reservation/${id}`)}`);
      if (story.id === id) story = { id, events };
    } catch (error) {
      story = { id, events: [], trouble: error.message };
    }
    draw();
  };

  const loadTrace = async (id) => {
    try {
      trace = { id, ...(await api.get(`/reservations/${id}/trace`)) };
    } catch (error) {
      trace = { id, trouble: error.message };
    }
    draw();
  };

  const change = (one, body) =>
    api.ask("PATCH", `/reservations/${one.metadata.id}`, { body, version: one.metadata.resourceVersion });

  const extend = (one, minutes) =>
    act(`Extended by ${minutes} minutes`, () => change(one, { end: iso(ms(slotOf(one).end) + minutes * MINUTE) }));

  const move = (one) => {
    const slot = slotOf(one);
    const begun = one.status.phase === "Active";
    const seated = one.spec.roster.map((entry) => entry.user);
    const wanted = { start: "", end: "", seats: "", definition: "", roster: seated.join(", ") };
    const inSeats = one.spec.roster.every((entry, at) => entry.seat === at + 1);
    const body = () => {
      const found = {};
      for (const edge of ["start", "end"]) {
        if (!wanted[edge].trim()) continue;
        const at = readTime(wanted[edge]);
        if (at === null) throw new Error(`"${wanted[edge]}" is no time: write 14:30, tomorrow 09:00 or 2027-03-01 09:00`);
        found[edge] = iso(at);
      }
      if (wanted.seats.trim()) found.seats = Number(wanted.seats);
      if (wanted.definition.trim()) found.definition = wanted.definition.trim();
      const users = wanted.roster.split(/[\s,;]+/).filter(Boolean);
      if (users.join() !== seated.join()) found.roster = users.map((user, at) => ({ seat: at + 1, user }));
      if (!Object.keys(found).length) throw new Error("nothing is different: change something, or go back");
      return found;
    };
    const input = (again, name, label, hint, props = {}) =>
      field(label, h("input", { name, value: wanted[name], oninput: (event) => {
        wanted[name] = event.target.value;
        again();
      }, ...props }), hint);
    confirmFirst(
      `Change ${one.metadata.id}`,
      `It has ${showSlot(slot)}. Leave empty what stays.`,
      "Change",
      async () => {
        const { decided, resource } = await change(one, body());
        note(decided ? `Changed: ${verdict(resource)}` : "Asked for; the decision follows");
      },
      {
        fields: (again) =>
          h(
            "div",
            { class: "columns" },
            begun ? null : input(again, "start", "New start", "14:30, tomorrow 09:00", { placeholder: showTime(slot.start) }),
            input(again, "end", "New end", "14:30, tomorrow 09:00", { placeholder: showTime(slot.end) }),
            begun ? null : input(again, "seats", "Seats", "", { type: "number", min: 1, max: 100, placeholder: String(one.spec.seats) }),
            begun ? null : input(again, "definition", "Definition", "", { placeholder: one.spec.definition }),
            inSeats ? input(again, "roster", "Roster", "names in the order of the seats") : null,
          ),
      },
    );
  };

  const cancel = (one) =>
    confirmFirst(
      `Cancel ${one.metadata.id}?`,
      one.status.phase === "Active" ? "Its labs run: they are stopped now, after their work is collected." : "Its seats become free for others.",
      "Cancel the reservation",
      async () => {
        await api.ask("DELETE", `/reservations/${one.metadata.id}`);
        note("Cancelled");
      },
    );

  const actions = (one) => {
    const now = one.status.phase;
    return h(
      "div",
      { class: "actions" },
      now === "Held" ? h("button", { type: "button", class: "primary", onclick: () => act("Confirmed", () => api.ask("POST", `/reservations/${one.metadata.id}:confirm`)) }, "Confirm") : null,
      ["Scheduled", "Active", "Held"].includes(now) ? [15, 30, 60].map((minutes) => h("button", { type: "button", key: minutes, onclick: () => extend(one, minutes) }, `+${minutes} min`)) : null,
      OPEN.has(now) && now !== "Pending" && slotOf(one) ? h("button", { type: "button", onclick: () => move(one) }, "Change") : null,
      OPEN.has(now) && (who.role !== "learner" || one.metadata.owner === who.name) && one.spec.roster.length < one.spec.seats
        ? h("button", { type: "button", onclick: () => claimLinks(one.metadata.id) }, "Links for free seats")
        : null,
      OPEN.has(now) ? h("button", { type: "button", class: "danger", onclick: () => cancel(one) }, "Cancel") : null,
    );
  };

  const detail = (id) => {
    const one = live.find("reservation", id);
    if (!one) return h("div", { class: "view" }, link("reservations", "← Reservations"), empty(`There is no reservation ${id} here; older ones lie in the archive.`));
    const why = one.status.explanation;
    return h(
      "div",
      { class: "view narrow" },
      link("reservations", "← Reservations"),
      h("h1", {}, id, " ", badge(one.status.phase)),
      h("p", { class: "lead" }, `${one.spec.seats} ${one.spec.seats === 1 ? "seat" : "seats"} of ${one.spec.definition}: ${verdict(one)}`),
      actions(one),
      facts([
        ["Slot", showSlot(slotOf(one))],
        ["Series", one.spec.series ? link(`series/${one.spec.series}`, `${one.spec.occurrence} of ${one.spec.series}`) : null],
        ["Owner", one.metadata.owner],
        ["Pool", one.status.pool ?? one.spec.pools.join(", then ")],
        ["Priority", one.spec.priority || null],
        ["Labels", Object.entries(one.metadata.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(", ") || null],
      ]),
      h("h2", {}, "Why"),
      h("div", { class: "why" }, reasons(why).map((line, at) => h("p", { key: at }, line)), why ? null : h("p", { class: "dim" }, "Not decided yet.")),
      one.status.conditions.filter((state) => state.status && !PASSING.has(state.type)).map((state) => h("p", { key: state.type, class: "warning" }, `${state.type}: ${state.message ?? state.reason ?? ""}`)),
      one.status.placement.length
        ? [
            h("h2", {}, "Seats"),
            table(
              [
                { title: "Seat", of: (seat) => seat.seat },
                { title: "Who", of: (seat) => one.spec.roster.find((entry) => entry.seat === seat.seat)?.user ?? "–" },
                { title: "Worker", of: (seat) => link(`workers/${seat.worker}`, seat.worker) },
                { title: "Lab", of: (seat) => {
                  const instance = live.find("instance", seat.instance);
                  return instance ? link(`instances/${seat.instance}`, badge(instance.status.phase)) : h("span", { class: "dim" }, "not yet");
                } },
                { title: "Ports", of: (seat) => Object.entries(seat.ports).map(([name, port]) => `${name} ${port}`).join(", ") || "–" },
              ],
              one.status.placement,
              { key: (seat) => seat.seat, caption: "Seats" },
            ),
          ]
        : null,
      h("h2", {}, "Story"),
      story.trouble ? h("p", { class: "dim" }, story.trouble) : null,
      h(
        "ol",
        { class: "story" },
        (story.events.length ? story.events.map(tell) : one.status.history.map((entry) => ({ fact: entry.to, at: entry.at, reason: entry.reason }))).map((entry, at) =>
          h("li", { key: at }, h("time", { datetime: entry.at }, showTime(entry.at)), h("b", {}, entry.fact), h("span", {}, entry.reason ?? ""))),
      ),
      who.role === "learner"
        ? null
        : [
            h("h2", {}, "Trace"),
            trace.id === id
              ? trace.trouble
                ? h("p", { class: "dim" }, trace.trouble)
                : trace.spans.length
                  ? waterfall(trace.spans)
                  : h("p", { class: "dim" }, "No spans are kept of it: it was not sampled, or lies too far back.")
              : null,
            h("button", { type: "button", onclick: () => loadTrace(id) }, trace.id === id ? "Read again" : "Show what each service did"),
          ],
    );
  };

  return {
    moved([id]) {
      if (id && id !== "new") void load(id);
      if (id === "new") {
        location.replace("#/reservations");
        bookingForm({ live, who });
      }
    },
    changed(kinds, one) {
      if (story.id && kinds.has("reservation") && (!one || one.metadata.id === story.id) && location.hash.includes(story.id)) void load(story.id);
    },
    draw([id]) {
      if (id && id !== "new") return detail(id);
      const wanted = text.toLowerCase();
      const rows = live
        .of("reservation")
        .filter((one) => (phase === "open" ? OPEN.has(one.status.phase) : phase === "" || one.status.phase === phase))
        .filter((one) => !own || one.metadata.owner === who.name)
        .filter((one) => !day || onDay(one, day))
        .filter((one) => `${one.metadata.id} ${one.spec.definition} ${one.metadata.owner} ${one.status.phase} ${JSON.stringify(one.metadata.labels ?? {})}`.toLowerCase().includes(wanted))
        .sort((one, other) => ms(slotOf(one)?.start ?? one.metadata.createdAt) - ms(slotOf(other)?.start ?? other.metadata.createdAt));
      return h(
        "div",
        { class: "view" },
        head(
          "Reservations",
          search(text, (words) => {
            text = words;
            draw();
          }),
          h("select", { "aria-label": "Phase", value: phase, onchange: (event) => {
            phase = event.target.value;
            draw();
          } }, h("option", { value: "open" }, "Open ones"), h("option", { value: "" }, "All"), PHASES.map((name) => h("option", { key: name, value: name }, name))),
          h("input", { type: "date", "aria-label": "Day", value: day, onchange: (event) => {
            day = event.target.value;
            draw();
          } }),
          check("only mine", own, (on) => {
            own = on;
            draw();
          }),
          h("span", { class: "dim", role: "status" }, `${rows.length} of ${live.resources.reservation.size}`),
          h("span", { class: "grow" }),
          h("button", { type: "button", class: "primary", onclick: () => bookingForm({ live, who }) }, "Reserve seats"),
        ),
        rows.length
          ? table(
              [
                { title: "Reservation", of: (one) => one.metadata.id },
                { title: "Phase", of: (one) => badge(one.status.phase) },
                { title: "Definition", of: (one) => one.spec.definition },
                { title: "Seats", of: (one) => one.spec.seats, class: "number" },
                { title: "Slot", of: (one) => showSlot(slotOf(one)) },
                { title: "Owner", of: (one) => one.metadata.owner },
                { title: "How it stands", of: verdict },
              ],
              rows.slice(0, 500),
              { key: (one) => one.metadata.id, href: (one) => `#/reservations/${one.metadata.id}`, fresh: (one) => live.isFresh("reservation", one.metadata.id), caption: "Reservations" },
            )
          : live.resources.reservation.size
            ? empty("No reservation is like that. Choose other filters.")
            : empty("Nothing is booked. ", h("button", { type: "button", onclick: () => bookingForm({ live, who }) }, "Reserve seats"), who.role === "learner" ? "" : " or publish a definition first."),
      );
    },
  };
}
