/** The list of sessions: live, each with what runs in it, each a link of its own. */
import type { ListSnapshot, SessionSummary } from "../src/index.js";
import { addressOf } from "./address.js";
import { KeyedList, byId, el, setAttribute, setText, type View } from "./dom.js";
import { summaryText, titleOf } from "./words.js";

export class Sidebar {
  readonly #note = byId("list-note", HTMLElement);
  readonly #element = byId("session-list", HTMLElement);
  readonly #list: KeyedList<SessionSummary>;
  #current: string | null = null;
  #snapshot: ListSnapshot | null = null;

  constructor(open: (id: string) => void) {
    const make = (summary: SessionSummary): View<SessionSummary> => this.#item(summary.id, open);
    this.#list = new KeyedList<SessionSummary>(this.#element, ({ id }) => id, make);
    // So that "3 min ago" stays true.
    setInterval(() => this.#draw(), 20_000);
  }

  update(snapshot: ListSnapshot, current: string | null): void {
    if (snapshot === this.#snapshot && current === this.#current) return;
    this.#snapshot = snapshot;
    this.#current = current;
    this.#draw();
  }

  /** The session that stands so many places below the current one. */
  neighbour(places: number): string | null {
    const sessions = this.#snapshot?.sessions ?? [];
    const here = sessions.findIndex(({ id }) => id === this.#current);
    return sessions[here < 0 ? 0 : here + places]?.id ?? null;
  }

  #draw(): void {
    const snapshot = this.#snapshot;
    if (!snapshot) return;
    this.#list.update(snapshot.sessions);
    const note = noteOf(snapshot);
    setText(this.#note, note);
    this.#note.hidden = note === "";
  }

  #item(id: string, open: (id: string) => void): View<SessionSummary> {
    const name = el("span", { class: "session-name" });
    const what = el("span", { class: "session-what" });
    const words = el("span", { class: "session-words" }, name, what);
    const link = el("a", { href: addressOf(id), "data-testid": "session-link", "data-session-id": id }, el("span", { class: "dot" }), words);
    link.addEventListener("click", (event) => {
      // Another window or tab is the browser's business.
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      open(id);
    });
    const update = (summary: SessionSummary): void => {
      setText(name, titleOf(summary));
      setText(what, summaryText(summary, Date.now()));
      setAttribute(link, "data-status", summary.status);
      setAttribute(link, "aria-current", id === this.#current ? "page" : null);
    };
    return { element: el("li", {}, link), update };
  }
}

function noteOf({ status, error, isReady, sessions, hasMore }: ListSnapshot): string {
  if (status === "refused") {
    const isRight = error?.reason === "unauthorized";
    return isRight ? "Your token does not open the list of sessions. A link to a session still does." : (error?.message ?? "");
  }
  if (!isReady) return "Looking for sessions…";
  if (sessions.length === 0) return "No sessions yet. Ask something, and yours is the first.";
  return hasMore ? "These are the newest; there are older ones." : "";
}
