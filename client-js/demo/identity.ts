/**
 * Who this window is and which session it shows.
 *
 * The identity is that of the tab, so that two windows are two people; the name is remembered for the next one. A
 * browser that refuses storage gets a new identity at each load, and nothing else changes.
 */
import { randomId } from "../src/index.js";

export interface Identity {
  readonly id: string;
  readonly name: string;
}

const FIRST = ["Amber", "Brisk", "Calm", "Clever", "Gentle", "Keen", "Lucky", "Quiet", "Swift", "Sunny"];
const SECOND = ["Badger", "Crane", "Finch", "Heron", "Lynx", "Marten", "Otter", "Plover", "Raven", "Seal"];

/** The session in the address; a new one is written there if there is none. */
export function sessionId(): string {
  const url = new URL(location.href);
  const given = url.searchParams.get("session");
  if (given) return given;
  const made = randomId().slice(0, 10);
  url.searchParams.set("session", made);
  history.replaceState(null, "", url);
  return made;
}

/** The address under which others find this session: without who one is. */
export function sessionLink(id: string): string {
  const url = new URL(location.pathname, location.href);
  url.searchParams.set("session", id);
  return url.href;
}

/** A token for servers that ask for one, behind `#token=` so that it is never sent or shared with the link. */
export function tokenFromAddress(): string | undefined {
  return new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
}

/** This tab's person. */
export function identity(): Identity {
  const id = remembered("rejoin:user", () => `guest-${randomId().slice(0, 12)}`);
  const asked = new URL(location.href).searchParams.get("name")?.trim();
  if (asked) {
    write("rejoin:name", asked);
    return { id, name: asked };
  }
  return { id, name: remembered("rejoin:name", () => `${pick(FIRST)} ${pick(SECOND)}`) };
}

function remembered(key: string, make: () => string): string {
  const known = read(key);
  if (known) return known;
  const made = make();
  write(key, made);
  return made;
}

function read(key: string): string | null {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function write(key: string, value: string): void {
  try {
    sessionStorage.setItem(key, value);
  } catch {
    // Storage is a comfort here, not a need.
  }
}

function pick(words: readonly string[]): string {
  return words[Math.floor(Math.random() * words.length)] ?? "Guest";
}
