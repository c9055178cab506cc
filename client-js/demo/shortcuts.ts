/** Keys for those who do not like to leave the keyboard. All of them with Alt, so that none is in the way of writing. */
import { byId } from "./dom.js";

export interface ShortcutActions {
  begin(): void;
  neighbour(places: number): void;
  write(): void;
  stop(): void;
  retry(): void;
}

const dialog = byId("shortcuts", HTMLDialogElement);

export function listenForShortcuts(actions: ShortcutActions): void {
  const keys: Readonly<Record<string, () => void>> = {
    KeyN: () => actions.begin(),
    ArrowUp: () => actions.neighbour(-1),
    ArrowDown: () => actions.neighbour(1),
    KeyM: () => actions.write(),
    KeyS: () => actions.stop(),
    KeyR: () => actions.retry(),
    Slash: () => dialog.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const act = event.altKey && !event.ctrlKey && !event.metaKey ? keys[event.code] : undefined;
    if (!act || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    act();
  });
  byId("show-shortcuts", HTMLButtonElement).addEventListener("click", () => dialog.showModal());
  byId("close-shortcuts", HTMLButtonElement).addEventListener("click", () => dialog.close());
}
