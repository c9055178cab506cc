/**
 * What was said and is not in the log yet: the session keeps it, this shows it.
 *
 * An entry stays until its message is seen in the session or until the person takes it back; a failed one is sent
 * again under the same id, so that nothing can be said twice.
 */
import type { PendingMessage, Session } from "../src/index.js";
import { KeyedList, button, byId, el, setText, type View } from "./dom.js";
import { MarkdownView } from "./markdown/view.js";
import { pendingText, plainText } from "./words.js";

export class Pending {
  readonly #list: KeyedList<PendingMessage>;

  constructor(session: Session) {
    const parent = byId("outbox", HTMLElement);
    parent.replaceChildren();
    this.#list = new KeyedList<PendingMessage>(parent, ({ id }) => id, (entry) => entryView(entry, session));
  }

  update(outbox: readonly PendingMessage[]): void {
    this.#list.update(outbox);
  }
}

function entryView(entry: PendingMessage, session: Session): View<PendingMessage> {
  const note = el("span", { class: "turn-text", role: "status" });
  const again = button("Send again", { class: "small", "data-testid": "send-again" }, () => session.resend(entry.id));
  const discard = button("Discard", { class: "small", "data-testid": "discard" }, () => void session.discard(entry.id));
  const text = new MarkdownView();
  text.update(plainText(entry));
  const line = el("div", { class: "turn" }, note, again, discard);
  const body = el("div", { class: "body" }, el("div", { class: "parts" }, text.element), line);
  const element = el("li", { class: "message", "data-testid": "unsent", "data-role": "user", "data-mine": "true" }, body);
  const update = (now: PendingMessage): void => {
    const isFailed = now.status === "failed";
    element.dataset["status"] = isFailed ? "unsent" : now.status;
    setText(note, pendingText(now));
    again.hidden = !isFailed;
    discard.hidden = now.status === "sending";
  };
  return { element, update };
}
