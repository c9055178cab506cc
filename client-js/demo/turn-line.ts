/** What became of a turn, beside its message, and the one thing that can be done about it. */
import { el, setText } from "./dom.js";
import type { Actions } from "./message.js";
import type { TurnView } from "./words.js";

const LABELS = { stop: "Stop", retry: "Retry", none: "" } as const;

export class TurnLine {
  readonly element = el("div", { class: "turn", "data-testid": "turn-status", hidden: "" });
  readonly #text = el("span", { class: "turn-text" });
  readonly #node = el("span", { class: "node", "data-testid": "node" });
  /** Shown while this page is not in touch: then the rest is what it last heard. */
  readonly #heard = el("span", { class: "as-last-heard" }, "as last heard");
  readonly #button = el("button", { type: "button", class: "small" });
  readonly #actions: Actions;
  #view: TurnView | null = null;

  constructor(actions: Actions) {
    this.#actions = actions;
    this.#button.addEventListener("click", () => void this.#act());
    this.element.append(this.#text, this.#node, this.#heard, this.#button);
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
    this.#node.hidden = view.node === "";
    setText(this.#node, view.node === "" ? "" : `on ${view.node}`);
    const isNew = before?.turnId !== view.turnId || before.action !== view.action;
    if (!isNew) return;
    const hadFocus = document.activeElement === this.#button;
    this.#button.disabled = false;
    this.#button.hidden = view.action === "none";
    this.#button.dataset["testid"] = view.action;
    setText(this.#button, LABELS[view.action]);
    // Whoever stopped it stands where a retry is offered now.
    if (hadFocus && !this.#button.hidden) this.#button.focus();
  }

  async #act(): Promise<void> {
    const view = this.#view;
    if (!view || view.action === "none" || this.#button.getAttribute("aria-disabled") === "true") return;
    // A button that is disabled would lose the focus.
    this.#button.setAttribute("aria-disabled", "true");
    setText(this.#button, view.action === "stop" ? "Stopping…" : "Asking again…");
    try {
      await (view.action === "stop" ? this.#actions.stop(view.turnId) : this.#actions.retry(view.turnId));
    } catch (error) {
      if (this.#view?.turnId === view.turnId) setText(this.#text, `${view.text} — ${words(error)}`);
    } finally {
      this.#button.removeAttribute("aria-disabled");
      setText(this.#button, LABELS[this.#view?.action ?? "none"]);
    }
  }
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
