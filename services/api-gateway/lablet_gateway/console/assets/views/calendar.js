// Workers over time: seats, the rest between them, maintenance, when the power is on, and now. Only the rows in sight are
// drawn. Seats of one reservation on one worker are one bar.

import * as api from "../api.js";
import { h, whenQuiet } from "../dom.js";
import { DAY, HOUR, MINUTE, addDays, dayOf, iso, ms, now, showClock, showDay, showSlot } from "../time.js";
import { badge, empty, link, table, trouble } from "../ui.js";

const LANE = 18;
const PAD = 5;
const HEAD = 34;
const LEAST = 3;
const OVERSCAN = 400;
const ZOOMS = { day: 1, week: 7, month: 28 };

/** Bars of one worker, each in a lane of its own while it overlaps another. */
export function lanes(bookings) {
  const merged = new Map();
  for (const one of bookings) {
    const key = one.reservation ? `${one.reservation}|${one.start}|${one.end}` : `${one.instance ?? one.start}|${one.end}|${merged.size}`;
    const bar = merged.get(key);
    if (bar) bar.seats += 1;
    else merged.set(key, { ...one, key, seats: 1, from: ms(one.start), to: ms(one.end) });
  }
  const ends = [];
  const bars = [...merged.values()].sort((one, other) => one.from - other.from || other.to - one.to);
  for (const bar of bars) {
    let lane = ends.findIndex((end) => end <= bar.from);
    if (lane < 0) lane = ends.length;
    ends[lane] = bar.to;
    bar.lane = lane;
  }
  return { bars, height: Math.max(1, ends.length) };
}

