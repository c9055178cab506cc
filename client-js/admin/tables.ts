/** The tables: each shows one part of the overview, row by row, and keeps the rows that stay. */
import { KeyedList, el, setText, type View } from "../demo/dom.js";
import type { Cancelled } from "./connection.js";
import type { NodeEntry, TurnEntry } from "./overview.js";
import { duration, isLate, lease, rate } from "./words.js";

/** Asks for the cancel of a turn. */
export type Cancel = (entry: TurnEntry) => Promise<Cancelled>;
/** Tells those who do not see the page. */
export type Say = (text: string) => void;

/** How long a cancel waits for the second click. */
const SURE_MS = 4_000;

// The roles are said because a narrow page shows rows as cards, which takes them away in some browsers.
function cell(label: string, attributes: Readonly<Record<string, string>> = {}): HTMLTableCellElement {
  return el("td", { role: "cell", "data-label": label, ...attributes });
}

function heading(...children: readonly Node[]): HTMLTableCellElement {
  return el("th", { role: "rowheader", scope: "row" }, ...children);
}

/** The nodes: those that live first, as the server orders them. */
export function nodeTable(parent: HTMLElement): (nodes: readonly NodeEntry[]) => void {
  const make = (): View<NodeEntry> => {
    const name = heading();
    const badge = el("span", { class: "badge" });
    const number = (label: string): HTMLTableCellElement => cell(label, { class: "number" });
    const [seen, connections, channels] = [cell("Lease seen"), number("Connections"), number("Channels")];
    const [running, events] = [number("Running"), number("Events/s")];
    const [deliveries, joins] = [number("Deliveries/s"), number("Joins/s")];
    const state = cell("State");
    state.append(badge);
    const rest = [state, seen, connections, channels, running, events, deliveries, joins];
    const element = el("tr", { role: "row", "data-testid": "node" }, name, ...rest);
    const update = (node: NodeEntry): void => {
      element.dataset["state"] = node.state;
      element.dataset["name"] = node.name;
      element.classList.toggle("late", isLate(node));
      name.title = node.incarnation;
      setText(name, node.name);
      badge.dataset["state"] = node.state;
      setText(badge, node.state);
      setText(seen, lease(node));
      setText(connections, String(node.connections));
      setText(running, String(node.running_turns));
      const rates = node.state === "dead" ? null : node.rates;
      setText(channels, rates ? String(rates.channels) : "–");
      setText(events, rates ? rate(rates.events_per_second) : "–");
      setText(deliveries, rates ? rate(rates.deliveries_per_second) : "–");
      setText(joins, rates ? rate(rates.joins_per_second) : "–");
    };
    return { element, update };
  };
  const list = new KeyedList<NodeEntry>(parent, (node) => node.incarnation, make);
  return (nodes) => list.update(nodes);
}

/** The cells that every table of turns has: since when, of which session, whose. */
function common(entry: TurnEntry, first: string): { age: HTMLTableCellElement; cells: HTMLElement[] } {
  const age = cell(first, { class: "age" });
  const link = el("a", { href: `/?session=${encodeURIComponent(entry.session)}`, target: "_blank", rel: "noopener" });
  link.textContent = entry.session;
  const session = heading(link);
  if (entry.title !== null) session.append(el("span", { class: "soft title" }, entry.title));
  const [agent, by] = [cell("Agent"), cell("Asked by")];
  agent.textContent = entry.turn.agent;
  by.textContent = entry.turn.by.name;
  by.title = entry.turn.by.id;
  return { age, cells: [age, session, agent, by] };
}

