/** One part of a message: text as Markdown, everything else behind a title that opens. */
import type { Part, PartKind } from "../src/index.js";
import { el, setText } from "./dom.js";
import { MarkdownView } from "./markdown/view.js";

const TITLES: Readonly<Record<Exclude<PartKind, "text">, string>> = {
  reasoning: "Thinking",
  tool_call: "Tool call",
  tool_result: "Tool result",
  data: "Data",
};

export class PartView {
  readonly kind: PartKind;
  readonly element: HTMLElement;
  readonly #text = new MarkdownView();
  readonly #value = el("pre", { hidden: "", tabindex: "0", role: "group", "aria-label": "Value" });
  readonly #summary = el("summary");
  #shown: Part | null = null;

  constructor(kind: PartKind) {
    this.kind = kind;
    this.element =
      kind === "text"
        ? el("div", { class: "part", "data-kind": kind }, this.#text.element, this.#value)
        : el("details", { class: "part", "data-kind": kind }, this.#summary, this.#text.element, this.#value);
  }

  update(part: Part): void {
    if (part === this.#shown) return;
    this.#shown = part;
    this.#text.update(part.text ?? "");
    setText(this.#summary, titleOf(part));
    this.#value.hidden = part.value === undefined;
    if (part.value !== undefined) setText(this.#value, JSON.stringify(part.value, null, 2));
  }
}

function titleOf(part: Part): string {
  if (part.kind === "text") return "";
  const { value } = part;
  const name = typeof value === "object" && value !== null && "name" in value ? value.name : undefined;
  return typeof name === "string" ? `${TITLES[part.kind]}: ${name}` : TITLES[part.kind];
}
