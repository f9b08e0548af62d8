// The shell: who is here, where they are, whether what they see is current.

import * as api from "./api.js";
import { h, onceAFrame, render } from "./dom.js";
import { Live } from "./live.js";
import * as oidc from "./oidc.js";
import * as session from "./session.js";
import { now, showClock, showDay, speed, syncClock, zone } from "./time.js";
import { note, trouble } from "./ui.js";
import { runsFleet } from "./words.js";
import { calendar } from "./views/calendar.js";
import { claim } from "./views/claim.js";
import { definitions } from "./views/definitions.js";
import { events } from "./views/events.js";
import { health } from "./views/health.js";
import { instances } from "./views/instances.js";
import { mylab } from "./views/mylab.js";
import { reservations } from "./views/reservations.js";
import { series } from "./views/series.js";
import { usage } from "./views/usage.js";
import { workers } from "./views/workers.js";

const STAFF = ["admin", "operator", "instructor"];
const VIEWS = [
  { path: "calendar", title: "Calendar", view: calendar, roles: STAFF },
  { path: "reservations", title: "Reservations", view: reservations },
  { path: "series", title: "Series", view: series, roles: STAFF },
  { path: "mylab", title: "My lab", view: mylab },
  { path: "instances", title: "Instances", view: instances },
  { path: "workers", title: "Workers", view: workers, roles: STAFF },
  { path: "definitions", title: "Definitions", view: definitions },
  { path: "events", title: "Events", view: events },
  { path: "health", title: "Health", view: health, may: runsFleet },
  { path: "usage", title: "Usage", view: usage, roles: STAFF },
  { path: "claim", title: "Taking a seat", view: claim, listed: false },
];
const root = document.getElementById("app");
const SHORT = { connecting: "Connecting", live: "Live", lost: "Offline", refused: "Signed out" };
const STATES = {
  connecting: "Connecting …",
  live: "Live",
  lost: "Connection lost: what you see may be old. Trying again …",
  refused: "Your sign-in has ended.",
};

/** What an address names within its view; one that is mangled names nothing that there is. */
function placeIn(path) {
  return path.split("/").slice(1).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
}

