/** Who is in the session, and which agents are at work. */
import type { PresenceEntry } from "../src/index.js";
import { KeyedList, byId, el, setText, type View } from "./dom.js";
import { hue, initials } from "./words.js";

const MAX_SHOWN = 6;

/** The round picture of somebody. */
export function avatar(id: string, name: string, isAgent: boolean): HTMLElement {
  const element = el("span", { class: isAgent ? "avatar agent" : "avatar", "aria-hidden": "true" });
  if (!isAgent) element.style.setProperty("--hue", String(hue(id)));
  element.textContent = isAgent ? "✦" : initials(name);
  return element;
}

/** The people, oneself first, then the agents at work. */
export class People {
  readonly #userId: () => string;
  readonly #element = byId("people", HTMLElement);
  readonly #more = byId("more-people", HTMLElement);
  readonly #list: KeyedList<PresenceEntry>;
  #shown: readonly unknown[] = [];

  constructor(userId: () => string) {
    this.#userId = userId;
    this.#list = new KeyedList<PresenceEntry>(this.#element, ({ id }) => id, (entry) => this.#item(entry));
  }

  update(people: readonly PresenceEntry[], agents: readonly PresenceEntry[]): void {
    if (this.#shown[0] === people && this.#shown[1] === agents) return;
    this.#shown = [people, agents];
    const mine = this.#userId();
    const sorted = [...people].sort((a, b) => Number(b.id === mine) - Number(a.id === mine));
    const all = [...sorted.slice(0, MAX_SHOWN), ...agents.slice(0, 2)];
    this.#list.update(all);
    this.#element.dataset["compact"] = String(all.length > 4);
    const hidden = [...sorted.slice(MAX_SHOWN), ...agents.slice(2)];
    this.#more.hidden = hidden.length === 0;
    setText(this.#more, `+${hidden.length}`);
    this.#more.title = hidden.map(({ name }) => name).join(", ");
  }

  #item(entry: PresenceEntry): View<PresenceEntry> {
    const name = el("span", { class: "name" });
    const testid = entry.isAgent ? "agent" : "person";
    const element = el("li", { "data-testid": testid, "data-id": entry.id }, avatar(entry.id, entry.name, entry.isAgent), name);
    const update = (now: PresenceEntry): void => {
      const you = now.id === this.#userId() ? " (you)" : "";
      const many = now.metas.length > 1 ? ` ×${now.metas.length}` : "";
      setText(name, `${now.name}${you}${many}`);
      element.title = now.isAgent ? `${now.name} is working` : name.textContent;
    };
    return { element, update };
  }
}
