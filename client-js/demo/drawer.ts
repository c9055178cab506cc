/** On a narrow window the list of sessions is a drawer: it comes over the page, takes the focus, and gives it back. */
import { byId, setAttribute } from "./dom.js";

export class Drawer {
  readonly #list = byId("sidebar", HTMLElement);
  readonly #stage = byId("stage", HTMLElement);
  readonly #button = byId("menu", HTMLButtonElement);
  readonly #shade = byId("shade", HTMLElement);
  readonly #narrow = matchMedia("(width < 52rem)");
  #isOpen = false;

  constructor() {
    this.#button.addEventListener("click", () => this.open());
    byId("close-menu", HTMLButtonElement).addEventListener("click", () => this.close());
    this.#shade.addEventListener("click", () => this.close());
    this.#list.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
    this.#narrow.addEventListener("change", () => this.#set(false));
    this.#set(false);
  }

  open(): void {
    this.#set(true);
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#set(false);
    this.#button.focus();
  }

  #set(isOpen: boolean): void {
    const isNarrow = this.#narrow.matches;
    this.#isOpen = isOpen && isNarrow;
    this.#list.dataset["open"] = String(this.#isOpen);
    // What lies under the other cannot be reached.
    this.#list.inert = isNarrow && !this.#isOpen;
    this.#stage.inert = this.#isOpen;
    this.#shade.hidden = !this.#isOpen;
    setAttribute(this.#button, "aria-expanded", String(this.#isOpen));
    if (this.#isOpen) byId("new-session", HTMLAnchorElement).focus();
  }
}
