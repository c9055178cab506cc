/** The operators' page: the nodes, their work and what was lost, live, and a way to cancel turns. */
import { byId, setText } from "../demo/dom.js";
import { Connection, type Status } from "./connection.js";
import { merge, totals, type Overview } from "./overview.js";
import { lostTable, nodeTable, workTable } from "./tables.js";
import { expiryOf, keptToken } from "./token.js";
import { busInWords, duration, line, rate } from "./words.js";

/** Looks that the rates' lines go back. */
const HISTORY = 120;
/** Silence of the server that is worth a word: it tells something every second. */
const SILENCE_MS = 5_000;
/** How long before a token runs out that is said. */
const SOON_MS = 300_000;
const STATUS: Readonly<Record<Status, string>> = {
  connecting: "Connecting…",
  live: "Live",
  away: "Reconnecting…",
  barred: "Not connected",
};

const ask = byId("ask", HTMLFormElement);
const field = byId("token", HTMLInputElement);
const refused = byId("refused", HTMLElement);
const look = byId("look", HTMLButtonElement);
const page = byId("overview", HTMLElement);
const status = byId("status", HTMLElement);
const note = byId("note", HTMLElement);
const expiry = byId("expiry", HTMLElement);
const renew = byId("renew", HTMLButtonElement);
const leave = byId("leave", HTMLButtonElement);

let overview: Overview | null = null;
let connected: Status = "connecting";
/** When the server has last told something, by a clock that only counts. */
let heard = performance.now();
const [events, deliveries]: [number[], number[]] = [[], []];

const connection = new Connection({
  status(now) {
    connected = now;
    render();
  },
  ask(why) {
    overview = null;
    setText(refused, why ?? "");
    showForm();
  },
  everything: take,
  change(change) {
    if (overview) take(merge(overview, change));
  },
});

const say = (text: string): void => setText(byId("said", HTMLElement), text);
const showNodes = nodeTable(byId("nodes", HTMLElement));
const showRunning = workTable(byId("running", HTMLElement), "running", (entry) => connection.cancel(entry), say);
const showQueued = workTable(byId("queued", HTMLElement), "queued", (entry) => connection.cancel(entry), say);
const showLost = lostTable(byId("lost", HTMLElement));

function take(now: Overview): void {
  overview = now;
  heard = performance.now();
  const { events: written, deliveries: delivered } = totals(now);
  for (const [values, value] of [[events, written], [deliveries, delivered]] as const) {
    values.push(value);
    if (values.length > HISTORY) values.shift();
  }
  render();
}

/** The server's clock: what it said last, and what has passed since. The browser's own clock is never asked. */
function serverTime(now: Overview): number {
  return Date.parse(now.at) + performance.now() - heard;
}

function render(): void {
  const hasToken = keptToken() !== null;
  page.hidden = overview === null;
  if (overview === null) expiry.hidden = true;
  leave.hidden = !hasToken;
  renew.hidden = !hasToken || !ask.hidden;
  status.hidden = overview === null && !ask.hidden;
  status.dataset["state"] = connected;
  setText(status, STATUS[connected]);
  warn();
  if (!overview) return;
  const { server, nodes, turns, queued, lost } = overview;
  setText(byId("server", HTMLElement), `seen from ${server.node.name}, version ${server.version}, ${busInWords(server.bus)}`);
  const now = serverTime(overview);
  const running = turns.filter(({ turn }) => turn.status === "running");
  const waiting = turns.filter(({ turn }) => turn.status === "queued");
  showTotals(overview);
  showNodes(nodes);
  showRunning(running, now);
  showQueued(waiting, now);
  showLost(lost, now);
  none("running", running.length, totals(overview).running);
  none("queued", waiting.length, queued.count);
  byId("lost-none", HTMLElement).hidden = lost.length > 0;
  remind(now);
}

/** Says that there is nothing, or that not everything is shown. */
function none(kind: "running" | "queued", shown: number, all: number): void {
  byId(`${kind}-none`, HTMLElement).hidden = shown > 0 || all > 0;
  setText(byId(`${kind}-more`, HTMLElement), all > shown ? `the oldest ${shown} of ${all}` : "");
}

function showTotals(now: Overview): void {
  const sums = totals(now);
  setText(byId("total-nodes", HTMLElement), String(sums.nodes));
  setText(byId("total-nodes-word", HTMLElement), sums.nodes === 1 ? "node" : "nodes");
  setText(byId("total-connections", HTMLElement), String(sums.connections));
  setText(byId("total-running", HTMLElement), String(sums.running));
  setText(byId("total-queued", HTMLElement), String(now.queued.count));
  setText(byId("total-events", HTMLElement), rate(sums.events));
  setText(byId("total-deliveries", HTMLElement), rate(sums.deliveries));
  draw("line-events", events);
  draw("line-deliveries", deliveries);
}

function draw(id: string, values: readonly number[]): void {
  document.querySelector(`#${id} polyline`)?.setAttribute("points", line(values, 120, 24));
}

/** A page that looks alive and is not would be worse than none. What is said does not change while it stays true. */
function warn(): void {
  const text = warning();
  note.hidden = text === null || !ask.hidden;
  if (text !== null) setText(note, text);
}

function warning(): string | null {
  if (connected === "barred") {
    return `The server answers, but lets this page not connect. Where allowed-origins is set, it must name ${location.origin}.`;
  }
  if (overview === null) return connected === "away" ? "The server does not answer. This page goes on trying." : null;
  if (performance.now() - heard < SILENCE_MS) return null;
  const why = connected === "live" ? "the store may be slow or away" : "this page is not connected";
  return `No news for a while: ${why}. What you see is what was then.`;
}

/** Says in time that another token will be needed. */
function remind(now: number): void {
  const token = keptToken();
  const left = ((token === null ? null : expiryOf(token)) ?? Infinity) - now;
  expiry.hidden = left > SOON_MS;
  if (!expiry.hidden) setText(expiry, `Your token runs out in ${duration(left)}: paste a newer one to stay connected.`);
}

function showForm(): void {
  ask.hidden = false;
  render();
  field.focus();
}

function hideForm(): void {
  ask.hidden = true;
  setText(refused, "");
  render();
}

async function submit(): Promise<void> {
  const given = field.value.trim();
  if (given === "" || look.disabled) return;
  look.disabled = true;
  const why = await connection.use(given);
  look.disabled = false;
  field.value = "";
  if (why === null) {
    hideForm();
  } else {
    setText(refused, why);
    field.focus();
  }
}

ask.addEventListener("submit", (event) => {
  event.preventDefault();
  void submit();
});
ask.addEventListener("keydown", (event) => {
  // What is shown needs no other token.
  if (event.key === "Escape" && overview !== null) hideForm();
});
renew.addEventListener("click", showForm);
leave.addEventListener("click", () => connection.forget());
// Ages grow also where nothing is pushed.
setInterval(render, 1_000);
render();
void connection.open();
