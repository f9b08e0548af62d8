// Workers over time: seats, the rest between them, maintenance, when the power is on, and now. Only the rows in sight are
// drawn, and a row is described anew only when something in it is different.

import * as api from "../api.js";
import { atMost, h } from "../dom.js";
import { axis, drawRow, ground, Scale } from "../plot.js";
import { Rows, bookingsOf } from "../rows.js";
import { DAY, MINUTE, addDays, dayOf, iso, ms, now, showDay, showSlot } from "../time.js";
import { badge, empty, head, link, table, trouble, waiting } from "../ui.js";

const OVERSCAN = 120;
const AGAIN = 2_000;
const LISTED = 1_000;
const ZOOMS = { day: 1, week: 7, month: 28 };
const KEPT = "lablet-calendar";
const last = { pool: "default", zoom: "day", asTable: false, ...JSON.parse(sessionStorage.getItem(KEPT) ?? "{}") };
const keep = (choice) => sessionStorage.setItem(KEPT, JSON.stringify(Object.assign(last, choice)));

export function calendar({ live, draw }) {
  let { pool, zoom, asTable } = last;
  let from = dayOf(now());
  let data = null;
  let rows = null;
  let error = null;
  let chosen = null;
  let cursor = null;
  let follow = false;
  let scroller = null;
  let size = { top: 0, height: 600, width: 900 };
  let asked = 0;
  let cache = new WeakMap();
  const touched = new Map();

  const to = () => addDays(from, ZOOMS[zoom]);

  const load = async () => {
    const mine = ++asked;
    const began = performance.now();
    try {
      const found = await api.get(`/pools/${pool}/calendar?from=${iso(from)}&to=${iso(to())}`);
      if (mine !== asked) return;
      data = found;
      rows = new Rows(found.workers);
      for (const [id, at] of touched) {
        if (at < began - AGAIN) touched.delete(id);
        else apply(id);
      }
      error = null;
    } catch (problem) {
      if (mine === asked) error = problem;
    }
    draw();
  };
  const soon = atMost(load, AGAIN);
  void load();

  /** What an event has told about a reservation, before the server's calendar is read again. */
  const apply = (id) => {
    const booking = live.find("reservation", id);
    const mine = booking && booking.status.pool === pool;
    rows?.put(id, mine ? bookingsOf(booking, (instance) => live.find("instance", instance), now()) : new Map());
  };

  const show = (changes) => {
    ({ pool = pool, zoom = zoom, from = from } = changes);
    keep({ pool, zoom });
    void load();
    draw();
  };

  const observe = new ResizeObserver(([entry]) => {
    size = { ...size, width: Math.round(entry.contentRect.width), height: entry.contentRect.height };
    draw();
  });
  const hold = (node) => {
    if (scroller) observe.unobserve(scroller);
    scroller = node;
    size = { ...size, top: 0 };
    observe.observe(node);
    node.addEventListener("scroll", () => {
      size = { ...size, top: node.scrollTop };
      draw();
    }, { passive: true });
  };

  const pick = (worker, key) => {
    const bar = rows.all[rows.at.get(worker)]?.bars.find((one) => one.key === key);
    chosen = !bar || (chosen?.key === key && chosen.worker === worker) ? null : { ...bar, worker };
    cursor = { worker, key };
    draw();
  };
  const barOf = (event) => event.target.closest?.(".bar")?.dataset;
  const onclick = (event) => {
    const found = barOf(event);
    if (found) pick(found.worker, found.bar);
  };
  const onkeydown = (event) => {
    const found = barOf(event);
    if (event.key === "Escape" && chosen) {
      chosen = null;
      draw();
    }
    if (!found) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      pick(found.worker, found.bar);
    } else if (event.key.startsWith("Arrow")) {
      event.preventDefault();
      const next = rows.beside(found.worker, found.bar, event.key);
      if (!next) return;
      cursor = { worker: next.row.name, key: next.bar.key };
      follow = true;
      const { top, tall } = next.row;
      if (top < scroller.scrollTop) scroller.scrollTop = top;
      else if (top + tall > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + tall - scroller.clientHeight;
      draw();
    }
  };

  const described = (row, scale, turnaround) => {
    const mine = cursor?.worker === row.name ? cursor.key : "";
    const picked = chosen?.worker === row.name ? chosen.key : "";
    const fresh = live.quiet() ? "" : row.bars.filter((bar) => bar.reservation && live.isFresh("reservation", bar.reservation)).map((bar) => bar.key).join();
    const name = `${scale.name}|${turnaround}|${mine}|${picked}|${fresh}`;
    const known = cache.get(row);
    if (known?.name === name) return known.drawn;
    const marks = (bar) => ({ fresh: fresh.includes(bar.key), chosen: picked === bar.key, cursor: mine === bar.key });
    const drawn = drawRow(row, scale, turnaround, marks);
    cache.set(row, { name, drawn });
    return drawn;
  };
  let behind = { name: "" };
  const once = (name, of) => {
    if (behind.name !== name) behind = { name, ...of() };
    return behind;
  };

  /** Where the cursor goes when its bar is no more: to what its reservation takes there now, else to the first in sight. */
  const instead = (seen) => {
    const reservation = cursor?.key.split("|")[0];
    const own = seen.find((row) => row.name === cursor?.worker);
    const moved = own?.bars.find((bar) => bar.reservation && bar.reservation === reservation);
    const row = moved ? own : seen.find((one) => one.bars.length);
    return row ? { worker: row.name, key: (moved ?? row.bars[0]).key } : null;
  };

  const chart = () => {
    const turnaround = (live.find("pool", pool)?.spec.turnaroundMinutes ?? 0) * MINUTE;
    const scale = new Scale(from, to(), size.width);
    const seen = rows.between(size.top - OVERSCAN, size.top + size.height + OVERSCAN);
    if (!follow && !seen.some((row) => row.name === cursor?.worker && row.bars.some((bar) => bar.key === cursor.key))) {
      const at = document.activeElement?.dataset ?? {};
      follow = cursor !== null && at.worker === cursor.worker && at.bar === cursor.key;
      cursor = instead(seen);
    }
    const at = now();
    const still = once(`${scale.name}|${rows.tall}|${asked}`, () => ({ axis: h("div", { class: "axis" }, axis(data.steps, scale)), ground: h("g", { "aria-hidden": "true" }, ground(scale, rows.tall)) }));
    return h(
      "div",
      { class: "calendar" },
      h("div", { class: "corner" }, `${rows.all.length} workers`),
      still.axis,
      h(
        "div",
        { class: "rows", ref: hold, role: "region", tabindex: 0, "aria-label": "Calendar of the workers" },
        h(
          "div",
          { class: "names" },
          seen.map((row) => h("div", { key: row.name, class: "rowname", top: row.top }, link(`workers/${row.name}`, row.name), row.worker.schedulable ? null : h("span", { class: "closed", title: "Takes no seats now" }, "⊘"), h("span", { class: `dot phase-${row.worker.phase.toLowerCase()}`, title: row.worker.phase }))),
        ),
        h(
          "svg",
          { class: "plot", "data-shown": `${data.start}/${data.end}`, width: size.width, height: rows.tall, role: "group", "aria-label": `Bookings from ${showDay(from)}: arrow keys go from one to the next, Enter tells more`, onclick, onkeydown },
          still.ground,
          seen.map((row) => h("g", { key: row.name, transform: `translate(0 ${row.top})` }, described(row, scale, turnaround))),
          at >= from && at < to() ? h("line", { key: "now", class: "nowline", x1: scale.x(at), x2: scale.x(at), y1: 0, y2: rows.tall }, h("title", {}, "Now")) : null,
        ),
      ),
    );
  };

  const drawer = () => {
    if (!chosen) return null;
    const one = chosen.reservation ? live.find("reservation", chosen.reservation) : null;
    const seats = one?.status.placement.filter((place) => place.worker === chosen.worker) ?? [];
    return h(
      "aside",
      { class: "drawer", "aria-label": "Details", key: "drawer" },
      h("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => {
        chosen = null;
        follow = true;
        draw();
      } }, "✕"),
      h("h2", {}, chosen.definition ?? "Another tenant"),
      chosen.phase ? h("p", {}, badge(one?.status.phase ?? chosen.phase)) : null,
      h("p", {}, showSlot(chosen)),
      h("p", {}, `${chosen.seats} ${chosen.seats === 1 ? "seat" : "seats"} on `, link(`workers/${chosen.worker}`, chosen.worker)),
      one ? h("p", {}, `Owner: ${one.metadata.owner}`) : null,
      seats.length
        ? h("ul", { class: "plain" }, seats.map((place) => {
            const lab = live.find("instance", place.instance);
            const user = one.spec.roster.find((entry) => entry.seat === place.seat)?.user;
            return h("li", { key: place.seat }, `Seat ${place.seat}${user ? `, ${user}` : ""} `, lab ? link(`instances/${place.instance}`, badge(lab.status.phase)) : null);
          }))
        : null,
      one ? h("p", {}, link(`reservations/${chosen.reservation}`, "Open the reservation")) : null,
    );
  };

  const list = () => {
    const lines = rows.all.flatMap((row) => [
      ...row.bars.map((bar) => ({ key: bar.key, worker: row.name, start: bar.start, slot: bar, what: bar.reservation ? link(`reservations/${bar.reservation}`, bar.definition) : "another tenant", seats: bar.seats, phase: bar.phase })),
      ...row.worker.maintenance.map((span) => ({ key: `rest-${span.from}`, worker: row.name, start: span.from, slot: { start: span.from, end: span.to }, what: `maintenance ${span.reason ?? ""}` })),
      ...row.worker.powerSpans.map((span) => ({ key: `on-${span.start}`, worker: row.name, start: span.start, slot: span, what: "power on" })),
    ]);
    lines.sort((one, other) => (one.worker < other.worker ? -1 : one.worker > other.worker ? 1 : ms(one.start) - ms(other.start)));
    return h(
      "div",
      { class: "grow" },
      table(
        [
          { title: "Worker", of: (one) => one.worker },
          { title: "When", of: (one) => showSlot(one.slot) },
          { title: "What", of: (one) => one.what },
          { title: "Seats", of: (one) => one.seats ?? "", class: "number" },
          { title: "Phase", of: (one) => (one.phase ? badge(one.phase) : "") },
        ],
        lines.slice(0, LISTED),
        { key: (one) => `${one.worker}${one.key}`, caption: "Bookings" },
      ),
      lines.length > LISTED ? h("p", { class: "dim" }, `The first ${LISTED} of ${lines.length} lines: choose a shorter span to see the others.`) : null,
    );
  };

  const legend = () =>
    h(
      "ul",
      { class: "legend", "aria-label": "Colours" },
      [["scheduled", "scheduled"], ["active", "runs"], ["held", "held, or ending"], ["failed", "failed"]].map(([of, words]) => h("li", { key: of, class: `fill-${of}` }, h("i", {}), h("span", {}, words))),
      h("li", { class: "of-foreign" }, h("i", {}), h("span", {}, "another tenant")),
      h("li", { class: "of-power" }, h("i", {}), h("span", {}, "power on")),
      h("li", { class: "of-rest" }, h("i", {}), h("span", {}, "maintenance, turnaround")),
      h("li", { class: "of-now" }, h("i", {}), h("span", {}, "now")),
    );

  return {
    changed(kinds, one) {
      const id = one?.kind === "Reservation" ? one.metadata.id : one?.kind === "Instance" ? one.spec.reservation : null;
      if (id) {
        touched.set(id, performance.now());
        apply(id);
      }
      if (["reservation", "instance", "worker", "pool"].some((kind) => kinds.has(kind))) soon();
    },
    gone() {
      observe.disconnect();
      soon.cancel();
    },
    drawn() {
      if (!follow) return;
      follow = false;
      if (cursor) scroller?.querySelector(`.bar[data-worker="${CSS.escape(cursor.worker)}"][data-bar="${CSS.escape(cursor.key)}"]`)?.focus({ preventScroll: true });
    },
    draw() {
      const pools = live.of("pool").map((one) => one.metadata.id).sort();
      const days = ZOOMS[zoom];
      return h(
        "div",
        { class: "view wide" },
        head(
          "Calendar",
          h("select", { "aria-label": "Pool", value: pool, onchange: (event) => show({ pool: event.target.value }) }, (pools.length ? pools : [pool]).map((name) => h("option", { key: name, value: name }, name))),
          h("div", { class: "group", role: "group", "aria-label": "Zoom" }, Object.keys(ZOOMS).map((name) => h("button", { type: "button", key: name, "aria-pressed": zoom === name ? "true" : "false", onclick: () => show({ zoom: name }) }, name))),
          h(
            "div",
            { class: "group", role: "group", "aria-label": "Time" },
            h("button", { type: "button", "aria-label": "Earlier", onclick: () => show({ from: addDays(from, -days) }) }, "‹"),
            h("button", { type: "button", onclick: () => show({ from: dayOf(now()) }) }, "Today"),
            h("button", { type: "button", "aria-label": "Later", onclick: () => show({ from: addDays(from, days) }) }, "›"),
          ),
          h("span", { class: "dim", role: "status" }, days === 1 ? showDay(from) : `${showDay(from)} – ${showDay(to() - DAY / 2)}`),
          h("span", { class: "grow" }),
          h("button", { type: "button", "aria-pressed": asTable ? "true" : "false", onclick: () => {
            asTable = !asTable;
            keep({ asTable });
            draw();
          } }, "As a table"),
          h("a", { class: "button primary", href: "#/reservations/new" }, "Reserve seats"),
        ),
        trouble(error),
        data ? (rows.all.length ? h("div", { class: "split" }, asTable ? list() : chart(), drawer()) : empty("The pool has no workers yet. A pool makes them: lablet apply -f pool.yaml")) : error ? null : waiting("The calendar"),
        asTable ? null : legend(),
      );
    },
  };
}
