// What was used: seats and hours by definition, and the tenant's limits.

import * as api from "../api.js";
import { h } from "../dom.js";
import { addDays, dayOf, iso, now, showDay } from "../time.js";
import { empty, facts, meter, round, table, trouble } from "../ui.js";

const SPANS = { 7: "7 days", 30: "30 days", 90: "90 days" };

export function usage({ who, draw }) {
  let days = 30;
  let report = null;
  let quota = null;
  let error = null;

  const load = async () => {
    const to = addDays(dayOf(now()), 1);
    try {
      report = await api.get(`/usage?from=${iso(addDays(to, -days))}&to=${iso(to)}`);
      if (who.role === "admin") quota = await api.get(`/quotas/${who.tenant}`);
      error = null;
    } catch (problem) {
      error = problem;
    }
    draw();
  };
  void load();

  return {
    draw() {
      const limits = Object.entries(quota?.limits ?? {}).filter(([, value]) => value !== null && typeof value !== "object");
      return h(
        "div",
        { class: "view narrow" },
        h("h1", {}, "Usage"),
        h("div", { class: "tools" }, h("select", { "aria-label": "Span", value: String(days), onchange: (event) => {
          days = Number(event.target.value);
          void load();
        } }, Object.entries(SPANS).map(([value, title]) => h("option", { key: value, value }, title)))),
        trouble(error),
        report
          ? [
              facts([
                ["Span", `${showDay(report.start)} – ${showDay(report.end)}`],
                ["Seats", report.seats],
                ["Seat-hours", round(report.seatHours)],
                ["Worker-hours", report.workerHours === undefined ? null : round(report.workerHours)],
                ["Cost", report.costUsd === undefined ? null : `$${report.costUsd.toFixed(2)}`],
                ["Reservations", Object.entries(report.reservations).map(([phase, count]) => `${count} ${phase}`).join(", ") || "none"],
              ]),
              report.definitions.length
                ? table(
                    [
                      { title: "Definition", of: (one) => one.definition },
                      { title: "Reservations", of: (one) => one.reservations, class: "number" },
                      { title: "Seats", of: (one) => one.seats, class: "number" },
                      { title: "Seat-hours", of: (one) => round(one.seatHours), class: "number" },
                      { title: "Share", of: (one) => meter("Share", one.seatHours, report.seatHours, " h"), class: "bars" },
                    ],
                    [...report.definitions].sort((one, other) => other.seatHours - one.seatHours),
                    { key: (one) => one.definition, caption: "Usage by definition" },
                  )
                : empty("Nothing was used in this span."),
            ]
          : empty("…"),
        limits.length ? [h("h2", {}, "Limits"), facts(limits.map(([name, value]) => [name, `${value}${quota.used?.[name] === undefined ? "" : ` (open: ${round(quota.used[name])})`}`]))] : null,
      );
    },
  };
}
