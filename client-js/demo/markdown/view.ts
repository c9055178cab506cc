/**
 * Shows Markdown as elements of the page.
 *
 * Everything goes in as text and attributes, never as markup. A text that grows is parsed from its last block on, and
 * only what differs is touched, so that a selection in a streaming answer survives.
 */
import { el, growText } from "../dom.js";
import { parseBlocks, type Align, type Block, type Item } from "./blocks.js";
import { parseInline, type Inline } from "./inline.js";

export class MarkdownView {
  readonly element = el("div", { class: "markdown" });
  #text = "";
  /** Where each block that is shown begins. */
  #starts: readonly number[] = [];

  update(text: string): void {
    if (text === this.#text) return;
    const last = this.#starts.length - 1;
    const kept = last > 0 && text.startsWith(this.#text) ? last : 0;
    const offset = kept > 0 ? (this.#starts[kept] ?? 0) : 0;
    const placed = parseBlocks(text.slice(offset));
    placed.forEach(({ block }, index) => {
      const shown = this.element.childNodes[kept + index];
      if (shown) morph(shown, blockElement(block));
      else this.element.append(blockElement(block));
    });
    while (this.element.childNodes.length > kept + placed.length) this.element.lastChild?.remove();
    this.#starts = [...this.#starts.slice(0, kept), ...placed.map(({ from }) => offset + from)];
    this.#text = text;
  }
}

function blockElement(block: Block): HTMLElement {
  switch (block.kind) {
    case "paragraph":
      return fill(el("p"), inline(block.text));
    case "heading":
      return fill(el(HEADINGS[Math.min(block.level, HEADINGS.length) - 1] ?? "h6"), inline(block.text));
    case "code":
      return codeElement(block.language, block.text);
    case "quote":
      return fill(el("blockquote"), block.blocks.map(blockElement));
    case "list":
      return listElement(block.start, block.items);
    case "table":
      return tableElement(block.align, block.head, block.rows);
    case "rule":
      return el("hr");
  }
}

/** The page has its own first two. */
const HEADINGS = ["h3", "h4", "h5", "h6"] as const;

/** The button is found and served by whoever shows the message: see `copyCode`. */
function codeElement(language: string, text: string): HTMLElement {
  const copy = el("button", { type: "button", class: "copy", "data-copy-code": "" }, "Copy");
  const caption = el("figcaption", {}, el("span", {}, language === "" ? "text" : language), copy);
  const label = language === "" ? "Code" : `Code, ${language}`;
  return el("figure", { class: "code" }, caption, el("pre", { tabindex: "0", role: "group", "aria-label": label }, el("code", {}, text)));
}

function listElement(start: number | null, items: readonly Item[]): HTMLElement {
  const list = start === null ? el("ul") : el("ol", start === 1 ? {} : { start: String(start) });
  return fill(list, items.map(itemElement));
}

/** An item of one paragraph is that text, without the paragraph's distance. */
function itemElement({ done, blocks }: Item): HTMLElement {
  const [first, ...rest] = blocks;
  const head = first?.kind === "paragraph" ? inline(first.text) : first ? [blockElement(first)] : [];
  const box = done === null ? [] : [el("input", checkbox(done))];
  return fill(el("li", done === null ? {} : { class: "task" }, ...box), [...head, ...rest.map(blockElement)]);
}

function checkbox(done: boolean): Record<string, string> {
  return { type: "checkbox", disabled: "", "aria-label": done ? "Done" : "To do", ...(done ? { checked: "" } : {}) };
}

function tableElement(align: readonly Align[], head: readonly string[], rows: readonly (readonly string[])[]): HTMLElement {
  const cell = (tag: "th" | "td", text: string, column: number): HTMLElement => {
    const to = align[column];
    const attributes = { ...(tag === "th" ? { scope: "col" } : {}), ...(to ? { class: `to-${to}` } : {}) };
    return fill(el(tag, attributes), inline(text));
  };
  const row = (tag: "th" | "td", texts: readonly string[]): HTMLElement =>
    fill(el("tr"), texts.map((text, column) => cell(tag, text, column)));
  const body = fill(el("tbody"), rows.map((texts) => row("td", texts)));
  const table = el("table", {}, el("thead", {}, row("th", head)), body);
  return el("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" }, table);
}

function inline(text: string): (Node | string)[] {
  return parseInline(text).map(inlineNode);
}

/** One by one: a text may make more of them than a call takes. */
function fill<Parent extends HTMLElement>(parent: Parent, children: readonly (Node | string)[]): Parent {
  for (const child of children) parent.append(child);
  return parent;
}

const TAGS = { strong: "strong", emphasis: "em", strike: "s" } as const;

function inlineNode(node: Inline): Node | string {
  switch (node.kind) {
    case "text":
      return node.text;
    case "code":
      return el("code", {}, node.text);
    case "link": {
      const attributes = { href: node.href, title: node.href, target: "_blank", rel: "noopener noreferrer nofollow" };
      return fill(el("a", attributes), node.children.map(inlineNode));
    }
    case "strong":
    case "emphasis":
    case "strike":
      return fill(el(TAGS[node.kind]), node.children.map(inlineNode));
  }
}

/** Makes `shown` look like `wanted`, touching as little as it can. */
function morph(shown: Node, wanted: Node): void {
  if (shown instanceof Text && wanted instanceof Text) growText(shown, wanted.data);
  else if (!(shown instanceof Element) || !(wanted instanceof Element) || !isAlike(shown, wanted)) {
    shown.parentNode?.replaceChild(wanted, shown);
  } else if (!shown.hasAttribute("data-copy-code")) morphChildren(shown, wanted);
}

function isAlike(shown: Element, wanted: Element): boolean {
  if (shown.tagName !== wanted.tagName || shown.attributes.length !== wanted.attributes.length) return false;
  return [...wanted.attributes].every(({ name, value }) => shown.getAttribute(name) === value);
}

function morphChildren(shown: Element, wanted: Element): void {
  const [before, after] = [[...shown.childNodes], [...wanted.childNodes]];
  after.forEach((child, index) => {
    const old = before[index];
    if (old) morph(old, child);
    else shown.append(child);
  });
  for (const gone of before.slice(after.length)) gone.remove();
}

/** Serves the copy buttons of all code below `parent`. */
export function copyCode(parent: HTMLElement, copy: (text: string, button: HTMLElement) => void): void {
  parent.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-copy-code]") : null;
    const code = button?.closest("figure")?.querySelector("pre");
    if (button && code) copy(code.textContent, button);
  });
}