/** Turns that run, or wait: with their age, and a way to cancel them. */
export function workTable(
  parent: HTMLElement,
  kind: "running" | "queued",
  cancel: Cancel,
  say: Say,
): (entries: readonly TurnEntry[], now: number) => void {
  let now = 0;
  const make = (first: TurnEntry): View<TurnEntry> => {
    const { age, cells } = common(first, "For");
    const owner = kind === "running" ? cell("Owner") : cell("Place");
    const action = el("td", { role: "cell", class: "action" }, cancelButton(first, cancel, say));
    const attributes = { role: "row", "data-testid": "turn", "data-turn-id": first.turn.id };
    const element = el("tr", attributes, ...cells, owner, action);
    const update = ({ turn }: TurnEntry): void => {
      const since = kind === "running" ? turn.started_at : turn.queued_at;
      setText(age, duration(now - Date.parse(since ?? turn.queued_at)));
      const unknown = turn.owner?.liveness === "unknown";
      element.classList.toggle("late", unknown);
      if (kind === "queued") setText(owner, String(turn.position ?? ""));
      else setText(owner, `${turn.owner?.node ?? "nobody"}${unknown ? " (not seen moving)" : ""}`);
    };
    return { element, update };
  };
  const list = new KeyedList<TurnEntry>(parent, (entry) => entry.turn.id, make);
  return (entries, at) => {
    now = at;
    const stays = keepFocus(parent);
    list.update(entries);
    stays();
  };
}

/** Whoever goes through a table by keyboard stays there when the row under the focus goes. */
function keepFocus(parent: HTMLElement): () => void {
  const focused = document.activeElement;
  const row = parent.contains(focused) ? focused?.closest("tr") : null;
  if (!row) return () => undefined;
  const place = [...parent.children].indexOf(row);
  return () => {
    if (row.isConnected) return;
    const next = parent.children[Math.min(place, parent.children.length - 1)];
    const target = next?.querySelector("button") ?? parent.closest("section")?.querySelector("h2");
    target?.focus();
  };
}

/** The first click asks, the second cancels; what goes wrong is said in the button's place. */
function cancelButton(entry: TurnEntry, cancel: Cancel, say: Say): HTMLElement {
  const whose = `the turn of ${entry.turn.by.name} in ${entry.session}`;
  const button = el("button", { type: "button", "data-testid": "cancel", "aria-label": `Cancel ${whose}` }, "Cancel");
  const problem = el("span", { class: "bad", role: "alert" });
  let sure: ReturnType<typeof setTimeout> | undefined;
  // A button that were disabled would lose the focus.
  let busy = false;
  const rest = (): void => {
    clearTimeout(sure);
    sure = undefined;
    button.classList.remove("sure");
    button.setAttribute("aria-label", `Cancel ${whose}`);
    setText(button, "Cancel");
  };
  const act = async (): Promise<void> => {
    rest();
    busy = true;
    button.setAttribute("aria-disabled", "true");
    setText(button, "Cancelling…");
    const { done, text } = await cancel(entry);
    setText(problem, done ? "" : text);
    if (done) say(`Cancel ${whose}: ${text}.`);
    setText(button, "Cancel");
    // A turn that was cancelled leaves the table by itself.
    busy = done;
    button.setAttribute("aria-disabled", String(done));
  };
  button.addEventListener("click", () => {
    if (busy) return;
    if (sure !== undefined) return void act();
    button.classList.add("sure");
    button.setAttribute("aria-label", `Really cancel ${whose}?`);
    setText(button, "Really?");
    sure = setTimeout(rest, SURE_MS);
  });
  return el("span", {}, problem, button);
}

/** The turns that were cut because their node went away. */
export function lostTable(parent: HTMLElement): (entries: readonly TurnEntry[], now: number) => void {
  let now = 0;
  const make = (first: TurnEntry): View<TurnEntry> => {
    const { age, cells } = common(first, "Ended");
    const ran = cell("Had run for");
    const { started_at: started, ended_at: ended } = first.turn;
    ran.textContent = started && ended ? duration(Date.parse(ended) - Date.parse(started)) : "–";
    const attributes = { role: "row", "data-testid": "lost-turn", "data-turn-id": first.turn.id };
    const element = el("tr", attributes, ...cells, ran);
    const update = ({ turn }: TurnEntry): void => {
      setText(age, turn.ended_at === null ? "" : `${duration(now - Date.parse(turn.ended_at))} ago`);
      age.title = turn.ended_at ?? "";
    };
    return { element, update };
  };
  const list = new KeyedList<TurnEntry>(parent, (entry) => entry.turn.id, make);
  return (entries, at) => {
    now = at;
    list.update(entries);
  };
}
