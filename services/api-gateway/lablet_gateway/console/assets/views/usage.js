// What was used: seats and hours by definition, and the tenant's limits.

import * as api from "../api.js";
import { h } from "../dom.js";
import { addDays, dayOf, iso, now, showDay } from "../time.js";
import { act, empty, facts, head, meter, round, table, trouble, waiting } from "../ui.js";
import { runsFleet } from "../words.js";

const SPANS = { 7: "7 days", 30: "30 days", 90: "90 days" };

export function usage({ who, draw }) {
  let days = 30;
  let report = null;
  let quota = null;
  let error = null;
  let asked = 0;

  const span = () => {
    const to = addDays(dayOf(now()), 1);
    return `from=${iso(addDays(to, -days))}&to=${iso(to)}`;
  };

  const load = async () => {
    const mine = ++asked;
    try {
      const found = await api.get(`/usage?${span()}`);
      const limits = who.role === "admin" && runsFleet(who) ? await api.get(`/quotas/${who.tenant}`) : null;
      if (mine !== asked) return;
      [report, quota, error] = [found, limits, null];
    } catch (problem) {
      if (mine !== asked) return;
      error = problem;
    }
    draw();
  };
  void load();

  return {
    again: load,
    draw() {
      const limits = Object.entries(quota?.limits ?? {}).filter(([, value]) => value !== null && typeof value !== "object");
      return h(
        "div",
        { class: "view narrow" },
        head("Usage", h("select", { "aria-label": "Span", value: String(days), onchange: (event) => {
          days = Number(event.target.value);
          void load();
        } }, Object.entries(SPANS).map(([value, title]) => h("option", { key: value, value }, title))), h("span", { class: "grow" }), h("button", { type: "button", onclick: () => act("Saved", () => api.download(`/usage?${span()}&format=csv`, `usage-${who.tenant}.csv`)) }, "As CSV")),
        trouble(error),
        report
          ? [
              h(
                "dl",
                { class: "figures" },
                [
                  ["Seats", report.seats],
                  ["Seat-hours", round(report.seatHours)],
                  ["Worker-hours", round(report.workerHours)],
                  ["Cost, USD", report.costUsd.toFixed(2)],
                ].map(([term, value]) => h("div", { key: term }, h("dt", {}, term), h("dd", {}, value))),
              ),
              h("p", { class: "dim" }, `${showDay(report.start)} – ${showDay(addDays(report.end, -1))}. Reservations: ${Object.entries(report.reservations).map(([phase, count]) => `${count} ${phase}`).join(", ") || "none"}.`),
              report.definitions.length
                ? table(
                    [
                      { title: "Definition", of: (one) => one.definition },
                      { title: "Reservations", of: (one) => one.reservations, class: "number" },
                      { title: "Seats", of: (one) => one.seats, class: "number" },
                      { title: "Seat-hours", of: (one) => round(one.seatHours), class: "number" },
                      { title: "Worker-hours", of: (one) => round(one.workerHours), class: "number" },
                      { title: "Cost, USD", of: (one) => one.costUsd.toFixed(2), class: "number" },
                      { title: "Share", of: (one) => meter("Share", one.seatHours, report.seatHours, " h"), class: "bars" },
                    ],
                    [...report.definitions].sort((one, other) => other.seatHours - one.seatHours),
                    { key: (one) => one.definition, caption: "Usage by definition" },
                  )
                : empty("Nothing was used in this span."),
            ]
          : error ? null : waiting("Usage"),
        limits.length ? [h("h2", {}, "Limits"), facts(limits.map(([name, value]) => [name, `${value}${quota.used?.[name] === undefined ? "" : ` (open: ${round(quota.used[name])})`}`]))] : null,
      );
    },
  };
}
