/** What is in the way of the session, and what happens next. Its words stay still while the seconds pass. */
import { byId, setText } from "./dom.js";
import { retryText, type Notice } from "./words.js";

const TEXTS = { retry: "Try now", token: "Use another token", rejoin: "Open it again" } as const;

export class Banner {
  readonly #element = byId("banner", HTMLElement);
  readonly #text = byId("banner-text", HTMLElement);
  readonly #next = byId("banner-next", HTMLElement);
  readonly #button = byId("banner-action", HTMLButtonElement);
  #notice: Notice | null = null;
  #ticking: ReturnType<typeof setInterval> | undefined;

  constructor(act: (action: NonNullable<Notice["action"]>) => void) {
    this.#button.addEventListener("click", () => {
      if (this.#notice?.action) act(this.#notice.action);
    });
  }

  update(notice: Notice | null): void {
    this.#notice = notice;
    this.#element.hidden = notice === null;
    setText(this.#text, notice?.text ?? "");
    this.#element.dataset["tone"] = notice?.tone ?? "";
    this.#button.hidden = !notice?.action;
    setText(this.#button, notice?.action ? TEXTS[notice.action] : "");
    this.#tick();
    clearInterval(this.#ticking);
    if (notice?.retryAt != null) this.#ticking = setInterval(() => this.#tick(), 250);
  }

  #tick(): void {
    setText(this.#next, retryText(this.#notice?.retryAt, Date.now()));
  }
}
