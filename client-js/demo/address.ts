/** Which session the address names. What says who somebody is does not stay in it, so that it can be shared as it is. */

/** The session in the address; null where a new one is to be begun. */
export function sessionInAddress(): string | null {
  return new URL(location.href).searchParams.get("session");
}

/** The address of a session, or of a new one. */
export function addressOf(id: string | null): string {
  const url = new URL(location.pathname, location.href);
  if (id !== null) url.searchParams.set("session", id);
  return url.href;
}

/** The address of a session for somebody else in this browser: whoever opens it gets that name, in that tab. */
export function addressFor(name: string, id: string | null): string {
  const url = new URL(addressOf(id));
  url.searchParams.set("name", name);
  return url.href;
}

/** Takes a name (`?name=`) and a token (`#token=`) out of the address. */
export function takeIdentity(): { readonly name: string | null; readonly token: string | null } {
  const url = new URL(location.href);
  const name = url.searchParams.get("name")?.trim() ?? "";
  const token = new URLSearchParams(url.hash.slice(1)).get("token") ?? "";
  if (name === "" && token === "") return { name: null, token: null };
  url.searchParams.delete("name");
  url.hash = "";
  history.replaceState(null, "", url);
  return { name: name === "" ? null : name, token: token === "" ? null : token };
}
