// A learner's page: my seats, when and where, what state they are in, how long they last, how to get in.

import * as api from "../api.js";
import { h } from "../dom.js";
import { MINUTE, iso, ms, now, showAgo, showSlot, showSpan } from "../time.js";
import { act, badge, copyable, empty, facts, head } from "../ui.js";
import { slotOf, verdict } from "../words.js";
import { nodeStates } from "./instances.js";

const AGAIN = 5_000;
const OVER = new Set(["Completed", "Cancelled", "Expired", "Rejected", "Failed"]);

export function mylab({ live, who, draw }) {
  const access = new Map();

  const fetchAccess = async (seat) => {
    const { id, resourceVersion: version } = seat.metadata;
    const known = access.get(id);
    if (known?.version === version && performance.now() < known.again) return;
    access.set(id, { ...known, version, again: Infinity });
    try {
      access.set(id, { ...(await api.get(`/instances/${id}/access`)), version, again: Infinity });
    } catch (error) {
      // what the seat itself does not allow comes with its next state; for anything else, once more in a while
      const decided = error.status >= 400 && error.status < 500 && error.status !== 429;
      access.set(id, { ...(decided ? {} : known), version, refused: error.message, again: decided ? Infinity : performance.now() + AGAIN });
    }
    draw();
  };

  const mine = (booking) =>
    booking.metadata.owner === who.name || booking.spec.roster.some((entry) => entry.user === who.name);

  const more = (booking, minutes) =>
    act(`${minutes} more minutes are yours`, () =>
      api.ask("PATCH", `/reservations/${booking.metadata.id}`, {
        body: { end: iso(ms(slotOf(booking).end) + minutes * MINUTE) },
        version: booking.metadata.resourceVersion,
      }),
    );

  const seatOf = (booking, instance) => {
    const door = access.get(instance.metadata.id) ?? {};
    return h(
      "section",
      { key: instance.metadata.id, class: "seat" },
      h("h3", {}, `Seat ${instance.spec.seat} `, badge(instance.status.phase)),
      instance.status.phase === "Running" || door.ports?.length
        ? h(
            "ul",
            { class: "doors" },
            (door.ports ?? []).map((port) => h("li", { key: port.name }, h("b", {}, port.name), " ", copyable(`${port.host}:${port.port}`))),
          )
        : h("p", { class: "dim" }, "The consoles appear here as soon as the lab runs."),
      door.refused ? h("p", { class: "dim" }, door.refused) : null,
      nodeStates(instance),
    );
  };

  const namedSeats = (booking) => booking.spec.roster.filter((entry) => entry.user === who.name).map((entry) => entry.seat);

  const places = (booking) => {
    const named = namedSeats(booking);
    const mine = booking.status.placement.filter((place) => booking.metadata.owner === who.name || named.includes(place.seat));
    return [...new Set(mine.map((place) => place.worker))];
  };

  /** The owner may extend as long as there is room; who sits on a seat only as far as the owner allows. */
  const moreTime = (booking) => {
    const free = booking.metadata.owner === who.name || who.role !== "learner";
    const left = free ? Infinity : (booking.spec.extendableMinutes ?? 0) - (booking.status.extendedMinutes ?? 0);
    const steps = [15, 30].filter((minutes) => minutes <= left);
    if (!steps.length) return h("footer", {}, (booking.spec.extendableMinutes ?? 0) > 0 ? "All the time that may be asked for has been given." : `Need more time? ${booking.metadata.owner} can extend it.`);
    return h("footer", {}, "Ask for more time: ", steps.map((minutes) => h("button", { type: "button", key: minutes, onclick: () => more(booking, minutes) }, `+${minutes} min`)));
  };

  const card = (booking) => {
    const slot = slotOf(booking);
    const seats = live
      .of("instance")
      .filter((one) => one.spec.reservation === booking.metadata.id)
      .filter((one) => {
        return booking.metadata.owner === who.name || namedSeats(booking).includes(one.spec.seat);
      });
    seats.forEach((seat) => void fetchAccess(seat));
    const left = slot ? ms(slot.end) - now() : 0;
    const running = booking.status.phase === "Active";
    return h(
      "article",
      { key: booking.metadata.id, class: `card${running ? " now" : ""}${live.isFresh("reservation", booking.metadata.id) ? " fresh" : ""}` },
      h("header", {}, h("h2", {}, booking.spec.definition.split("@")[0]), badge(booking.status.phase)),
      h("p", { class: running && left < 10 * MINUTE ? "countdown soon" : "countdown" }, running && left > 0 ? `${showSpan(left)} left` : slot ? `begins ${showAgo(slot.start)}` : verdict(booking)),
      facts([
        ["When", showSlot(slot)],
        ["Where", places(booking).join(", ")],
        ["State", verdict(booking)],
      ]),
      seats.map((seat) => seatOf(booking, seat)),
      running ? moreTime(booking) : null,
    );
  };

  return {
    draw() {
      const bookings = live
        .of("reservation")
        .filter(mine)
        .filter((one) => !OVER.has(one.status.phase))
        .sort((one, other) => (ms(slotOf(one)?.start ?? 0) || 0) - (ms(slotOf(other)?.start ?? 0) || 0));
      return h(
        "div",
        { class: "view narrow" },
        head("My lab"),
        bookings.length ? bookings.map(card) : empty("No seat is reserved for you now. When one is, it stands here with its time, its state and its consoles."),
      );
    },
  };
}
