// Why a reservation is as it is, in sentences: the same words as `lablet explain`.

import { ms, now, showAgo, showSlot, showSpan, showTime } from "./time.js";

const FILTERS = {
  pool: "in another pool",
  excluded: "excluded by the request",
  selector: "without the wanted labels",
  license: "with a licence kind that may not host it",
  runtimeVersion: "with a runtime version out of range",
  nodeDefinitions: "without a needed node definition",
  nodeLimit: "with too small a node limit",
  size: "too small even when empty",
  failed: "failed",
  unschedulable: "cordoned",
  boot: "not up in time",
  maintenance: "in maintenance",
  capacity: "full at that time",
  ports: "without free ports",
  licenseCount: "without a free licence",
  waitList: "kept for somebody ahead on the wait list",
};
const DIMENSIONS = {
  cpuCores: "CPU cores",
  memoryGb: "GB of memory",
  storageGb: "GB of storage",
  nodeCount: "licensed nodes",
  ports: "ports",
  maintenance: "minutes without maintenance",
  licenseCount: "licences",
  boot: "minutes to boot and prepare",
  duration: "minutes",
};

export const slotOf = (booking) =>
  booking.status.slot ?? (booking.spec.start ? { start: booking.spec.start, end: booking.spec.end } : null);

/** The fleet and its limits are run by people of this tenant alone. */
export const runsFleet = (who) => who.tenant === "default" && ["admin", "operator"].includes(who.role);

/** One clause that says how it stands. */
export function verdict(booking) {
  const slot = slotOf(booking);
  switch (booking.status.phase) {
    case "Pending":
      return "accepted; the scheduler has not decided yet";
    case "Held":
      return booking.spec.hold ? `held until ${showTime(booking.spec.hold.expiresAt)}: confirm it` : "held: confirm it";
    case "Scheduled":
      return slot ? `placed; begins ${showAgo(slot.start)}` : "placed";
    case "Waitlisted":
      return "waits: it is placed as soon as there is room";
    case "Active":
      return slot && ms(slot.end) > now() ? `runs; ${showSpan(ms(slot.end) - now())} left` : "runs; its time is over";
    case "Expired":
      return "its time passed before it could run";
    case "Completed":
      return "is over; what was collected is kept";
    default:
      return booking.status.message ?? booking.status.reason ?? "";
  }
}

/** The scheduler's explanation, sentence by sentence; the counts only where it gives no summary of them. */
export function reasons(why) {
  if (!why) return [];
  const lines = [];
  const removed = Object.entries(why.removed ?? {}).filter(([, count]) => count > 0).sort((one, other) => other[1] - one[1]);
  if (removed.length) {
    const counted = removed.map(([name, count]) => `${count} ${FILTERS[name] ?? name}`).join(", ");
    lines.push(`${why.considered} ${why.considered === 1 ? "worker was" : "workers were"} looked at: ${counted}.`);
  }
  if (why.nearestMiss?.needed !== undefined && why.nearestMiss?.free !== undefined) {
    const { worker, dimension, needed, free } = why.nearestMiss;
    lines.push(`The nearest miss: ${worker ?? "the pool"} has ${free} of ${needed} ${DIMENSIONS[dimension] ?? dimension}.`);
  }
  if (why.summary) lines.splice(0, lines.length, why.summary);
  if (why.earliest) lines.push(`The earliest slot that fits is ${showSlot(why.earliest)}.`);
  return lines;
}

/** The facts of an event in one line. */
export function tell(event) {
  const [, , kind, ...fact] = event.type.split(".");
  return { kind, fact: fact.slice(0, -1).join(" "), subject: event.subject ?? "", at: event.time };
}
