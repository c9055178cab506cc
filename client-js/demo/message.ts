/** One message: who said it, its parts, what became of its turn. */
import type { Message } from "../src/index.js";
import { button, copyText, el, setText, type View } from "./dom.js";
import { PartView } from "./part.js";
import { avatar } from "./people.js";
import { TurnLine } from "./turn-line.js";
import { plainText, type Answering, type TurnView } from "./words.js";

export interface Actions {
  readonly userId: string;
  stop(turnId: string): Promise<unknown>;
  retry(turnId: string): Promise<unknown>;
  /** Goes to a message. */
  visit(messageId: string): void;
}

/** A message with what is said beside it. */
export interface Row {
  readonly message: Message;
  readonly turn: TurnView | null;
  /** Who asked for this answer. */
  readonly askedBy: string;
  /** What it answers, and what is said of that where it does not stand right above. */
  readonly questionId: string | null;
  readonly answering: Answering | null;
}

export class MessageView implements View<Row> {
  readonly element: HTMLElement;
  readonly #parts = el("div", { class: "parts", "data-testid": "message-text" });
  readonly #asked = el("span", { class: "asked", "data-testid": "asked-by", hidden: "" });
  readonly #answering = el("div", { class: "answering", "data-testid": "answering", hidden: "" });
  readonly #actions: Actions;
  readonly #copy = button("Copy", { class: "copy", "data-testid": "copy-message", hidden: "" }, () => this.#onCopy());
  readonly #turn: TurnLine;
  readonly #partViews: PartView[] = [];
  #row: Row | null = null;

  constructor(message: Message, actions: Actions) {
    this.#actions = actions;
    this.#turn = new TurnLine(actions);
    const author = message.author ?? { id: message.role, name: message.role };
    const isMine = author.id === actions.userId;
    const meta = el(
      "div",
      { class: "meta" },
      el("span", { class: "author", "data-testid": "author" }, isMine ? `${author.name} (you)` : author.name),
      this.#asked,
      el("time", { datetime: message.created_at, title: new Date(message.created_at).toLocaleString() }, timeOf(message)),
      this.#copy,
    );
    this.element = el(
      "li",
      { class: "message", "data-testid": "message", "data-message-id": message.id },
      avatar(author.id, author.name, message.role === "assistant"),
      el("div", { class: "body" }, meta, this.#answering, this.#parts, this.#turn.element),
    );
    this.element.dataset["role"] = message.role;
    this.element.dataset["mine"] = String(isMine);
    const isAnswer = message.role === "assistant";
    this.#copy.setAttribute("aria-label", isAnswer ? "Copy this answer" : `Copy this message of ${author.name}`);
  }

  update(row: Row): void {
    const old = this.#row;
    if (row === old) return;
    this.#row = row;
    if (old?.message !== row.message) this.#updateMessage(row.message);
    if (old?.turn !== row.turn) this.#turn.update(row.turn);
    this.#updateAnswering(row.answering);
    const askedBy = row.answering?.by === row.askedBy ? "" : row.askedBy;
    this.#asked.hidden = askedBy === "";
    setText(this.#asked, askedBy === "" ? "" : `asked by ${askedBy}`);
  }

  #updateAnswering(answering: Answering | null): void {
    const { text = "", questionId = null } = answering ?? {};
    this.#answering.hidden = text === "";
    const isSame = this.#answering.textContent === text && this.#answering.dataset["questionId"] === (questionId ?? "");
    if (isSame) return;
    this.#answering.dataset["questionId"] = questionId ?? "";
    const shown = questionId === null ? text : button(text, { class: "link" }, () => this.#actions.visit(questionId));
    this.#answering.replaceChildren(shown);
  }

  #updateMessage(message: Message): void {
    this.element.dataset["status"] = message.status;
    this.element.setAttribute("aria-busy", String(message.status === "streaming"));
    this.#copy.hidden = message.status === "streaming" || plainText(message) === "";
    message.parts.forEach((part, index) => {
      let view = this.#partViews[index];
      if (view?.kind !== part.kind) {
        view?.element.remove();
        view = new PartView(part.kind);
        this.#partViews[index] = view;
        this.#parts.insertBefore(view.element, this.#parts.children[index] ?? null);
      }
      view.update(part);
    });
    for (const gone of this.#partViews.splice(message.parts.length)) gone.element.remove();
  }

  #onCopy(): void {
    if (this.#row) void copyText(plainText(this.#row.message), this.#copy);
  }
}

function timeOf({ created_at }: Message): string {
  return new Date(created_at).toLocaleTimeString([], { timeStyle: "short" });
}
