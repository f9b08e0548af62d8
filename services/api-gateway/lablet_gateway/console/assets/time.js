// Lab time, as the mesh's clock has it, shown in the local zone; and times as people write them.

import * as api from "./api.js";

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;
let base = Date.now();
let taken = performance.now();
export let speed = 1;

export async function syncClock() {
  const asked = performance.now();
  const clock = await api.get("/clock");
  taken = (asked + performance.now()) / 2;
  base = Date.parse(clock.now);
  speed = clock.speed;
}

/** Lab time now, in ms. */
export const now = () => base + (performance.now() - taken) * speed;

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const yearFormat = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short", year: "numeric" });

export const ms = (text) => (typeof text === "number" ? text : Date.parse(text));
export const showClock = (at) => clockFormat.format(ms(at));

export function dayOf(at) {
  const day = new Date(ms(at));
  day.setHours(0, 0, 0, 0);
  return day.getTime();
}

export function addDays(at, days) {
  const day = new Date(ms(at));
  day.setDate(day.getDate() + days);
  return day.getTime();
}

export function showDay(at) {
  const sameYear = new Date(ms(at)).getFullYear() === new Date(now()).getFullYear();
  return (sameYear ? dayFormat : yearFormat).format(ms(at));
}

export function showTime(at) {
  if (!at) return "–";
  return dayOf(at) === dayOf(now()) ? `today ${showClock(at)}` : `${showDay(at)} ${showClock(at)}`;
}

export function showSlot(slot) {
  if (!slot) return "as soon as possible";
  const { start, end } = slot;
  const until = dayOf(start) === dayOf(end) ? showClock(end) : showTime(end);
  return `${showTime(start)} – ${until}`;
}

export function showSpan(length) {
  const minutes = Math.max(0, Math.round(length / MINUTE));
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  return `${Math.floor(minutes / 1440)} days${Math.floor((minutes % 1440) / 60) ? ` ${Math.floor((minutes % 1440) / 60)} h` : ""}`;
}

export function showAgo(at) {
  const past = now() - ms(at);
  if (Math.abs(past) < MINUTE) return "now";
  return past > 0 ? `${showSpan(past)} ago` : `in ${showSpan(-past)}`;
}

/** Lab time of what a person wrote: `now`, `in 2h`, `14:30`, `tomorrow 09:00`, `fri 10:00`, `2027-03-01 09:00`; null
 * where it cannot be read. Whole minutes, rounded up. */
export function readTime(text) {
  const words = text.trim().toLowerCase();
  const up = (at) => Math.ceil(at / MINUTE) * MINUTE;
  if (words === "now") return up(now() + 1);
  const span = words.startsWith("in ") ? readSpan(words.slice(3)) : null;
  if (span !== null) return up(now() + span);
  const written = words.match(/^(?:(today|tomorrow|(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*|\d{4}-\d{2}-\d{2})[ t]*)?(?:(\d{1,2}):(\d{2}))$/);
  if (!written) {
    const exact = Date.parse(text.trim());
    return /^\d{4}-\d{2}-\d{2}T.*(Z|[+-]\d{2}:?\d{2})$/.test(text.trim()) && !Number.isNaN(exact) ? up(exact) : null;
  }
  const [, day, hours, minutes] = written;
  if (Number(hours) > 23 || Number(minutes) > 59) return null;
  const at = new Date(now());
  if (day && /^\d/.test(day)) {
    const [year, month, date] = day.split("-").map(Number);
    at.setFullYear(year, month - 1, date);
    if (at.getMonth() !== month - 1) return null;
  } else if (day === "tomorrow") at.setDate(at.getDate() + 1);
  else if (day && day !== "today") {
    const wanted = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"].indexOf(day.slice(0, 3));
    at.setDate(at.getDate() + ((wanted - at.getDay() + 7) % 7 || 7));
  }
  at.setHours(Number(hours), Number(minutes), 0, 0);
  if (!day && at.getTime() <= now()) at.setDate(at.getDate() + 1);
  return at.getTime();
}

/** ms of `90`, `90m`, `1h30`, `1h 30m`, `2d`; null where it cannot be read. */
export function readSpan(text) {
  const words = text.trim().toLowerCase();
  if (/^\d+$/.test(words)) return Number(words) * MINUTE;
  const found = words.match(/^(?:(\d+)\s*d(?:ays?)?)?\s*(?:(\d+(?:\.\d+)?)\s*h(?:ours?)?)?\s*(?:(\d+)\s*(?:m(?:in(?:utes?)?)?)?)?$/);
  if (!found || !words) return null;
  const [, days = 0, hours = 0, minutes = 0] = found;
  return Number(days) * DAY + Number(hours) * HOUR + Number(minutes) * MINUTE;
}

/** As the API wants it. */
export const iso = (at) => new Date(at).toISOString().replace(/\.\d{3}Z$/, "Z");
