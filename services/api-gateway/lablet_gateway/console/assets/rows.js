// The rows of the calendar: one a worker, its bookings as bars in lanes. What an event tells is put into the rows at once; the
// server's calendar, which also knows the power spans, replaces them a moment later.

import { iso, ms } from "./time.js";

const LANE = 18;
const PAD = 5;
const HOLDING = new Set(["Held", "Scheduled", "Active"]);

/** Bars of one worker, each in a lane of its own while it overlaps another. Seats of one reservation are one bar. */
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
    bar.y = PAD + lane * LANE;
  }
  return { bars, tall: Math.max(1, ends.length) * LANE + 2 * PAD };
}

export const BAR = LANE - 2;

/** What a reservation takes, worker by worker, as the server's calendar would say it. */
export function bookingsOf(booking, instanceOf, now) {
  const found = new Map();
  const { slot, placement, phase } = booking.status;
  if (!slot) return found;
  for (const place of placement) {
    const instance = instanceOf(place.instance);
    const running = instance && instance.status.phase !== "Terminated";
    if (!running && (instance || !HOLDING.has(phase) || place.state === "lost")) continue;
    const late = running && now > ms(slot.end);
    const one = { seat: place.seat, start: slot.start, end: late ? iso(now) : slot.end, reservation: booking.metadata.id, definition: booking.spec.definition, instance: place.instance, phase: instance?.status.phase ?? phase };
    found.set(place.worker, [...(found.get(place.worker) ?? []), one]);
  }
  return found;
}

export class Rows {
  /** `workers` as the API's calendar has them. */
  constructor(workers) {
    this.all = workers.map((worker) => ({ worker, name: worker.worker, ...lanes(worker.bookings) }));
    this.where = new Map();
    this.all.forEach((row, at) => row.bars.forEach((bar) => bar.reservation && this.note(bar.reservation, at)));
    this.at = new Map(this.all.map((row, at) => [row.name, at]));
    this.stack();
  }

  note(reservation, at) {
    if (!this.where.has(reservation)) this.where.set(reservation, new Set());
    this.where.get(reservation).add(at);
  }

  stack() {
    let top = 0;
    for (const row of this.all) {
      row.top = top;
      top += row.tall;
    }
    this.tall = top;
  }

  /** Puts what a reservation takes now in the place of what it took. Whether anything is different. */
  put(reservation, byWorker) {
    const touched = new Set(this.where.get(reservation) ?? []);
    for (const name of byWorker.keys()) if (this.at.has(name)) touched.add(this.at.get(name));
    for (const at of touched) {
      const { worker, name } = this.all[at];
      const others = worker.bookings.filter((one) => one.reservation !== reservation);
      const fresh = { ...worker, bookings: [...others, ...(byWorker.get(name) ?? [])] };
      this.all[at] = { worker: fresh, name, ...lanes(fresh.bookings) };
      this.note(reservation, at);
    }
    if (touched.size) this.stack();
    return touched.size > 0;
  }

  /** Those between two heights. */
  between(top, bottom) {
    let low = 0;
    let high = this.all.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.all[middle].top + this.all[middle].tall <= top) low = middle + 1;
      else high = middle;
    }
    const found = [];
    for (let at = low; at < this.all.length && this.all[at].top < bottom; at += 1) found.push(this.all[at]);
    return found;
  }

  /** The bar that a key leads to from another one: along its row, or to the nearest in the next row that has any. */
  beside(name, key, way) {
    let at = this.at.get(name) ?? 0;
    const { bars } = this.all[at];
    const from = bars.findIndex((bar) => bar.key === key);
    if (way === "ArrowLeft" || way === "ArrowRight") {
      const bar = bars[from + (way === "ArrowRight" ? 1 : -1)];
      return bar ? { row: this.all[at], bar } : null;
    }
    const step = way === "ArrowDown" ? 1 : -1;
    for (at += step; at >= 0 && at < this.all.length; at += step) {
      const row = this.all[at];
      if (!row.bars.length) continue;
      const near = bars[from]?.from ?? 0;
      return { row, bar: row.bars.reduce((best, bar) => (Math.abs(bar.from - near) < Math.abs(best.from - near) ? bar : best)) };
    }
    return null;
  }
}
