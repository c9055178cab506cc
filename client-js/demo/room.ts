/** What stands around the messages: who is here, what waits, who is typing. Each shows one piece of the snapshot. */
import type { PresenceEntry, Session, SessionSnapshot, Turn } from "../src/index.js";
import { KeyedList, el, setText, type View } from "./dom.js";
import { avatar } from "./messages.js";
import { plainText, queuedText, typingText } from "./words.js";

/** The people, then the agents at work. */
export function peopleList(parent: HTMLElement, userId: string): (entries: readonly PresenceEntry[]) => void {
  const make = (entry: PresenceEntry): View<PresenceEntry> => {
    const name = el("span", { class: "name" });
    const testid = entry.isAgent ? "agent" : "person";
    const round = avatar(entry.id, entry.name, entry.isAgent);
    const element = el("li", { "data-testid": testid, "data-id": entry.id }, round, name);
    const update = (now: PresenceEntry): void => {
      const you = now.id === userId ? " (you)" : "";
      const many = now.metas.length > 1 ? ` ×${now.metas.length}` : "";
      setText(name, `${now.name}${you}${many}`);
      element.title = now.isAgent ? `${now.name} is working` : `${now.name}${you}`;
    };
    return { element, update };
  };
  const list = new KeyedList<PresenceEntry>(parent, (entry) => entry.id, make);
  const rank = (entry: PresenceEntry): number => (entry.isAgent ? 2 : entry.id === userId ? 0 : 1);
  return (entries) => list.update([...entries].sort((a, b) => rank(a) - rank(b)));
}

interface Waiting {
  readonly turn: Turn;
  readonly text: string;
}

/** The queued turns with their places, each with a way out. */
export function queueList(box: HTMLElement, parent: HTMLElement, session: Session): (state: SessionSnapshot) => void {
  const make = ({ turn }: Waiting): View<Waiting> => {
    const text = el("span", { class: "what" });
    const place = el("span", { class: "place" });
    const cancel = el("button", { type: "button", class: "small", "data-testid": "unqueue" }, "Remove");
    cancel.addEventListener("click", () => {
      cancel.disabled = true;
      session.cancel(turn.id).catch(() => {
        cancel.disabled = false;
      });
    });
    const who = el("span", { class: "who" }, turn.by.name);
    const element = el("li", { "data-testid": "queue-item", "data-turn-id": turn.id }, place, who, text, cancel);
    const update = (now: Waiting): void => {
      setText(place, String(now.turn.position ?? ""));
      element.title = queuedText(now.turn);
      setText(text, now.text);
    };
    return { element, update };
  };
  const list = new KeyedList<Waiting>(parent, ({ turn }) => turn.id, make);
  let shown: SessionSnapshot["turns"] | null = null;
  return (state) => {
    if (state.turns === shown) return;
    shown = state.turns;
    box.hidden = state.queue.length === 0;
    list.update(state.queue.map((turn) => ({ turn, text: promptText(state, turn) })));
  };
}

function promptText(state: SessionSnapshot, turn: Turn): string {
  const prompt = state.messages.findLast((message) => message.id === turn.prompt_id);
  return prompt ? plainText(prompt) : "an earlier message";
}

const TYPING_EVERY_MS = 2_000;
const TYPING_SHOWN_MS = 4_000;

/** Tells the others when this person types, and shows when they do. */
export function typing(element: HTMLElement, session: Session): { told: () => void; typed: () => void } {
  const timers = new Map<string, ReturnType<typeof setTimeout>>();
  let lastTold = -Infinity;
  const show = (): void => setText(element, typingText([...timers.keys()]));
  const stop = (name: string): void => {
    clearTimeout(timers.get(name));
    timers.delete(name);
    show();
  };
  session.on("broadcast", ({ event, by }) => {
    if (!by) return;
    clearTimeout(timers.get(by.name));
    if (event === "typing") timers.set(by.name, setTimeout(() => stop(by.name), TYPING_SHOWN_MS));
    else if (event === "typed") stop(by.name);
    show();
  });
  const tell = (event: string): void => {
    // Not worth a word if it does not get through.
    session.broadcast(event, {}).catch(() => undefined);
  };
  return {
    told: () => {
      if (performance.now() - lastTold < TYPING_EVERY_MS) return;
      lastTold = performance.now();
      tell("typing");
    },
    typed: () => {
      lastTold = -Infinity;
      tell("typed");
    },
  };
}
