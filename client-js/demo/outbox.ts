/**
 * What was said and is not in the log yet: the session keeps it, this shows it.
 *
 * An entry stays until its message is seen in the session or until the person takes it back; a failed one is sent
 * again under the same id, so that nothing can be said twice.
 */
import type { PendingMessage, Session, SessionSnapshot } from "../src/index.js";
import { KeyedList, el, setText, type View } from "./dom.js";
import { plainText } from "./words.js";

/** Shows the outbox of a snapshot. */
export function outboxList(parent: HTMLElement, session: Session): (snapshot: SessionSnapshot) => void {
  const list = new KeyedList<PendingMessage>(
    parent,
    (entry) => entry.id,
    (entry) => entryView(entry, session),
  );
  return ({ outbox }) => list.update(outbox);
}

function entryView(entry: PendingMessage, session: Session): View<PendingMessage> {
  const note = el("span", { class: "turn-text", role: "status" });
  const again = el("button", { type: "button", class: "small", "data-testid": "send-again" }, "Send again");
  const discard = el("button", { type: "button", class: "small", "data-testid": "discard" }, "Discard");
  again.addEventListener("click", () => session.resend(entry.id));
  discard.addEventListener("click", () => session.discard(entry.id));
  const text = el("div", { class: "parts" }, el("div", { class: "part text" }, plainText(entry)));
  const line = el("div", { class: "turn" }, note, again, discard);
  const body = el("div", { class: "body" }, text, line);
  const element = el("li", { class: "message", "data-testid": "unsent", "data-role": "user", "data-mine": "true" }, body);
  const update = ({ status, error }: PendingMessage): void => {
    const failed = status === "failed";
    element.dataset["status"] = failed ? "unsent" : "sending";
    setText(note, failed ? (error?.message ?? "not sent") : "sending…");
    again.hidden = discard.hidden = !failed;
  };
  return { element, update };
}
