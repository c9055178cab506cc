/**
 * The messages, in order, each with what became of its turn.
 *
 * A message's element lives as long as the message. Only what changed is looked at: the same object means the same look.
 */
import type { Message, SessionSnapshot } from "../src/index.js";
import { KeyedList, byId } from "./dom.js";
import { MessageView, type Actions, type Row } from "./message.js";
import { answeringOf, askedBy, questionOf, turnView } from "./words.js";

export class MessageList {
  readonly #list: KeyedList<Row>;
  #rows: readonly Row[] = [];
  #shown: SessionSnapshot | null = null;

  constructor(actions: Actions) {
    const parent = byId("messages", HTMLElement);
    parent.replaceChildren();
    this.#list = new KeyedList<Row>(parent, ({ message }) => message.id, ({ message }) => new MessageView(message, actions));
  }

  update(state: SessionSnapshot): void {
    const shown = this.#shown;
    if (shown?.messages === state.messages && shown.turns === state.turns && shown.ended === state.ended) return;
    const turnsChanged = shown?.turns !== state.turns || shown.ended !== state.ended;
    // Or older ones came above, among which may be what is answered.
    const isNew = turnsChanged || shown.messages[0]?.id !== state.messages[0]?.id;
    const before = new Map(this.#rows.map((row) => [row.message.id, row]));
    this.#rows = state.messages.map((message, place) => rowOf(state, place, message, before.get(message.id), isNew));
    this.#shown = state;
    this.#list.update(this.#rows);
  }
}

function rowOf(state: SessionSnapshot, place: number, message: Message, old: Row | undefined, isNew: boolean): Row {
  if (old && !isNew) return old.message === message ? old : { ...old, message };
  // Who asked what is known for as long as the turn is held; it does not change.
  const questionId = questionOf(state, message) ?? old?.questionId ?? null;
  return {
    message,
    turn: turnView(state, message),
    askedBy: askedBy(state, message) || (old?.askedBy ?? ""),
    questionId,
    answering: answeringOf(state.messages, place, questionId),
  };
}
