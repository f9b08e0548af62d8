// Whom this tab acts for: a token that was typed in, or the access token that an identity provider gave, which is renewed
// before it ends. Nothing of it outlives the tab.

import * as oidc from "./oidc.js";

const KEPT = "lablet-session";
const AGAIN = 5_000;
let kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
let renewing = null;
let timer;
const ended = new EventTarget();

export const signedIn = () => kept !== null;

/** Calls `work` when the provider ends the session. */
export const whenEnded = (work) => ended.addEventListener("ended", work);

export function signIn(secret) {
  keep({ access: secret.trim() });
}

export async function finish() {
  keep(await oidc.finish());
}

/** Forgets who it was; leads to the provider's sign-out where they came from one. */
export async function signOut() {
  const before = kept;
  forget();
  if (before?.provider) await oidc.end(before);
  else location.assign("/");
}

export function forget() {
  clearTimeout(timer);
  kept = null;
  sessionStorage.clear();
}

/** The token for a call, fresh enough to be taken. */
export async function bearer() {
  if (kept?.due && Date.now() >= kept.due) await renewed().catch((error) => {
    if (!kept || Date.now() >= kept.ends) throw error;
  });
  return kept?.access ?? "";
}

/** Whether a refused token could be replaced by a fresh one. */
export async function another() {
  if (!kept?.provider) return false;
  try {
    await renewed();
    return true;
  } catch {
    return false;
  }
}

function renewed() {
  renewing ??= oidc
    .renew(kept)
    .then(keep, (error) => {
      if (error instanceof oidc.SessionOver) {
        forget();
        ended.dispatchEvent(new Event("ended"));
      } else wake(AGAIN);
      throw error;
    })
    .finally(() => {
      renewing = null;
    });
  return renewing;
}

function keep(session) {
  kept = session;
  sessionStorage.setItem(KEPT, JSON.stringify(session));
  if (session.due) wake(session.due - Date.now());
}

function wake(pause) {
  clearTimeout(timer);
  timer = setTimeout(() => kept && renewed().catch(() => undefined), Math.max(0, pause)); // told by `ended`, or tried again
}

if (kept?.due) wake(kept.due - Date.now());
