/** Where one writes. What is not sent yet is kept for each session, also across a refresh. */
import { byId, setText } from "./dom.js";
import { tab } from "./storage.js";

export interface ComposerActions {
  send(text: string, whenBusy: "queue" | "interrupt"): void;
  /** Whether something is being written. */
  typing(isTyping: boolean): void;
  stop(): void;
}

export class Composer {
  readonly #text = byId("composer", HTMLTextAreaElement);
  readonly #interrupt = byId("interrupt", HTMLButtonElement);
  readonly #stop = byId("dock-stop", HTMLButtonElement);
  readonly #send = byId("send", HTMLButtonElement);
  readonly #actions: ComposerActions;
  #key = "";
  #isRunning = false;

  constructor(actions: ComposerActions) {
    this.#actions = actions;
    byId("form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#say("queue");
    });
    this.#interrupt.addEventListener("click", () => this.#say("interrupt"));
    this.#stop.addEventListener("click", () => {
      actions.stop();
      this.focus();
    });
    this.#text.addEventListener("keydown", (event) => this.#onKey(event));
    this.#text.addEventListener("input", () => this.#changed());
    this.#text.addEventListener("blur", () => actions.typing(false));
  }

  /** Writes for another session from now on. */
  open(sessionId: string | null): void {
    this.#key = `draft:${sessionId ?? "new"}`;
    this.#text.placeholder = sessionId === null ? "Ask something, and a session begins…" : "Ask something…";
    this.#text.value = tab.read(this.#key) ?? "";
    this.#fit();
  }

  /** Whether something runs that could be stopped. */
  update(isRunning: boolean): void {
    this.#isRunning = isRunning;
    const isEmpty = this.#text.value.trim() === "";
    this.#stop.hidden = !isRunning || !isEmpty;
    this.#send.hidden = isRunning && isEmpty;
    this.#interrupt.hidden = !isRunning || isEmpty;
    setText(this.#send, isRunning ? "Queue" : "Send");
  }

  focus(): void {
    this.#text.focus({ preventScroll: true });
  }

  #onKey(event: KeyboardEvent): void {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#say((event.ctrlKey || event.metaKey) && this.#isRunning ? "interrupt" : "queue");
  }

  #say(whenBusy: "queue" | "interrupt"): void {
    const text = this.#text.value.trim();
    if (text === "") return;
    this.#text.value = "";
    this.#changed();
    this.#actions.send(text, whenBusy);
    this.focus();
  }

  #changed(): void {
    const { value } = this.#text;
    tab.write(this.#key, value === "" ? null : value);
    this.#actions.typing(value !== "");
    this.update(this.#isRunning);
    this.#fit();
  }

  /** As high as what is written, up to the limit in the style sheet. */
  #fit(): void {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
  }
}
