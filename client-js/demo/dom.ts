/** The few helpers that the page needs of the DOM. Text goes in by `textContent`, never as markup. */

type Attributes = Readonly<Record<string, string>>;

/** A new element with attributes and children; a string becomes text. */
export function el<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The element of the page with that id. */
export function byId<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`The page has no ${kind.name} #${id}.`);
  return element;
}

/** A button that does something. */
export function button(text: string, attributes: Attributes, act: () => void): HTMLButtonElement {
  const made = el("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", act);
  return made;
}

/** Sets a text only if it differs: a selection in it survives. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute only if it differs; null removes it. */
export function setAttribute(element: Element, name: string, value: string | null): void {
  if (element.getAttribute(name) === value) return;
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, value);
}

/** A text that mostly grows: what is new is appended, so that its cost is that of the new piece. */
export function growText(node: Text, text: string): void {
  const shown = node.data;
  if (text === shown) return;
  if (text.length > shown.length && text.startsWith(shown)) node.appendData(text.slice(shown.length));
  else node.data = text;
}

/** Copies a text, and says so on the button for a moment. */
export async function copyText(text: string, from: HTMLElement): Promise<void> {
  const words = (from.dataset["words"] ??= from.textContent);
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = "Copied";
  } catch {
    // A page that was not loaded securely has no clipboard.
    from.textContent = "No clipboard here";
  }
  setTimeout(() => {
    from.textContent = words;
  }, 1_500);
}

/** Draws once for all changes of a moment. A hidden page draws no frames, so it does not wait for one. */
export function scheduler(draw: () => void): () => void {
  let isScheduled = false;
  const run = (): void => {
    isScheduled = false;
    draw();
  };
  return () => {
    if (isScheduled) return;
    isScheduled = true;
    if (document.visibilityState === "visible") requestAnimationFrame(run);
    else setTimeout(run, 0);
  };
}

/** Something that is shown for as long as its key is in a list. */
export interface View<Item> {
  readonly element: HTMLElement;
  update(item: Item): void;
}

/** A list in which each key keeps its element, whatever comes and goes around it. */
export class KeyedList<Item> {
  readonly #parent: HTMLElement;
  readonly #keyOf: (item: Item) => string;
  readonly #make: (item: Item) => View<Item>;
  #views = new Map<string, View<Item>>();

  constructor(parent: HTMLElement, keyOf: (item: Item) => string, make: (item: Item) => View<Item>) {
    this.#parent = parent;
    this.#keyOf = keyOf;
    this.#make = make;
  }

  /** Shows these, in this order. */
  update(items: readonly Item[]): void {
    const views = new Map<string, View<Item>>();
    let next = this.#parent.firstChild;
    for (const item of items) {
      const key = this.#keyOf(item);
      const view = this.#views.get(key) ?? this.#make(item);
      this.#views.delete(key);
      view.update(item);
      views.set(key, view);
      if (view.element === next) next = next.nextSibling;
      else this.#parent.insertBefore(view.element, next);
    }
    for (const gone of this.#views.values()) gone.element.remove();
    this.#views = views;
  }
}