function theme(change) {
  const chosen = change ?? localStorage.getItem("lablet-theme") ?? "";
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  if (change !== undefined) localStorage.setItem("lablet-theme", chosen);
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

async function start() {
  theme();
  try {
    if (oidc.answered()) await session.finish();
    if (!session.signedIn()) {
      await signInPage();
      return;
    }
    const [who] = await Promise.all([api.get("/whoami"), syncClock()]);
    shell(who);
  } catch (error) {
    if (error.status === 401 || error.status === 403) session.forget();
    await signInPage(error);
  }
}

async function signInPage(error) {
  let secret = "";
  let problem = error;
  let provider = null;
  const enter = async (event) => {
    event.preventDefault();
    session.signIn(secret);
    await start();
  };
  const leave = async () => {
    try {
      await oidc.begin(provider, location.hash);
    } catch (trouble) {
      problem = trouble;
      draw();
    }
  };
  const draw = () =>
    render(
      root,
      h(
        "main",
        { class: "signin", key: "signin" },
        h("img", { src: "/console/icon.svg", alt: "", width: 56, height: 56 }),
        h("h1", {}, "Lablet"),
        h("p", {}, "Reserve seats of network labs, follow them, run the fleet that hosts them."),
        trouble(problem),
        provider
          ? [
              h("button", { type: "button", class: "primary", key: "oidc", onclick: leave }, `Sign in at ${new URL(provider.issuer).host}`),
              h("p", { class: "or", key: "or" }, "or with a token"),
            ]
          : null,
        h(
          "form",
          { onsubmit: enter },
          h(
            "label",
            { class: "field" },
            h("span", {}, "Token"),
            h("input", {
              type: "password",
              name: "token",
              autocomplete: "off",
              required: true,
              "aria-describedby": "token-hint",
              ref: (node) => setTimeout(() => node.focus()),
              oninput: (event) => {
                secret = event.target.value;
              },
            }),
            h("small", { id: "token-hint" }, "A local mesh keeps one for each role in its data folder, under secrets. It stays in this tab only."),
          ),
          h("button", { class: provider ? undefined : "primary" }, "Sign in"),
        ),
      ),
    );
  draw();
  try {
    provider = (await api.get("/sign-in")).oidc ?? null;
  } catch (trouble) {
    problem ??= trouble;
  }
  draw();
}

function shell(who) {
  const live = new Live(STAFF.includes(who.role));
  const shown = VIEWS.filter((one) => (!one.roles || one.roles.includes(who.role)) && (!one.may || one.may(who)));
  const home = STAFF.includes(who.role) ? "calendar" : "mylab";
  let current = null;
  let path = "";
  let before = "connecting";
  session.whenEnded(() => live.refuse("the identity provider has ended the session"));

  const leave = () => {
    live.stop();
    current?.gone?.();
    void session.signOut();
  };

  const again = () => {
    session.forget();
    location.reload();
  };

  const draw = onceAFrame(() => {
    const [name] = path.split("/");
    render(
      root,
      h("a", { class: "skip", href: "#main", onclick: (event) => {
        event.preventDefault();
        document.getElementById("main").focus();
      } }, "Skip to the content"),
      h(
        "header",
        { class: "top" },
        h("a", { class: "brand", href: `#/${home}` }, h("img", { src: "/console/icon.svg", alt: "", width: 24, height: 24 }), "Lablet"),
        h(
          "nav",
          { "aria-label": "Views" },
          shown.filter((one) => one.listed !== false).map((one) => h("a", { key: one.path, href: `#/${one.path}`, "aria-current": one.path === name ? "page" : undefined }, one.title)),
        ),
        h(
          "div",
          { class: "who" },
          h("span", { class: "clock", title: `Lab time, shown in ${zone}${speed === 1 ? "" : `; ${speed} times as fast as real time`}` }, `${showDay(now())} ${showClock(now())}${speed === 1 ? "" : ` ×${speed}`}`),
          h("span", { class: `state ${live.state}`, role: "status", title: live.problem }, SHORT[live.state]),
          h("button", { type: "button", class: "quiet", "aria-label": "Light or dark", onclick: () => {
            theme(isDark() ? "light" : "dark");
            draw();
          } }, isDark() ? "☀" : "☾"),
          h("span", { class: "name" }, `${who.name} · ${who.role}`),
          h("button", { type: "button", onclick: leave }, "Sign out"),
        ),
      ),
      live.state === "live"
        ? null
        : h(
            "div",
            { class: `banner ${live.state}`, role: "alert", key: "banner" },
            h("span", {}, STATES[live.state]),
            live.state === "refused" ? h("button", { type: "button", class: "primary", onclick: again }, "Sign in again") : null,
          ),
      h("main", { id: "main", tabindex: "-1", key: `view-${name}` }, current ? current.draw(placeIn(path)) : null),
    );
    current?.drawn?.();
  });

  /** Shows what the address names. Who goes there from within is brought to its content; who has just come begins at the top. */
  const go = (moved) => {
    path = location.hash.replace(/^#\//, "") || home;
    const wanted = shown.find((one) => one.path === path.split("/")[0]) ?? shown.find((one) => one.path === home);
    if (current?.of !== wanted) {
      current?.gone?.();
      current = { of: wanted, ...wanted.view({ live, who, draw }) };
    }
    const place = placeIn(path);
    document.title = [...place.slice(0, 1), wanted.title, "Lablet"].join(" · ");
    current.moved?.(place);
    draw();
    scrollTo(0, 0);
    requestAnimationFrame(() => {
      document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
      if (moved && document.activeElement === document.body) document.getElementById("main").focus({ preventScroll: true });
    });
  };

  addEventListener("hashchange", go);
  live.addEventListener("state", () => {
    if (before === "lost" && live.state === "live") {
      note("Connected again, and caught up");
      current?.again?.();
      current?.changed?.(new Set(live.kinds));
    }
    before = live.state;
    draw();
  });
  live.addEventListener("faded", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  live.addEventListener("change", ({ detail: { kinds, one } }) => {
    current?.changed?.(kinds, one);
    draw();
  });
  setInterval(draw, Math.max(250, Math.min(5_000, 30_000 / speed)));
  setInterval(() => void syncClock().catch(() => undefined), 60_000);
  go();
  void live.run();
}

void start();
