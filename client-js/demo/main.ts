/** The demo page: one session, shown and steered. Everything that it knows comes from the client's snapshot. */
import { Rejoin } from "../src/index.js";
import { persistIn } from "../src/persist.js";
import { byId, setText } from "./dom.js";
import { identity, sessionId, sessionLink, tokenFromAddress } from "./identity.js";
import { MessageList } from "./messages.js";
import { outboxList } from "./outbox.js";
import { peopleList, queueList, typing } from "./room.js";
import { connectionText } from "./words.js";

const id = sessionId();
const link = sessionLink(id);
const me = identity();
const token = tokenFromAddress();
const scheme = location.protocol === "https:" ? "wss" : "ws";
const who = token === undefined ? { user: me } : { token };
const rejoin = new Rejoin(`${scheme}://${location.host}/socket`, { ...who, persist: persistIn("sessionStorage") });
const session = rejoin.session(id);

const scroll = byId("scroll", HTMLElement);
const title = byId("title", HTMLInputElement);
const banner = byId("banner", HTMLElement);
const composer = byId("composer", HTMLTextAreaElement);
const older = byId("older", HTMLButtonElement);
const jump = byId("jump", HTMLButtonElement);
const connection = byId("connection", HTMLElement);

const messages = new MessageList(byId("messages", HTMLElement), {
  userId: me.id,
  stop: (turnId) => session.cancel(turnId),
  retry: (turnId) => session.retry(turnId),
});
const showOutbox = outboxList(byId("outbox", HTMLElement), session);
const showPeople = peopleList(byId("people", HTMLElement), me.id);
const showQueue = queueList(byId("queue-box", HTMLElement), byId("queue", HTMLElement), session);
const keys = typing(byId("typing", HTMLElement), session);

let scheduled = false;
let joinedBefore = false;
/** Whether the newest is kept in sight: until the reader scrolls away from it. */
let following = true;

function render(): void {
  const snapshot = session.getSnapshot();
  const { status, error } = snapshot;
  joinedBefore ||= status === "joined";
  showConnection();
  setText(banner, error?.message ?? "");
  banner.hidden = error === null;
  showPeople([...snapshot.people, ...snapshot.agents]);
  if (snapshot.isReady) {
    messages.update(snapshot);
    showQueue(snapshot);
    older.hidden = !snapshot.hasMore;
    byId("interrupt", HTMLButtonElement).hidden = snapshot.running.length === 0;
    if (document.activeElement !== title) title.value = snapshot.info?.title ?? "";
    document.title = snapshot.info?.title ? `${snapshot.info.title} · Rejoin` : "Rejoin";
  }
  showOutbox(snapshot);
  byId("welcome", HTMLElement).hidden = !snapshot.isReady || snapshot.messages.length + snapshot.outbox.length > 0;
  follow();
}

function showConnection(): void {
  const joined = session.snapshot.status === "joined";
  connection.dataset["state"] = rejoin.connection.status;
  connection.dataset["session"] = session.snapshot.status;
  document.body.dataset["connection"] = joined ? "live" : "away";
  setText(connection, connectionText(rejoin.connection.status, joined, joinedBefore));
}

function follow(): void {
  if (following) scroll.scrollTop = scroll.scrollHeight;
  jump.hidden = following;
}

/** Draws once for all changes of a moment. A hidden page draws no frames, so it does not wait for one. */
function schedule(): void {
  if (scheduled) return;
  scheduled = true;
  const draw = (): void => {
    scheduled = false;
    render();
  };
  if (document.visibilityState === "visible") requestAnimationFrame(draw);
  else setTimeout(draw, 0);
}

function say(whenBusy: "queue" | "interrupt"): void {
  const text = composer.value.trim();
  if (text === "") return;
  composer.value = "";
  fit();
  following = true;
  // What becomes of it is shown where it stands.
  void session.send(text, { whenBusy });
  keys.typed();
}

/** The composer grows with what is written, up to the limit in the style sheet. */
function fit(): void {
  composer.style.height = "auto";
  composer.style.height = `${composer.scrollHeight}px`;
}

async function showOlder(): Promise<void> {
  older.disabled = true;
  const fromEnd = scroll.scrollHeight - scroll.scrollTop;
  following = false;
  try {
    await session.history();
    render();
    scroll.scrollTop = scroll.scrollHeight - fromEnd;
  } catch {
    // The button stays; the connection element says what is wrong.
  } finally {
    older.disabled = false;
  }
}

async function copyLink(button: HTMLButtonElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(link);
    setText(button, "Copied");
    setTimeout(() => setText(button, "Copy link"), 1_500);
  } catch {
    window.prompt("Copy this link", link);
  }
}

session.subscribe(schedule);
rejoin.subscribe(schedule);
scroll.addEventListener("scroll", () => {
  following = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 48;
  jump.hidden = following;
});
jump.addEventListener("click", () => {
  following = true;
  follow();
});
byId("form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  say("queue");
});
byId("interrupt", HTMLButtonElement).addEventListener("click", () => say("interrupt"));
composer.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say("queue");
});
composer.addEventListener("input", () => {
  fit();
  if (composer.value !== "") keys.told();
});
title.addEventListener("change", () => {
  session.update({ title: title.value.trim() === "" ? null : title.value.trim() }).catch(schedule);
});
title.addEventListener("keydown", (event) => {
  if (event.key === "Enter") composer.focus();
});
older.addEventListener("click", () => void showOlder());
const copy = byId("copy", HTMLButtonElement);
copy.addEventListener("click", () => void copyLink(copy));
byId("second", HTMLAnchorElement).href = link;

// A refusal is in the snapshot, where `render` finds it.
session.join().catch(() => undefined);
render();
composer.focus();
