/**
 * Deletes the session that is shown, once the person has said that it is meant.
 *
 * The page asks over HTTP, as the socket has no such request; who else has the session open is told by the server.
 */
import { announce } from "./announcer.js";
import { byId, setText } from "./dom.js";
import type { Identity } from "./identity.js";
import { refusedDeletion } from "./words.js";

/** An answer that has not come by then is waited for no longer. */
const LIMIT_MS = 15_000;

export interface Doomed {
  readonly id: string;
  readonly title: string;
}

export class Deletion {
  readonly #button = byId("delete", HTMLButtonElement);
  readonly #dialog = byId("deletion", HTMLDialogElement);
  readonly #name = byId("deletion-name", HTMLElement);
  readonly #problem = byId("deletion-problem", HTMLElement);
  readonly #keep = byId("deletion-keep", HTMLButtonElement);
  readonly #confirm = byId("deletion-confirm", HTMLButtonElement);
  readonly #identity: Identity;
  readonly #deleted: (id: string) => void;
  #doomed: Doomed | null = null;
  #isAsking = false;

  /** `shown` tells what is to be deleted where the button is pressed; `deleted` is called once it is gone. */
  constructor(identity: Identity, shown: () => Doomed, deleted: (id: string) => void) {
    this.#identity = identity;
    this.#deleted = deleted;
    this.#button.addEventListener("click", () => this.#open(shown()));
    this.#confirm.addEventListener("click", () => void this.#delete());
    // It is too late to keep it while the server is being asked.
    this.#keep.addEventListener("click", () => {
      if (!this.#isAsking) this.#dialog.close();
    });
    this.#dialog.addEventListener("cancel", (event) => {
      if (this.#isAsking) event.preventDefault();
    });
  }

  /** Whether there is something to delete. */
  update(isThere: boolean): void {
    this.#button.hidden = !isThere;
  }

  #open(doomed: Doomed): void {
    this.#doomed = doomed;
    setText(this.#name, doomed.title);
    this.#explain("");
    this.#dialog.showModal();
    this.#keep.focus();
  }

  async #delete(): Promise<void> {
    const doomed = this.#doomed;
    if (!doomed || this.#isAsking) return;
    this.#asking(true);
    this.#explain("");
    const problem = await deleteSession(doomed.id, this.#identity);
    this.#asking(false);
    if (problem === null) {
      this.#dialog.close();
      this.#deleted(doomed.id);
    } else if (this.#dialog.open) this.#explain(problem);
    else announce(problem);
  }

  /** A button that is disabled would lose the focus. */
  #asking(isAsking: boolean): void {
    this.#isAsking = isAsking;
    for (const button of [this.#confirm, this.#keep]) button.setAttribute("aria-disabled", String(isAsking));
    setText(this.#confirm, isAsking ? "Deleting…" : "Delete");
  }

  #explain(problem: string): void {
    setText(this.#problem, problem);
    this.#problem.hidden = problem === "";
  }
}

/** Deletes a session; what is in the way and what to do about it, or null once it is gone. */
async function deleteSession(id: string, { id: userId, name, token }: Identity): Promise<string | null> {
  const who = token === null ? `?${new URLSearchParams({ user_id: userId, name }).toString()}` : "";
  const headers: HeadersInit = token === null ? {} : { authorization: `Bearer ${token}` };
  try {
    const url = `/api/sessions/${encodeURIComponent(id)}${who}`;
    const { ok, status } = await fetch(url, { method: "DELETE", headers, signal: AbortSignal.timeout(LIMIT_MS) });
    return ok ? null : refusedDeletion(status);
  } catch {
    return refusedDeletion(null);
  }
}
