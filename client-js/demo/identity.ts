/**
 * Who this window is.
 *
 * A person is that of the browser, remembered for the next visit; a name or a token in the address makes somebody else
 * of one tab, so that two windows side by side can be two people. Where the server asks for tokens, the token decides.
 */
import { randomId } from "../src/index.js";
import { takeIdentity } from "./address.js";
import { browser, tab } from "./storage.js";

export interface Identity {
  readonly id: string;
  readonly name: string;
  readonly token: string | null;
}

const FIRST = ["Amber", "Brisk", "Calm", "Clever", "Gentle", "Keen", "Lucky", "Quiet", "Swift", "Sunny"];
const SECOND = ["Badger", "Crane", "Finch", "Heron", "Lynx", "Marten", "Otter", "Plover", "Raven", "Seal"];

/** Who this window is, if that is known. */
export function knownIdentity(): Identity | null {
  const { name, token } = takeIdentity();
  if (name !== null) {
    tab.write("name", name);
    tab.write("user", tab.read("user") ?? newId());
  }
  if (token !== null) tab.write("token", token);
  const known = { name: tab.read("name") ?? browser.read("name"), token: tab.read("token") };
  if (known.name === null && known.token === null) return null;
  return { id: ownId(), name: known.name ?? "", token: known.token };
}

/** This browser's person from now on. */
export function becomeKnown(name: string): void {
  const shelf = tab.read("name") === null ? browser : tab;
  shelf.write("name", name);
}

/** The token of this tab from now on; null signs out. */
export function keepToken(token: string | null): void {
  tab.write("token", token);
}

/** A name for whoever has not chosen one. */
export function anyName(): string {
  return `${pick(FIRST)} ${pick(SECOND)}`;
}

function ownId(): string {
  const known = tab.read("user") ?? browser.read("user");
  if (known !== null) return known;
  const made = newId();
  browser.write("user", made);
  return made;
}

function newId(): string {
  return `guest-${randomId().slice(0, 12)}`;
}

function pick(words: readonly string[]): string {
  return words[Math.floor(Math.random() * words.length)] ?? "Guest";
}
