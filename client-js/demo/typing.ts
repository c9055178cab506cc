/** Who is writing something, by broadcasts past the log. */
import type { Session } from "../src/index.js";
import { live, type LiveState } from "../src/live.js";
import { byId, setText } from "./dom.js";
import { typingText } from "./words.js";

export class Typing {
  readonly #element = byId("typing", HTMLElement);
  readonly #live: LiveState<boolean>;
  readonly #stop: () => void;

  constructor(session: Session) {
    this.#live = live<boolean>(session, "typing", { everyMs: 1_000 });
    this.#stop = this.#live.subscribe(() => this.#draw());
    this.#draw();
  }

  /** Tells the others whether something is being written here. */
  tell(isTyping: boolean): void {
    if (isTyping) this.#live.set(true);
    else this.#live.clear();
  }

  close(): void {
    this.#live.clear();
    this.#stop();
  }

  #draw(): void {
    setText(this.#element, typingText(this.#live.getSnapshot().map(({ by }) => by.name)));
  }
}
