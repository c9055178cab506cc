/**
 * The messages, each with its author, its parts and what became of its turn.
 *
 * A message's element lives as long as the message; streaming text is appended to the text that is shown. Invariant:
 * what others wrote reaches the page as text only.
 */
import type { Message, Part, SessionSnapshot } from "../src/index.js";
import { KeyedList, el, growText, setText, type View } from "./dom.js";
import { hue, initials, turnView, type TurnView } from "./words.js";

export interface Actions {
  readonly userId: string;
  stop(turnId: string): Promise<unknown>;
  retry(turnId: string): Promise<unknown>;
}

interface Row {
  readonly message: Message;
  readonly turn: TurnView | null;
}

/** Shows the messages of a state; cheap to call again with the same or a slightly newer one. */
export class MessageList {
  readonly #list: KeyedList<Row>;
  #rows: readonly Row[] = [];
  #shown: SessionSnapshot | null = null;

  constructor(parent: HTMLElement, actions: Actions) {
    this.#list = new KeyedList<Row>(
      parent,
      (row) => row.message.id,
      (row) => new MessageView(row.message, actions),
    );
  }

  update(state: SessionSnapshot): void {
    const shown = this.#shown;
    const turnsChanged = shown?.turns !== state.turns || shown.ended !== state.ended;
    const before = new Map(this.#rows.map((row) => [row.message.id, row]));
    this.#rows = state.messages.map((message) => {
      const old = before.get(message.id);
      if (old && !turnsChanged) return old.message === message ? old : { message, turn: old.turn };
      return { message, turn: turnView(state, message) };
    });
    this.#shown = state;
    this.#list.update(this.#rows);
  }
}

class MessageView implements View<Row> {
  readonly element: HTMLElement;
  readonly #parts = el("div", { class: "parts", "data-testid": "message-text" });
  readonly #turn: TurnLine;
  readonly #partViews: PartView[] = [];
  #row: Row | null = null;

  constructor(message: Message, actions: Actions) {
    this.#turn = new TurnLine(actions);
    const author = message.author ?? { id: message.role, name: message.role };
    const mine = author.id === actions.userId;
    const time = new Date(message.created_at);
    this.element = el(
      "li",
      {
        class: "message",
        "data-testid": "message",
        "data-message-id": message.id,
        "data-role": message.role,
        "data-mine": String(mine),
      },
      avatar(author.id, author.name, message.role === "assistant"),
      el(
        "div",
        { class: "body" },
        el(
          "div",
          { class: "meta" },
          el("span", { class: "author", "data-testid": "author" }, mine ? `${author.name} (you)` : author.name),
          el("time", { datetime: message.created_at }, time.toLocaleTimeString([], { timeStyle: "short" })),
        ),
        this.#parts,
        this.#turn.element,
      ),
    );
  }

  update(row: Row): void {
    if (row === this.#row) return;
    const old = this.#row;
    this.#row = row;
    if (old?.message !== row.message) this.#updateMessage(row.message);
    if (old?.turn !== row.turn) this.#turn.update(row.turn);
  }

  #updateMessage(message: Message): void {
    this.element.dataset["status"] = message.status;
    this.element.setAttribute("aria-busy", String(message.status === "streaming"));
    message.parts.forEach((part, index) => {
      let view = this.#partViews[index];
      if (view?.kind !== part.kind) {
        view?.element.remove();
        view = new PartView(part);
        this.#partViews[index] = view;
        this.#parts.insertBefore(view.element, this.#parts.children[index] ?? null);
      }
      view.update(part);
    });
    for (const gone of this.#partViews.splice(message.parts.length)) gone.element.remove();
  }
}

const PART_TITLES: Readonly<Record<Exclude<Part["kind"], "text">, string>> = {
  reasoning: "Thinking",
  tool_call: "Tool call",
  tool_result: "Tool result",
  data: "Data",
};

/** One part: text as text, everything else behind a title that opens. */
class PartView {
  readonly kind: Part["kind"];
  readonly element: HTMLElement;
  readonly #text = document.createTextNode("");
  readonly #textBox = el("div", { class: "text", hidden: "" }, this.#text);
  readonly #value = el("pre", { hidden: "" });
  readonly #summary = el("summary");
  #shown: Part | null = null;

  constructor(part: Part) {
    this.kind = part.kind;
    this.element =
      part.kind === "text"
        ? el("div", { class: "part", "data-kind": "text" }, this.#textBox, this.#value)
        : el("details", { class: "part", "data-kind": part.kind }, this.#summary, this.#textBox, this.#value);
  }

  update(part: Part): void {
    if (part === this.#shown) return;
    this.#shown = part;
    growText(this.#text, part.text ?? "");
    this.#textBox.hidden = this.#text.data === "";
    setText(this.#summary, partTitle(part));
    this.#value.hidden = part.value === undefined;
    if (part.value !== undefined) setText(this.#value, JSON.stringify(part.value, null, 2));
  }
}

function partTitle(part: Part): string {
  if (part.kind === "text") return "";
  const { value } = part;
  const name = typeof value === "object" && value !== null && "name" in value ? value.name : undefined;
  return typeof name === "string" ? `${PART_TITLES[part.kind]}: ${name}` : PART_TITLES[part.kind];
}

/** What became of the turn, and the one thing that can be done about it. */
class TurnLine {
  readonly element = el("div", { class: "turn", "data-testid": "turn-status", hidden: "" });
  readonly #text = el("span", { class: "turn-text" });
  readonly #button = el("button", { type: "button", class: "small" });
  readonly #actions: Actions;
  #view: TurnView | null = null;

  constructor(actions: Actions) {
    this.#actions = actions;
    this.#button.addEventListener("click", () => void this.#act());
    this.element.append(this.#text, this.#button);
  }

  update(view: TurnView | null): void {
    const before = this.#view;
    this.#view = view;
    this.element.hidden = view === null;
    if (!view) return;
    this.element.dataset["status"] = view.status;
    this.element.dataset["reason"] = view.reason;
    this.element.dataset["turnId"] = view.turnId;
    setText(this.#text, view.text);
    this.#button.hidden = view.action === "none";
    this.#button.dataset["testid"] = view.action;
    setText(this.#button, { stop: "Stop", retry: "Retry", none: "" }[view.action]);
    if (before?.turnId !== view.turnId || before.status !== view.status) this.#button.disabled = false;
  }

  async #act(): Promise<void> {
    const view = this.#view;
    if (!view || view.action === "none") return;
    this.#button.disabled = true;
    try {
      await (view.action === "stop" ? this.#actions.stop(view.turnId) : this.#actions.retry(view.turnId));
    } catch (error) {
      if (this.#view?.turnId === view.turnId) setText(this.#text, `${view.text} — ${words(error)}`);
    } finally {
      this.#button.disabled = false;
    }
  }
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The round picture of somebody. */
export function avatar(id: string, name: string, isAgent: boolean): HTMLElement {
  const element = el("span", { class: isAgent ? "avatar agent" : "avatar", "aria-hidden": "true" });
  if (!isAgent) element.style.setProperty("--hue", String(hue(id)));
  element.textContent = isAgent ? "✦" : initials(name);
  return element;
}
