// A term of classes: how often, on which days, how long; as an RFC 5545 rule, and every date with its fit.

import { h } from "./dom.js";
import { ms, readTime, showClock, showDay, zone } from "./time.js";
import { field } from "./ui.js";

const DAYS = { MO: "Mon", TU: "Tue", WE: "Wed", TH: "Thu", FR: "Fri", SA: "Sat", SU: "Sun" };
const CODES = ["SU", "MO", "TU", "WE", "TH", "FR", "SA"];
export const REPEATS = {
  "": "Once",
  "FREQ=DAILY": "Every day",
  "FREQ=WEEKLY": "Every week",
  "FREQ=WEEKLY;INTERVAL=2": "Every second week",
  "FREQ=MONTHLY": "Every month",
  rule: "By a rule …",
};
export const onceOnly = { repeat: "", days: [], ends: "count", count: "10", until: "", rule: "FREQ=WEEKLY;BYDAY=MO,WE;COUNT=10", except: [], mode: "all" };

const isWeekly = (form) => form.repeat.startsWith("FREQ=WEEKLY");

/** The rule that the form describes. Raises with what is missing. */
export function ruleOf(form) {
  if (form.repeat === "rule") return form.rule.trim();
  const parts = [form.repeat];
  if (isWeekly(form) && form.days.length) parts.push(`BYDAY=${Object.keys(DAYS).filter((day) => form.days.includes(day)).join(",")}`);
  if (form.ends === "count") {
    if (!/^[1-9]\d{0,2}$/.test(form.count.trim()) || Number(form.count) > 400) throw new Error("dates: 1 to 400");
    parts.push(`COUNT=${form.count.trim()}`);
  } else {
    if (!/^\d{4}-\d{2}-\d{2}$/.test(form.until)) throw new Error("choose the last day");
    parts.push(`UNTIL=${form.until.replaceAll("-", "")}T235959`);
  }
  return parts.join(";");
}

/** What is asked beside a single slot. `put(name, value)` changes the form. */
export function termFields(form, put) {
  const toggle = (day) => put("days", form.days.includes(day) ? form.days.filter((one) => one !== day) : [...form.days, day]);
  const start = readTime(form.start);
  const own = start === null ? "" : CODES[new Date(start).getDay()];
  const input = (name, props = {}) => h("input", { name, value: form[name], oninput: (event) => put(name, event.target.value), ...props });
  return h(
    "fieldset",
    { class: "term", key: "term" },
    h("legend", {}, "Every date"),
    isWeekly(form)
      ? h(
          "div",
          { class: "group days", role: "group", "aria-label": "Days of the week", key: "days" },
          Object.entries(DAYS).map(([day, words]) =>
            h("button", { type: "button", key: day, "aria-pressed": form.days.includes(day) || (!form.days.length && day === own) ? "true" : "false", onclick: () => toggle(day) }, words)),
        )
      : null,
    form.repeat === "rule"
      ? field("Rule", input("rule"), "RFC 5545, such as FREQ=WEEKLY;BYDAY=TU,TH;COUNT=14")
      : h(
          "div",
          { class: "columns", key: "ends" },
          field("Ends", h("select", { name: "ends", value: form.ends, onchange: (event) => put("ends", event.target.value) }, h("option", { value: "count" }, "after a number of dates"), h("option", { value: "until" }, "on a day"))),
          form.ends === "count" ? field("Dates", input("count", { type: "number", min: 1, max: 400 })) : field("Last day", input("until", { type: "date" })),
        ),
    field("Where a date does not fit", h("select", { name: "mode", value: form.mode, onchange: (event) => put("mode", event.target.value) }, h("option", { value: "all" }, "book nothing"), h("option", { value: "fits" }, "book the dates that fit"))),
    h("small", {}, `The same hour on each date by the clocks of ${zone}, also when they change.`),
  );
}

/** Every date with its fit; one that does not fit, or falls on a holiday, can be left out. */
export function termFit(found, form, put) {
  const unfit = found.dates.filter((one) => !one.fits).length;
  const cost = found.costAddedUsd ? `, ${found.costAddedUsd.toFixed(2)} USD` : "";
  const head = unfit ? `${found.dates.length - unfit} of ${found.dates.length} dates fit` : `All ${found.dates.length} dates fit`;
  return [
    h("b", { key: "head" }, head),
    h("p", { key: "cost" }, `Power: ${found.workerHoursAdded.toFixed(1)} worker-hours more${cost}.`),
    h(
      "ol",
      { class: "dates", key: "dates", tabindex: 0, "aria-label": "Dates of the series" },
      found.dates.map((one) =>
        h(
          "li",
          { key: one.date, class: one.fits ? "fits" : "unfit" },
          h("span", { class: "mark", "aria-hidden": "true" }, one.fits ? "✓" : "✕"),
          h("span", {}, `${showDay(one.start)} ${showClock(ms(one.start))} – ${showClock(ms(one.end))}`, h("span", { class: "hidden" }, one.fits ? ", fits" : ", does not fit")),
          h("span", { class: "dim grow" }, one.fits ? (one.pool && one.pool !== "default" ? one.pool : "") : one.reason),
          h("button", { type: "button", class: "quiet", "aria-label": `Leave out ${showDay(one.start)}`, onclick: () => put("except", [...form.except, one.date]) }, "Leave out"),
        )),
    ),
    form.except.length
      ? h("p", { key: "except" }, "Left out: ", form.except.map((date) => h("button", { type: "button", class: "quiet", key: date, "aria-label": `Take ${date} back`, onclick: () => put("except", form.except.filter((one) => one !== date)) }, `${date} ✕`)))
      : null,
  ];
}
