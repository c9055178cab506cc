/** The token that the operator has pasted: in this tab's session storage, and nowhere else. */

const KEY = "rejoin:operator-token";

/** What storage refuses to keep lasts until the page is left. */
let unkept: string | null = null;

export function keptToken(): string | null {
  try {
    return sessionStorage.getItem(KEY) ?? unkept;
  } catch {
    return unkept;
  }
}

/** Keeps a token; null forgets it. */
export function keepToken(given: string | null): void {
  unkept = given;
  try {
    if (given === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, given);
  } catch {
    // It is kept above.
  }
}

/** When a token runs out, in milliseconds since 1970; null if it does not say. Only the server judges it. */
export function expiryOf(token: string): number | null {
  try {
    const claims = token.split(".")[1] ?? "";
    const { exp } = JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/"))) as { exp?: unknown };
    return typeof exp === "number" ? exp * 1_000 : null;
  } catch {
    return null;
  }
}
