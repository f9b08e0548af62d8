// Signing in at an OpenID Connect provider: the authorization code flow with PKCE, as a public client without a secret.
// What is needed between leaving the page and coming back lies in this tab's sessionStorage, and is used once.

const FLOW = "lablet-sign-in";
const here = () => `${location.origin}/`;

export class SignInFailed extends Error {}

/** The provider has refused to go on: whoever it was has to sign in again. */
export class SessionOver extends Error {}

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

/** What the provider says about itself. */
async function discover(issuer) {
  const address = `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
  let found;
  try {
    const answer = await fetch(address, { credentials: "omit", referrerPolicy: "no-referrer" });
    found = answer.ok ? await answer.json() : null;
  } catch {
    found = null;
  }
  if (!found) throw new SignInFailed(`${issuer} does not tell how to sign in: it is away, or does not let this page ask`);
  if (found.issuer !== issuer) throw new SignInFailed(`${issuer} calls itself ${found.issuer}`);
  return found;
}

/** Leaves for the provider's page. `back` is the place in the console to come back to. */
export async function begin(provider, back) {
  if (!crypto.subtle) throw new SignInFailed("signing in at a provider needs https (or a page of this very machine)");
  const known = await discover(provider.issuer);
  const flow = { provider, back, state: random(), nonce: random(), verifier: random() };
  sessionStorage.setItem(FLOW, JSON.stringify(flow));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(flow.verifier));
  const address = new URL(known.authorization_endpoint);
  const asked = {
    response_type: "code",
    client_id: provider.clientId,
    redirect_uri: here(),
    scope: provider.scopes,
    state: flow.state,
    nonce: flow.nonce,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(asked)) address.searchParams.set(name, value);
  location.assign(address);
}

/** Whether the page was opened by the provider's answer. */
export function answered() {
  const said = new URLSearchParams(location.search);
  return said.has("state") && (said.has("code") || said.has("error"));
}

/** Takes the provider's answer out of the address. Gives `{tokens, back}`; raises `SignInFailed`. */
export async function finish() {
  const said = new URLSearchParams(location.search);
  const flow = JSON.parse(sessionStorage.getItem(FLOW) ?? "null");
  sessionStorage.removeItem(FLOW);
  history.replaceState(null, "", `/${flow?.back ?? ""}`);
  if (!flow || flow.state !== said.get("state")) throw new SignInFailed("that answer belongs to no sign-in of this tab: sign in again");
  const { provider } = flow;
  if (said.has("iss") && said.get("iss") !== provider.issuer) throw new SignInFailed(`the answer came from ${said.get("iss")}`);
  if (said.has("error")) throw new SignInFailed(said.get("error_description") || `the provider says ${said.get("error")}`);
  const known = await discover(provider.issuer);
  const tokens = await trade(provider, known, {
    grant_type: "authorization_code",
    code: said.get("code"),
    redirect_uri: here(),
    code_verifier: flow.verifier,
  });
  const claims = claimsOf(tokens.identity);
  const meant = [claims.aud].flat().includes(provider.clientId);
  if (claims.iss !== provider.issuer || !meant || claims.nonce !== flow.nonce) {
    throw new SignInFailed("the identity that the provider sent is not the answer to what was asked");
  }
  return tokens;
}

/** Fresh tokens for those that end soon. Raises `SessionOver` when the provider refuses. */
export async function renew(tokens) {
  if (!tokens.refresh) throw new SessionOver("the provider gives no longer sign-in");
  return trade(tokens.provider, tokens.known, { grant_type: "refresh_token", refresh_token: tokens.refresh }, tokens);
}

/** Gives the tokens back, and leaves for the provider's own sign-out where it has one. */
export async function end(tokens) {
  const { provider, known } = tokens;
  if (known.revocation_endpoint && tokens.refresh) {
    const body = new URLSearchParams({ token: tokens.refresh, token_type_hint: "refresh_token", client_id: provider.clientId });
    await fetch(known.revocation_endpoint, { method: "POST", body, credentials: "omit" }).catch(() => undefined); // it expires
  }
  if (!known.end_session_endpoint) {
    location.assign(here());
    return;
  }
  const address = new URL(known.end_session_endpoint);
  const asked = { client_id: provider.clientId, id_token_hint: tokens.identity, post_logout_redirect_uri: here() };
  for (const [name, value] of Object.entries(asked)) if (value) address.searchParams.set(name, value);
  location.assign(address);
}

async function trade(provider, known, asked, before = {}) {
  const body = new URLSearchParams({ client_id: provider.clientId, ...asked });
  const answer = await fetch(known.token_endpoint, { method: "POST", body, credentials: "omit" });
  const said = await answer.json().catch(() => ({}));
  if (answer.status >= 500 || answer.status === 429) throw new TypeError(`the provider answers ${answer.status}`);
  if (!answer.ok) throw new SessionOver(said.error_description || said.error || `the provider answers ${answer.status}`);
  if (!said.access_token) throw new SignInFailed("the provider sent no access token");
  const life = 1_000 * (Number(said.expires_in) || 300);
  const { authorization_endpoint, token_endpoint, end_session_endpoint, revocation_endpoint } = known;
  return {
    provider,
    known: { authorization_endpoint, token_endpoint, end_session_endpoint, revocation_endpoint },
    access: said.access_token,
    refresh: said.refresh_token ?? before.refresh,
    identity: said.id_token ?? before.identity,
    due: Date.now() + life - Math.min(60_000, life / 3),
    ends: Date.now() + life,
  };
}

/** The claims of an ID token that came straight from the provider: its origin is what the connection proves. */
function claimsOf(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (one) => one.charCodeAt(0))));
  } catch {
    throw new SignInFailed("the provider sent no identity: the scope `openid` is needed");
  }
}
