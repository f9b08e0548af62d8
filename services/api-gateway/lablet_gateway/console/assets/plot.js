// The calendar's picture: the axis, how much of the pool is booked, and one row a worker. Pure: a view of time and width in,
// a description out.

import { h } from "./dom.js";
import { BAR } from "./rows.js";
import { DAY, HOUR, addDays, ms, showClock, showDay, showSlot } from "./time.js";

const LEAST = 3;
const LETTER = 6.2;
const HEAD = 34;
const CURVE = 28;

/** A span of time on so many pixels. */
export class Scale {
  constructor(from, to, width) {
    this.from = from;
    this.to = to;
    this.width = width;
    this.days = Math.round((to - from) / DAY);
    this.name = `${from}|${to}|${width}`;
  }

  x(at) {
    return ((Math.min(Math.max(at, this.from), this.to) - this.from) / (this.to - this.from)) * this.width;
  }

  span(from, to, least = 1) {
    const x = this.x(from);
    return { x, width: Math.max(least, this.x(to) - x) };
  }

  ticks() {
    const found = [];
    if (this.days <= 1) {
      const hours = this.width < 500 ? 4 : 2;
      for (let at = this.from; at < this.to; at += hours * HOUR) found.push({ at, words: showClock(at) });
    } else {
      const step = this.days > 7 ? (this.width < 500 ? 14 : 7) : this.width < 500 ? 2 : 1;
      for (let at = this.from; at < this.to; at = addDays(at, step)) found.push({ at, words: showDay(at) });
    }
    return found;
  }

  weekends() {
    const found = [];
    if (this.days > 1) for (let at = this.from; at < this.to; at = addDays(at, 1)) if ([0, 6].includes(new Date(at).getDay())) found.push(at);
    return found;
  }
}

/** Said of a bar; formatting times is what costs, so it is done once. */
const barWords = (bar) => (bar.words ??= wordsOf(bar));
const wordsOf = (bar) =>
  bar.reservation ? `${bar.definition}, ${bar.seats} ${bar.seats === 1 ? "seat" : "seats"}, ${showSlot(bar)}, ${bar.phase}` : `another tenant, ${showSlot(bar)}`;

function label(bar, room) {
  const words = bar.reservation ? `${bar.seats > 1 ? `${bar.seats}× ` : ""}${bar.definition.split("@")[0]}` : "";
  const letters = Math.floor((room - 8) / LETTER);
  return words.length <= letters ? words : letters > 3 ? `${words.slice(0, letters - 1)}…` : "";
}

/** Many boxes of one kind as one shape. */
const boxes = (spans, y, height) => spans.map(({ x, width }) => `M${x.toFixed(1)} ${y}h${width.toFixed(1)}v${height}h${(-width).toFixed(1)}z`).join("");

function drawBar(row, bar, scale, { fresh, chosen, cursor }) {
  const { x, width } = scale.span(bar.from, bar.to, LEAST);
  const state = `${bar.reservation ? "" : " foreign"}${fresh ? " fresh" : ""}${chosen ? " chosen" : ""}`;
  const words = label(bar, width);
  return h(
    "g",
    {
      key: bar.key,
      class: `bar phase-${String(bar.phase ?? "").toLowerCase()}${state}`,
      tabindex: cursor ? 0 : -1,
      role: "button",
      "data-worker": row.name,
      "data-bar": bar.key,
      "aria-pressed": chosen ? "true" : "false",
      "aria-label": `${row.name}: ${barWords(bar)}`,
    },
    h("title", {}, barWords(bar)),
    h("rect", { class: "body", x, y: bar.y + 1, width, height: BAR, rx: 3 }),
    words ? h("text", { x: x + 5, y: bar.y + BAR - 3 }, words) : null,
  );
}

/** One worker, from its own top. */
export function drawRow(row, scale, turnaround, marks) {
  const seen = row.bars.filter((bar) => bar.to + turnaround > scale.from && bar.from < scale.to);
  const rests = turnaround ? seen.map((bar) => boxes([scale.span(bar.to, bar.to + turnaround, 0)], bar.y + 3, BAR - 4)).join("") : "";
  const power = boxes(row.worker.powerSpans.map((span) => scale.span(ms(span.start), ms(span.end))), row.tall - 4, 3);
  return h(
    "g",
    {},
    h("line", { class: "rule", x1: 0, x2: scale.width, y1: row.tall, y2: row.tall }),
    row.worker.maintenance.map((span, at) =>
      h("rect", { key: `rest-${at}`, class: "maintenance", ...scale.span(ms(span.from), ms(span.to)), y: 0, height: row.tall - 1 }, h("title", {}, `Maintenance: ${showSlot({ start: span.from, end: span.to })} ${span.reason ?? ""}`))),
    power ? h("path", { key: "power", class: "power", d: power }) : null,
    rests ? h("path", { key: "rests", class: "turnaround", d: rests }) : null,
    seen.filter((bar) => bar.to > scale.from).map((bar) => drawBar(row, bar, scale, marks(bar))),
  );
}

const shareOf = (step) =>
  Math.max(...["cpuCores", "memoryGb", "storageGb", "nodes"].map((of) => {
    const all = step.booked[of] + step.free[of];
    return all > 0 ? Math.min(1, step.booked[of] / all) : 0;
  }));

/** How much of what binds first is booked, over time. */
function loadCurve(steps, scale) {
  const shares = steps.map(shareOf);
  const points = steps.flatMap((step, at) => {
    const y = (CURVE - 2 - (CURVE - 4) * shares[at]).toFixed(1);
    return [`${scale.x(ms(step.start)).toFixed(1)},${y}`, `${scale.x(ms(step.end)).toFixed(1)},${y}`];
  });
  const told = `Booked of what binds first: at most ${Math.round(100 * Math.max(0, ...shares))} % of the pool`;
  return h("svg", { class: "curve", width: scale.width, height: CURVE, role: "img", "aria-label": told }, h("title", {}, told), h("polygon", { points: `0,${CURVE - 2} ${points.join(" ")} ${scale.width},${CURVE - 2}` }));
}

export const axis = (steps, scale) => [
  h("svg", { key: "hours", width: scale.width, height: HEAD, "aria-hidden": "true" }, scale.ticks().map((tick) => h("g", { key: tick.at }, h("line", { class: "tick", x1: scale.x(tick.at), x2: scale.x(tick.at), y1: 18, y2: HEAD }), h("text", { x: scale.x(tick.at) + 4, y: 28 }, tick.words)))),
  loadCurve(steps, scale),
];

/** What lies behind all rows. */
export const ground = (scale, tall) => [
  h("defs", { key: "defs" }, h("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, h("line", { x1: 0, y1: 0, x2: 0, y2: 6 }))),
  scale.weekends().map((at) => h("rect", { key: `w${at}`, class: "weekend", ...scale.span(at, addDays(at, 1)), y: 0, height: tall })),
  scale.ticks().map((tick) => h("line", { key: `t${tick.at}`, class: "grid", x1: scale.x(tick.at), x2: scale.x(tick.at), y1: 0, y2: tall })),
];
