// Series: a term of classes. Each date is a reservation; this one, this and the following, or all can be changed or cancelled.

import * as api from "../api.js";
import { h } from "../dom.js";
import { iso, ms, now, readSpan, readTime, showSlot, showSpan, showTime } from "../time.js";
import { badge, check, confirmFirst, empty, facts, field, head, link, moves, note, search, table } from "../ui.js";
import { verdict } from "../words.js";
import { booking as bookingForm } from "./booking.js";

const SCOPES = { this: "this date", following: "this and the following", all: "all dates" };
const WEEKDAYS = { MO: "Monday", TU: "Tuesday", WE: "Wednesday", TH: "Thursday", FR: "Friday", SA: "Saturday", SU: "Sunday" };
const UNITS = { DAILY: "day", WEEKLY: "week", MONTHLY: "month", YEARLY: "year" };
const OVER = new Set(["Cancelled", "Refused", "Completed"]);

/** The rule in words, as far as it is an everyday one; else the rule. */
export function ruleWords(rule) {
  const parts = Object.fromEntries(rule.replace(/^RRULE:/i, "").split(";").map((part) => part.split("=")));
  const { FREQ, INTERVAL = "1", BYDAY, COUNT, UNTIL, ...others } = parts;
  if (!UNITS[FREQ] || Object.keys(others).length) return rule;
  const often = INTERVAL === "1" ? `every ${UNITS[FREQ]}` : `every ${INTERVAL} ${UNITS[FREQ]}s`;
  const days = BYDAY?.split(",").map((day) => WEEKDAYS[day] ?? day).join(", ");
  const last = UNTIL ? `until ${UNTIL.slice(0, 4)}-${UNTIL.slice(4, 6)}-${UNTIL.slice(6, 8)}` : COUNT ? `${COUNT} times` : "";
  return [often, days && `on ${days}`, last].filter(Boolean).join(", ");
}

const scopeField = (wanted, again, date) =>
  h(
    "fieldset",
    { class: "scopes" },
    h("legend", {}, "Which dates"),
    Object.entries(SCOPES).map(([value, words]) =>
      h("label", { key: value }, h("input", { type: "radio", name: "scope", value, checked: wanted.scope === value, onchange: () => {
        wanted.scope = value;
        again();
      } }), ` ${words}${value === "this" ? ` (${date})` : ""}`)),
  );

const input = (wanted, name, label, hint, again, props = {}) =>
  field(label, h("input", { name, value: wanted[name], oninput: (event) => {
    wanted[name] = event.target.value;
    again();
  }, ...props }), hint);

