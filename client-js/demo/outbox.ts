/**
 * What was said and is not in the log yet.
 *
 * An entry stays until its message is seen in the session or until the person takes it back; a failed one is sent
 * again under the same id, so that nothing can be said twice.
 */
import { RejoinError, randomId, type SendOptions, type Session } from "../src/index.js";
import { KeyedList, el, setText, type View } from "./dom.js";

interface Entry {
  readonly id: string;
  readonly text: string;
  readonly whenBusy: NonNullable<SendOptions["whenBusy"]>;
  /** Why it was not taken; null while it is on its way. */
  readonly error: string | null;
}

export class Outbox {
  readonly #session: Session;
  readonly #onChange: () => void;
  readonly #list: KeyedList<Entry>;
  #entries: readonly Entry[] = [];

  constructor(parent: HTMLElement, session: Session, onChange: () => void) {
    this.#session = session;
    this.#onChange = onChange;
    this.#list = new KeyedList<Entry>(
      parent,
      (entry) => entry.id,
      (entry) => this.#view(entry),
    );
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }

  /** Says something; it is shown here until it is in the session. */
  say(text: string, whenBusy: Entry["whenBusy"]): void {
    const entry = { id: randomId(), text, whenBusy, error: null };
    this.#set([...this.#entries, entry]);
    void this.#send(entry);
  }

  /** Drops what has arrived. */
  update(): void {
    if (this.isEmpty) return;
    const arrived = new Set(this.#session.state?.messages.map((message) => message.id));
    const left = this.#entries.filter((entry) => !arrived.has(entry.id));
    if (left.length < this.#entries.length) this.#set(left);
  }

  async #send(entry: Entry): Promise<void> {
    try {
      const { message_id } = await this.#session.send(entry.text, { id: entry.id, whenBusy: entry.whenBusy });
      this.#change(entry.id, (held) => ({ ...held, id: message_id }));
      this.update();
    } catch (error) {
      const text = error instanceof RejoinError ? error.message : String(error);
      this.#change(entry.id, (held) => ({ ...held, error: text }));
    }
  }

  #view(entry: Entry): View<Entry> {
    const note = el("span", { class: "turn-text", role: "status" });
    const again = el("button", { type: "button", class: "small", "data-testid": "send-again" }, "Send again");
    const discard = el("button", { type: "button", class: "small", "data-testid": "discard" }, "Discard");
    again.addEventListener("click", () => {
      this.#change(entry.id, (held) => ({ ...held, error: null }));
      void this.#send(entry);
    });
    discard.addEventListener("click", () => this.#set(this.#entries.filter((other) => other.id !== entry.id)));
    const text = el("div", { class: "parts" }, el("div", { class: "part text" }, entry.text));
    const line = el("div", { class: "turn" }, note, again, discard);
    const body = el("div", { class: "body" }, text, line);
    const element = el("li", { class: "message", "data-testid": "unsent", "data-role": "user", "data-mine": "true" }, body);
    const update = (now: Entry): void => {
      element.dataset["status"] = now.error === null ? "sending" : "unsent";
      setText(note, now.error ?? "sending…");
      again.hidden = discard.hidden = now.error === null;
    };
    return { element, update };
  }

  #change(id: string, change: (entry: Entry) => Entry): void {
    this.#set(this.#entries.map((entry) => (entry.id === id ? change(entry) : entry)));
  }

  #set(entries: readonly Entry[]): void {
    this.#entries = entries;
    this.#list.update(entries);
    this.#onChange();
  }
}
