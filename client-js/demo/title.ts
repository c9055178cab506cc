/** The title of the session, to be read and to be changed by whoever may. */
import type { Session, SessionInfo } from "../src/index.js";
import { announce } from "./announcer.js";
import { byId, setText } from "./dom.js";

export class Title {
  readonly #input = byId("title", HTMLInputElement);
  readonly #heading = byId("heading", HTMLElement);
  readonly #note = byId("title-note", HTMLElement);
  readonly #session: () => Session;
  readonly #leave: () => void;
  #shown = "";

  /** `leave` is called when the field is done with. */
  constructor(session: () => Session, leave: () => void) {
    this.#session = session;
    this.#leave = leave;
    this.#input.addEventListener("change", () => void this.#save());
    this.#input.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#input.value = this.#shown;
      if (event.key === "Enter" || event.key === "Escape") leave();
    });
  }

  update(info: SessionInfo | null, isNew: boolean, isRunning: boolean): void {
    this.#shown = info?.title ?? "";
    this.#input.hidden = isNew;
    if (document.activeElement !== this.#input) this.#input.value = this.#shown;
    const words = isNew ? "New session" : this.#shown || "Untitled session";
    setText(this.#heading, words);
    this.#heading.className = isNew ? "new-title" : "sr-only";
    document.title = `${isRunning ? "● " : ""}${words} · Rejoin`;
  }

  /** What was refused is said beside it, for as long as it is true. */
  async #save(): Promise<void> {
    const title = this.#input.value.trim();
    this.#note.hidden = true;
    try {
      await this.#session().update({ title: title === "" ? null : title });
    } catch (error) {
      this.#input.value = this.#shown;
      const text = `The title was not changed. ${error instanceof Error ? error.message : String(error)}`;
      setText(this.#note, text);
      this.#note.hidden = false;
      announce(text);
      this.#leave();
    }
  }

  /** Another session: what was said about the last one is over. */
  reset(): void {
    this.#note.hidden = true;
  }
}
