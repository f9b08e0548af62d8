// Pieces that every view uses: badges, tables, dialogs, notes, things to copy.

import { h, render } from "./dom.js";
import { Problem } from "./api.js";
import { showTime } from "./time.js";

export const badge = (phase) => h("span", { class: `badge phase-${String(phase).toLowerCase()}` }, phase);

export const link = (path, ...kids) => h("a", { href: `#/${path}` }, ...kids);

export const empty = (...words) => h("p", { class: "empty" }, ...words);

/** Stands where something will be in a moment. */
export const waiting = (what) => h("p", { class: "empty waiting", role: "status" }, `${what} is being read …`);

/** What stands above every view: its name, and what can be done or chosen there. */
export const head = (title, ...tools) => h("div", { class: "tools" }, h("h1", {}, title), ...tools);

/** A field whose words narrow what the view lists. */
export const search = (words, typed, hint = "Filter") =>
  h("input", { type: "search", placeholder: hint, "aria-label": "Filter", value: words, oninput: (event) => typed(event.target.value) });

/** A box to tick, with what it means behind it. */
export const check = (words, on, ticked) =>
  h("label", { class: "check-line" }, h("input", { type: "checkbox", checked: on, onchange: (event) => ticked(event.target.checked) }), ` ${words}`);

/** What something went through: `[{to, at, reason, message}]`. */
export const moves = (history) =>
  h(
    "ol",
    { class: "story" },
    history.map((move, at) => h("li", { key: at }, h("time", { datetime: move.at }, showTime(move.at)), badge(move.to), h("span", {}, move.message || move.reason || ""))),
  );

/** `columns`: [{title, of(row), class?, hidden?}]; `rows` with `key(row)`; a row that leads somewhere has an address. A table
 * that is wider than the page scrolls by itself, with the keyboard too. */
export function table(columns, rows, { key, href, fresh, caption }) {
  return h(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 },
    h(
      "table",
      {},
      h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: column.class }, column.hidden ? h("span", { class: "hidden" }, column.title) : column.title)))),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            { key: key(row), class: fresh?.(row) ? "fresh" : undefined },
            columns.map((column, at) => {
              const inner = column.of(row);
              return h(
                at === 0 ? "th" : "td",
                { class: column.class, ...(at === 0 ? { scope: "row" } : {}) },
                at === 0 && href ? h("a", { href: href(row) }, inner) : inner,
              );
            }),
          ),
        ),
      ),
    ),
  );
}

/** Terms and what they are, without those that are nothing. */
export const facts = (pairs) =>
  h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]),
  );

/** A bar that says how much of something is taken. */
export function meter(label, taken, of, unit = "") {
  const share = of > 0 ? Math.min(100, (100 * taken) / of) : 0;
  const words = `${round(taken)} of ${round(of)}${unit}`;
  return h(
    "div",
    { class: "meter", role: "img", "aria-label": `${label}: ${words}`, title: `${label}: ${words}` },
    h("span", { class: "meter-label" }, label),
    h("span", { class: "meter-track" }, h("span", { class: share > 90 ? "meter-fill high" : "meter-fill", "width%": share })),
    h("span", { class: "meter-words" }, words),
  );
}

export const round = (value) => String(Math.round(value * 10) / 10);

export function bytes(size) {
  for (const unit of ["B", "KB", "MB"]) {
    if (size < 1000) return `${round(size)} ${unit}`;
    size /= 1000;
  }
  return `${round(size)} GB`;
}

export const copyable = (text) =>
  h(
    "span",
    { class: "copyable" },
    h("code", {}, text),
    h("button", { type: "button", class: "quiet", title: `Copy ${text}`, "aria-label": `Copy ${text}`, onclick: () => copy(text) }, "Copy"),
  );

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    note(`Copied ${text}`);
  } catch {
    note("The browser does not let this page copy; select the text instead", "bad");
  }
}

const shelf = document.createElement("div");
shelf.className = "notes";
shelf.setAttribute("role", "status");
shelf.setAttribute("aria-live", "polite");
document.body.append(shelf);

/** Says something for a few seconds. */
export function note(words, kind = "good") {
  const line = document.createElement("div");
  line.className = `note ${kind}`;
  line.textContent = words;
  shelf.append(line);
  setTimeout(() => line.remove(), kind === "bad" ? 9_000 : 4_000);
}

/** What an error means, field by field. */
export function trouble(error) {
  if (!error) return null;
  const errors = error instanceof Problem ? error.errors : [];
  return h(
    "div",
    { class: "trouble", role: "alert" },
    h("p", {}, error.message),
    errors.length
      ? h("ul", {}, errors.map((one) => h("li", {}, h("b", {}, one.path || one.field || ""), ` ${one.message ?? ""}${one.remedy ? ` – ${one.remedy}` : ""}`)))
      : null,
    error.retryAfter ? h("p", {}, `Try again in ${error.retryAfter} s.`) : null,
  );
}

/** Opens a dialog whose content `draw(again, close)` describes; `again` draws it anew. Ends with Escape, too. */
export function dialog(title, draw, { ended } = {}) {
  const box = document.createElement("dialog");
  box.setAttribute("aria-label", title);
  document.body.append(box);
  const close = () => box.close();
  const again = () =>
    render(
      box,
      h("header", {}, h("h2", {}, title), h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: close }, "✕")),
      draw(again, close),
    );
  box.addEventListener("close", () => {
    box.remove();
    ended?.();
  });
  again();
  box.showModal();
  box.querySelector("form :is(input, select, textarea):not([type=hidden]), form footer button")?.focus();
  return { again, close };
}

/** A question with two answers; `work` is done on yes, its problem shown in the dialog. */
export function confirmFirst(title, words, yes, work, { fields } = {}) {
  const state = { busy: false, error: null };
  dialog(title, (again, close) =>
    h(
      "form",
      {
        onsubmit: async (event) => {
          event.preventDefault();
          state.busy = true;
          state.error = null;
          again();
          try {
            await work();
            close();
          } catch (error) {
            state.error = error;
            state.busy = false;
            again();
          }
        },
      },
      h("p", {}, words),
      fields?.(again),
      trouble(state.error),
      h(
        "footer",
        {},
        h("button", { type: "button", onclick: close }, "Back"),
        h("button", { class: "primary", disabled: state.busy }, state.busy ? "…" : yes),
      ),
    ),
  );
}

export const field = (label, input, hint) =>
  h("label", { class: "field" }, h("span", {}, label), input, hint ? h("small", {}, hint) : null);

/** Runs a change and says how it went. */
export async function act(words, work) {
  try {
    await work();
    note(words);
  } catch (error) {
    note(error.message, "bad");
  }
}
