/**
 * The messages, in order, each with what became of its turn.
 *
 * A message's element lives as long as the message. Only what changed is looked at: the same object means the same look.
 */
import type { Message, SessionSnapshot } from "../src/index.js";
import { KeyedList, byId } from "./dom.js";
import { MessageView, type Actions, type Row } from "./message.js";
import { askedBy, turnView } from "./words.js";

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
    const before = new Map(this.#rows.map((row) => [row.message.id, row]));
    this.#rows = state.messages.map((message) => rowOf(state, message, before.get(message.id), turnsChanged));
    this.#shown = state;
    this.#list.update(this.#rows);
  }
}

function rowOf(state: SessionSnapshot, message: Message, old: Row | undefined, turnsChanged: boolean): Row {
  if (old && !turnsChanged) return old.message === message ? old : { ...old, message };
  // Who asked is known for as long as the turn is held; it does not change.
  return { message, turn: turnView(state, message), askedBy: askedBy(state, message) || (old?.askedBy ?? "") };
}
