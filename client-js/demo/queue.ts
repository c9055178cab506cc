/** The turns that wait, with their places, each with a way out. */
import type { Session, SessionSnapshot, Turn } from "../src/index.js";
import { KeyedList, byId, button, el, setText, type View } from "./dom.js";
import { plainText, queuedText } from "./words.js";

interface Waiting {
  readonly turn: Turn;
  readonly text: string;
}

export class Queue {
  readonly #box = byId("queue-box", HTMLElement);
  readonly #session: Session;
  readonly #list: KeyedList<Waiting>;
  #shown: SessionSnapshot["queue"] | null = null;

  constructor(session: Session) {
    this.#session = session;
    const parent = byId("queue", HTMLElement);
    parent.replaceChildren();
    this.#list = new KeyedList<Waiting>(parent, ({ turn }) => turn.id, (waiting) => this.#item(waiting));
  }

  update(state: SessionSnapshot): void {
    if (state.queue === this.#shown) return;
    this.#shown = state.queue;
    this.#box.hidden = state.queue.length === 0;
    this.#list.update(state.queue.map((turn) => ({ turn, text: promptText(state, turn) })));
  }

  #item({ turn }: Waiting): View<Waiting> {
    const what = el("span", { class: "what" });
    const place = el("span", { class: "place" });
    const remove = button("Remove", { class: "small", "data-testid": "unqueue" }, () => void this.#remove(turn.id, remove, what));
    const who = el("span", { class: "who" }, turn.by.name);
    const element = el("li", { "data-testid": "queue-item", "data-turn-id": turn.id }, place, who, what, remove);
    const update = (now: Waiting): void => {
      setText(place, String(now.turn.position ?? ""));
      element.title = queuedText(now.turn);
      setText(what, now.text);
      remove.setAttribute("aria-label", `Remove “${now.text.slice(0, 60)}” of ${now.turn.by.name} from the queue`);
    };
    return { element, update };
  }

  async #remove(turnId: string, remove: HTMLButtonElement, what: HTMLElement): Promise<void> {
    remove.disabled = true;
    try {
      await this.#session.cancel(turnId);
    } catch (error) {
      setText(what, error instanceof Error ? error.message : String(error));
      remove.disabled = false;
    }
  }
}

function promptText(state: SessionSnapshot, turn: Turn): string {
  const prompt = state.messages.findLast((message) => message.id === turn.prompt_id);
  return prompt ? plainText(prompt) : "an earlier message";
}