export function series({ live, who, draw }) {
  let text = "";
  let ended = false;

  const told = (resource, words) => {
    const kept = resource?.status?.message;
    note(kept ? `${words}: ${kept}` : words);
  };

  const change = (one, date) => {
    const wanted = { scope: "this", start: "", duration: "", seats: "", definition: "" };
    confirmFirst(
      `Change ${one.metadata.id}`,
      `${date.date} has ${showSlot(date)}. Leave empty what stays. Other dates move by as much on the wall clock; dates that have begun stay.`,
      "Change",
      async () => {
        const body = { scope: wanted.scope, date: date.date };
        if (wanted.start.trim()) {
          const at = readTime(wanted.start);
          if (at === null) throw new Error(`"${wanted.start}" is no time: write 14:30, tomorrow 09:00 or 2027-03-01 09:00`);
          body.start = iso(at);
        }
        if (wanted.duration.trim()) {
          const span = readSpan(wanted.duration);
          if (!span) throw new Error(`"${wanted.duration}" is no length of time: write 90m, 1h30 or 2h`);
          body.durationMinutes = Math.round(span / 60_000);
        }
        if (wanted.seats.trim()) body.seats = Number(wanted.seats);
        if (wanted.definition.trim()) body.definition = wanted.definition.trim();
        const fresh = await api.get(`/series/${one.metadata.id}`);
        const { resource } = await api.ask("PATCH", `/series/${one.metadata.id}`, { body, version: fresh.metadata.resourceVersion, wait: 25 });
        told(resource, "Changed");
      },
      {
        fields: (again) => [
          scopeField(wanted, again, date.date),
          h(
            "div",
            { class: "columns" },
            input(wanted, "start", `New start of ${date.date}`, "14:30, 2027-03-10 09:00", again, { placeholder: showTime(date.start) }),
            input(wanted, "duration", "New length", "90m, 1h30", again, { placeholder: showSpan(ms(date.end) - ms(date.start)) }),
            input(wanted, "seats", "Seats", "", again, { type: "number", min: 1, max: 100, placeholder: String(one.spec.template.seats) }),
            input(wanted, "definition", "Definition", "", again, { placeholder: one.spec.template.definition }),
          ),
        ],
      },
    );
  };

  const cancel = (one, date) => {
    const wanted = { scope: date ? "this" : "all", reason: "" };
    confirmFirst(
      date ? `Cancel dates of ${one.metadata.id}?` : `Cancel ${one.metadata.id}?`,
      date ? "A lab that runs goes on to its end, unless its date is the one that is meant." : "Every date that has not begun is given back.",
      date ? "Cancel the dates" : "Cancel the series",
      async () => {
        const query = new URLSearchParams({ scope: wanted.scope, ...(date && wanted.scope !== "all" ? { date: date.date } : {}), ...(wanted.reason.trim() ? { reason: wanted.reason.trim() } : {}) });
        const { resource } = await api.ask("DELETE", `/series/${one.metadata.id}?${query}`, { wait: 25 });
        told(resource, "Cancelled");
      },
      { fields: (again) => [date ? scopeField(wanted, again, date.date) : null, input(wanted, "reason", "Reason", "may stay empty", again)] },
    );
  };

  const dateActions = (one, date) =>
    ["placed", "held"].includes(date.state) && ms(date.end) > now() && !OVER.has(one.status.phase)
      ? h(
          "div",
          { class: "actions" },
          ms(date.start) > now() ? h("button", { type: "button", "aria-label": `Change ${date.date}`, onclick: () => change(one, date) }, "Change") : null,
          h("button", { type: "button", class: "danger", "aria-label": `Cancel ${date.date}`, onclick: () => cancel(one, date) }, "Cancel"),
        )
      : null;

  const stateOf = (date) => {
    const booked = date.reservation && live.find("reservation", date.reservation);
    if (date.state !== "placed" || !booked) return badge(date.state[0].toUpperCase() + date.state.slice(1));
    return badge(booked.status.phase);
  };

  const detail = (id) => {
    const one = live.find("series", id);
    if (!one) return h("div", { class: "view" }, link("series", "← Series"), empty(`There is no series ${id} here; older ones lie in the archive.`));
    const { template } = one.spec;
    const open = !OVER.has(one.status.phase);
    return h(
      "div",
      { class: "view narrow" },
      link("series", "← Series"),
      h("h1", {}, id, " ", badge(one.status.phase)),
      h("p", { class: "lead" }, `${template.seats} ${template.seats === 1 ? "seat" : "seats"} of ${template.definition}, ${ruleWords(one.spec.rule)}`),
      open ? h("div", { class: "actions" }, h("button", { type: "button", class: "danger", onclick: () => cancel(one, null) }, "Cancel the series")) : null,
      one.status.work ? h("p", { class: "warning", role: "status" }, `${one.status.work.stage}: ${one.status.work.left.length} dates left`) : null,
      facts([
        ["How it stands", one.status.message ?? one.status.reason],
        ["Owner", one.metadata.owner],
        ["First", showTime(one.spec.first)],
        ["Zone", one.spec.timezone],
        ["Left out", one.spec.exceptDates.join(", ")],
        ["Pools", template.pools.join(", then ")],
        ["Where a date does not fit", one.spec.mode === "all" ? "nothing is booked" : "the others are booked"],
      ]),
      h("h2", {}, "Dates"),
      one.status.occurrences.length
        ? table(
            [
              { title: "Date", of: (date) => date.date },
              { title: "Slot", of: (date) => showSlot(date) },
              { title: "State", of: stateOf },
              { title: "Reservation", of: (date) => {
                const booked = date.reservation && live.find("reservation", date.reservation);
                return date.reservation ? link(`reservations/${date.reservation}`, booked ? verdict(booked) : date.reservation) : (date.reason ?? "–");
              } },
              ...(open ? [{ title: "What can be done", hidden: true, of: (date) => dateActions(one, date) }] : []),
            ],
            one.status.occurrences,
            { key: (date) => date.date, fresh: (date) => date.reservation && live.isFresh("reservation", date.reservation), caption: "Dates of the series" },
          )
        : empty("Its dates are being placed."),
      h("h2", {}, "Story"),
      moves(one.status.history),
    );
  };

  return {
    draw([id]) {
      if (id) return detail(id);
      const wanted = text.toLowerCase();
      const next = (one) => one.status.occurrences.find((date) => date.state === "placed" && ms(date.end) > now());
      const rows = live
        .of("series")
        .filter((one) => ended || !OVER.has(one.status.phase))
        .filter((one) => `${one.metadata.id} ${one.spec.template.definition} ${one.metadata.owner} ${one.status.phase}`.toLowerCase().includes(wanted))
        .sort((one, other) => ms(next(one)?.start ?? one.spec.first) - ms(next(other)?.start ?? other.spec.first));
      return h(
        "div",
        { class: "view" },
        head(
          "Series",
          search(text, (words) => {
            text = words;
            draw();
          }),
          check("ended ones too", ended, (on) => {
            ended = on;
            draw();
          }),
          h("span", { class: "grow" }),
          h("button", { type: "button", class: "primary", onclick: () => bookingForm({ live, who }, { repeat: "FREQ=WEEKLY" }) }, "Book a series"),
        ),
        rows.length
          ? table(
              [
                { title: "Series", of: (one) => one.metadata.id },
                { title: "Phase", of: (one) => badge(one.status.phase) },
                { title: "Definition", of: (one) => one.spec.template.definition },
                { title: "Seats", of: (one) => one.spec.template.seats, class: "number" },
                { title: "When", of: (one) => ruleWords(one.spec.rule) },
                { title: "Dates", of: (one) => `${one.status.occurrences.filter((date) => date.state === "placed").length} of ${one.status.occurrences.length}`, class: "number" },
                { title: "Next", of: (one) => (next(one) ? showSlot(next(one)) : "–") },
                { title: "Owner", of: (one) => one.metadata.owner },
              ],
              rows,
              { key: (one) => one.metadata.id, href: (one) => `#/series/${one.metadata.id}`, fresh: (one) => live.isFresh("series", one.metadata.id), caption: "Series" },
            )
          : empty("No term is booked. ", h("button", { type: "button", onclick: () => bookingForm({ live, who }, { repeat: "FREQ=WEEKLY" }) }, "Book a series"), " of classes: the same hour on every date of a rule."),
      );
    },
  };
}