export function calendar({ live, draw }) {
  let pool = "default";
  let zoom = "day";
  let from = dayOf(now());
  let data = null;
  let rows = [];
  let error = null;
  let chosen = null;
  let asTable = false;
  let scroller = null;
  let size = { top: 0, height: 600, width: 900 };
  let asked = 0;

  const days = () => ZOOMS[zoom];
  const to = () => addDays(from, days());

  const load = async () => {
    const mine = ++asked;
    try {
      const found = await api.get(`/pools/${pool}/calendar?from=${iso(from)}&to=${iso(to())}`);
      if (mine !== asked) return;
      data = found;
      let at = 0;
      rows = found.workers.map((worker) => {
        const laid = lanes(worker.bookings);
        const row = { worker, ...laid, at, tall: laid.height * LANE + 2 * PAD };
        at += row.tall;
        return row;
      });
      error = null;
    } catch (problem) {
      if (mine === asked) error = problem;
    }
    draw();
  };
  const soon = whenQuiet(load, 300);
  void load();

  const show = (changes) => {
    ({ pool = pool, zoom = zoom, from = from } = changes);
    void load();
    draw();
  };

  const observe = new ResizeObserver(([entry]) => {
    size = { ...size, width: entry.contentRect.width, height: entry.contentRect.height };
    draw();
  });
  const hold = (node) => {
    scroller = node;
    observe.observe(node);
    node.addEventListener("scroll", () => {
      size = { ...size, top: node.scrollTop };
      draw();
    });
  };

  const x = (at) => ((Math.min(Math.max(at, from), to()) - from) / (to() - from)) * size.width;

  const words = (bar) =>
    bar.reservation ? `${bar.definition}, ${bar.seats} ${bar.seats === 1 ? "seat" : "seats"}, ${showSlot(bar)}, ${bar.phase}` : `another tenant, ${showSlot(bar)}`;

  const pick = (row, bar) => {
    chosen = chosen?.key === bar.key && chosen.worker === row.worker.worker ? null : { ...bar, worker: row.worker.worker };
    draw();
  };

  const drawBar = (row, bar, turnaround) => {
    const left = x(bar.from);
    const wide = Math.max(LEAST, x(bar.to) - left);
    const y = row.at + PAD + bar.lane * LANE;
    const fresh = bar.reservation && live.isFresh("reservation", bar.reservation);
    const label = bar.reservation ? `${bar.definition.split("@")[0]}${bar.seats > 1 ? ` ×${bar.seats}` : ""}` : "";
    return h(
      "g",
      {
        key: `${row.worker.worker}|${bar.key}`,
        class: `bar phase-${String(bar.phase ?? "").toLowerCase()}${bar.reservation ? "" : " foreign"}${fresh ? " fresh" : ""}${chosen?.key === bar.key ? " chosen" : ""}`,
        tabindex: 0,
        role: "button",
        "aria-label": `${row.worker.worker}: ${words(bar)}`,
        onclick: () => pick(row, bar),
        onkeydown: (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            pick(row, bar);
          }
        },
      },
      h("title", {}, words(bar)),
      turnaround && bar.to < to() ? h("rect", { class: "turnaround", x: x(bar.to), y: y + 2, width: Math.max(0, x(bar.to + turnaround) - x(bar.to)), height: LANE - 4 }) : null,
      h("rect", { class: "body", x: left, y: y + 1, width: wide, height: LANE - 2, rx: 3 }),
      wide > 34 ? h("text", { x: left + 5, y: y + LANE - 5 }, label.slice(0, Math.floor((wide - 8) / 6.2))) : null,
    );
  };

  const drawRow = (row, turnaround) => [
    h("line", { key: `line-${row.worker.worker}`, class: "rule", x1: 0, x2: size.width, y1: row.at + row.tall, y2: row.at + row.tall }),
    row.worker.powerSpans.map((span, at) =>
      h("rect", { key: `on-${row.worker.worker}-${at}`, class: "power", x: x(ms(span.start)), y: row.at + row.tall - 4, width: Math.max(1, x(ms(span.end)) - x(ms(span.start))), height: 3 }, h("title", {}, `${row.worker.worker} is on ${showSlot(span)}`))),
    row.worker.maintenance.map((span, at) =>
      h("rect", { key: `rest-${row.worker.worker}-${at}`, class: "maintenance", x: x(ms(span.from)), y: row.at, width: Math.max(1, x(ms(span.to)) - x(ms(span.from))), height: row.tall }, h("title", {}, `Maintenance: ${showSlot({ start: span.from, end: span.to })} ${span.reason ?? ""}`))),
    row.bars.filter((bar) => bar.to > from && bar.from < to()).map((bar) => drawBar(row, bar, turnaround)),
  ];

  const ticks = () => {
    const found = [];
    if (days() === 1) for (let at = from; at < to(); at += 2 * HOUR) found.push({ at, words: showClock(at) });
    else for (let at = from; at < to(); at = addDays(at, days() > 7 ? 7 : 1)) found.push({ at, words: showDay(at) });
    return found;
  };

  const loadCurve = () => {
    const shares = data.steps.map((step) => Math.max(...["cpuCores", "memoryGb", "storageGb", "nodes"].map((of) => {
      const all = step.booked[of] + step.free[of];
      return all > 0 ? Math.min(1, step.booked[of] / all) : 0;
    })));
    const points = data.steps.flatMap((step, at) => {
      const y = 26 - 24 * shares[at];
      return [`${x(ms(step.start))},${y}`, `${x(ms(step.end))},${y}`];
    });
    const told = `Booked of what binds first: at most ${Math.round(100 * Math.max(0, ...shares))} % of the pool`;
    return h("svg", { class: "curve", width: size.width, height: 28, role: "img", "aria-label": told }, h("title", {}, told), h("polygon", { points: `0,26 ${points.join(" ")} ${size.width},26` }));
  };

  const chart = () => {
    const tall = rows.length ? rows[rows.length - 1].at + rows[rows.length - 1].tall : 0;
    const spec = live.find("pool", pool)?.spec;
    const turnaround = (spec?.turnaroundMinutes ?? 0) * MINUTE;
    const seen = rows.filter((row) => row.at + row.tall > size.top - OVERSCAN && row.at < size.top + size.height + OVERSCAN);
    const at = now();
    return h(
      "div",
      { class: "calendar" },
      h("div", { class: "corner" }, `${data.workers.length} workers`),
      h(
        "div",
        { class: "axis" },
        h("svg", { width: size.width, height: HEAD, "aria-hidden": "true" }, ticks().map((tick) => h("g", { key: tick.at }, h("line", { class: "tick", x1: x(tick.at), x2: x(tick.at), y1: 18, y2: HEAD }), h("text", { x: x(tick.at) + 3, y: 28 }, tick.words)))),
        loadCurve(),
      ),
      h(
        "div",
        { class: "body", ref: undefined },
        h(
          "div",
          { class: "rows", ref: hold, tabindex: 0, "aria-label": "Calendar of the workers" },
          h(
            "div",
            { class: "names" },
            h("svg", { width: 1, height: tall, "aria-hidden": "true" }),
            seen.map((row) => h("div", { key: row.worker.worker, class: "rowname", ref: undefined, "data-at": row.at }, link(`workers/${row.worker.worker}`, row.worker.worker), h("span", { class: `dot phase-${row.worker.phase.toLowerCase()}`, title: row.worker.phase }))),
          ),
          h(
            "svg",
            { class: "plot", width: size.width, height: tall, role: "group", "aria-label": `Bookings from ${showDay(from)}` },
            h("defs", {}, h("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, h("line", { x1: 0, y1: 0, x2: 0, y2: 6 }))),
            ticks().map((tick) => h("line", { key: `t${tick.at}`, class: "grid", x1: x(tick.at), x2: x(tick.at), y1: 0, y2: tall })),
            seen.map((row) => drawRow(row, turnaround)),
            at >= from && at < to() ? h("line", { key: "now", class: "nowline", x1: x(at), x2: x(at), y1: 0, y2: tall }) : null,
          ),
        ),
      ),
    );
  };

  const drawer = () => {
    if (!chosen) return null;
    const one = chosen.reservation ? live.find("reservation", chosen.reservation) : null;
    return h(
      "aside",
      { class: "drawer", "aria-label": "Details" },
      h("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => {
        chosen = null;
        draw();
      } }, "✕"),
      h("h2", {}, chosen.definition ?? "Another tenant"),
      h("p", {}, badge(one?.status.phase ?? chosen.phase ?? "")),
      h("p", {}, showSlot(chosen)),
      h("p", {}, `${chosen.seats} ${chosen.seats === 1 ? "seat" : "seats"} on `, link(`workers/${chosen.worker}`, chosen.worker)),
      one ? h("p", {}, `Owner: ${one.metadata.owner}`) : null,
      one ? h("p", {}, link(`reservations/${chosen.reservation}`, "Open the reservation")) : null,
    );
  };

  const list = () =>
    table(
      [
        { title: "Worker", of: (one) => one.worker },
        { title: "Slot", of: (one) => showSlot(one.bar) },
        { title: "What", of: (one) => (one.bar.reservation ? link(`reservations/${one.bar.reservation}`, one.bar.definition) : "another tenant") },
        { title: "Seats", of: (one) => one.bar.seats, class: "number" },
        { title: "Phase", of: (one) => badge(one.bar.phase) },
      ],
      rows.flatMap((row) => row.bars.map((bar) => ({ worker: row.worker.worker, bar }))).slice(0, 1_000),
      { key: (one) => `${one.worker}${one.bar.key}`, caption: "Bookings" },
    );

  return {
    changed(kinds) {
      if (kinds.has("reservation") || kinds.has("instance") || kinds.has("worker") || kinds.has("pool")) soon();
    },
    gone() {
      observe.disconnect();
      soon.cancel();
    },
    drawn() {
      if (!scroller) return;
      for (const name of scroller.querySelectorAll(".rowname")) name.style.setProperty("top", `${name.dataset.at}px`);
    },
    draw() {
      const pools = live.of("pool").map((one) => one.metadata.id).sort();
      return h(
        "div",
        { class: "view wide" },
        h(
          "div",
          { class: "tools" },
          h("h1", {}, "Calendar"),
          h("select", { "aria-label": "Pool", value: pool, onchange: (event) => show({ pool: event.target.value }) }, (pools.length ? pools : [pool]).map((name) => h("option", { key: name, value: name }, name))),
          h("div", { class: "group", role: "group", "aria-label": "Zoom" }, Object.keys(ZOOMS).map((name) => h("button", { type: "button", key: name, "aria-pressed": zoom === name ? "true" : "false", onclick: () => show({ zoom: name }) }, name))),
          h(
            "div",
            { class: "group", role: "group", "aria-label": "Time" },
            h("button", { type: "button", "aria-label": "Earlier", onclick: () => show({ from: addDays(from, -days()) }) }, "‹"),
            h("button", { type: "button", onclick: () => show({ from: dayOf(now()) }) }, "Today"),
            h("button", { type: "button", "aria-label": "Later", onclick: () => show({ from: addDays(from, days()) }) }, "›"),
          ),
          h("span", { class: "dim" }, days() === 1 ? showDay(from) : `${showDay(from)} – ${showDay(to() - DAY / 2)}`),
          h("span", { class: "grow" }),
          h("button", { type: "button", "aria-pressed": asTable ? "true" : "false", onclick: () => {
            asTable = !asTable;
            draw();
          } }, "As a table"),
          h("a", { class: "button primary", href: "#/reservations/new" }, "Reserve seats"),
        ),
        trouble(error),
        data ? (rows.length ? h("div", { class: "split" }, asTable ? list() : chart(), drawer()) : empty("The pool has no workers yet.")) : error ? null : empty("…"),
        h("ul", { class: "legend", "aria-label": "Colours" }, ["Scheduled", "Active", "Running", "Held"].map((phase) => h("li", { key: phase, class: `phase-${phase.toLowerCase()}` }, h("i", {}), phase)), h("li", {}, h("i", { class: "of-power" }), "power on"), h("li", {}, h("i", { class: "of-rest" }), "maintenance, turnaround")),
      );
    },
  };
}
