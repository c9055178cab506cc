/** The demo page: a list of sessions, and one of them, shown and steered. */
import { Rejoin, randomId } from "../src/index.js";
import { persistIn } from "../src/persist.js";
import { addressFor, addressOf, sessionInAddress } from "./address.js";
import { announce } from "./announcer.js";
import { Banner } from "./banner.js";
import { Composer } from "./composer.js";
import { Deletion } from "./deletion.js";
import { byId, copyText, scheduler, setText } from "./dom.js";
import { Drawer } from "./drawer.js";
import { anyName, keepToken, knownIdentity } from "./identity.js";
import { copyCode } from "./markdown/view.js";
import { People } from "./people.js";
import { Scroller } from "./scroller.js";
import { SessionView, type Stage } from "./session-view.js";
import { listenForShortcuts } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import { askName, askToken } from "./sign-in.js";
import { Title } from "./title.js";
import { connectionText, noticeOf, titleOf } from "./words.js";

const known = knownIdentity();
if (!known) await askName(null);
const identity = known ?? knownIdentity() ?? { id: randomId(), name: anyName(), token: null };

const scheme = location.protocol === "https:" ? "wss" : "ws";
const who = identity.token === null ? { user: identity } : { token: identity.token };
const rejoin = new Rejoin(`${scheme}://${location.host}/socket`, { ...who, persist: persistIn("sessionStorage") });
const list = rejoin.list();
const me = rejoin.me ?? identity;

const draw = scheduler(render);
const sidebar = new Sidebar((id) => show(id));
const drawer = new Drawer();
const banner = new Banner(onNotice);
const scroller = new Scroller(() => view.older());
const composer = new Composer({
  send: (text, whenBusy) => say(text, whenBusy),
  typing: (isTyping) => view.typing(isTyping),
  stop: () => tell(view.stop()),
});
const title = new Title(() => view.session, () => composer.focus());
const deletion = new Deletion(identity, () => ({ id: view.session.id, title: titleOf(view.session.snapshot.info) }), onDeleted);
const stage: Stage = { rejoin, userId: me.id, people: new People(() => me.id), scroller, changed: draw };
const connection = byId("connection", HTMLElement);
const share = byId("share", HTMLButtonElement);
const begin = byId("new-session", HTMLAnchorElement);

let wasOpen = false;
let view = open(sessionInAddress());

/** Shows the session of that id, or a new one, which is made by the first thing that is said in it. */
function open(id: string | null): SessionView {
  scroller.reset();
  title.reset();
  composer.open(id);
  return new SessionView(stage, id ?? randomId().slice(0, 10), id === null);
}

function show(id: string | null, isBack = false): void {
  if (!isBack) history.pushState(null, "", addressOf(id));
  view.close();
  view = open(id);
  drawer.close();
  render();
  announce(`${id === null ? "New session" : titleOf(view.session.snapshot.info)}.`);
  // Where a keyboard would come up over half of the page, it waits until it is asked for.
  if (matchMedia("(hover: hover)").matches) composer.focus();
  else scroller.element.focus();
}

/** The way back must not lead to it: whoever opens a session that is not there makes it. */
function onDeleted(id: string): void {
  if (view.session.id !== id) return;
  history.replaceState(null, "", addressOf(null));
  show(null, true);
  drawer.open();
  announce("The session was deleted.");
}

function say(text: string, whenBusy: "queue" | "interrupt"): void {
  if (view.isNew) {
    history.replaceState(null, "", addressOf(view.session.id));
    composer.open(view.session.id);
  }
  view.say(text, whenBusy);
  render();
}

function render(): void {
  const snapshot = view.session.getSnapshot();
  const { isNew } = view;
  const { status } = rejoin.connection;
  wasOpen ||= status === "open";
  const isJoined = isNew ? status === "open" : snapshot.status === "joined";
  const isJoining = isNew ? !isJoined : snapshot.status === "joining";
  document.body.dataset["connection"] = isJoined ? "live" : "away";
  connection.dataset["state"] = isJoined ? "live" : status;
  setText(connection, connectionText(status, isJoining, wasOpen));
  banner.update(noticeOf(rejoin.connection, snapshot, wasOpen));
  sidebar.update(list.getSnapshot(), isNew ? null : view.session.id);
  begin.setAttribute("aria-current", isNew ? "page" : "false");
  title.update(snapshot.info, isNew, snapshot.running.length > 0);
  share.hidden = isNew;
  deletion.update(!isNew && snapshot.info !== null && snapshot.status !== "deleted" && snapshot.status !== "refused");
  composer.update(snapshot.running.length > 0);
  byId("welcome", HTMLElement).hidden = !(isNew || snapshot.isReady) || snapshot.messages.length + snapshot.outbox.length > 0;
  view.draw();
}

function onNotice(action: "retry" | "token" | "rejoin"): void {
  if (action === "retry") rejoin.retryNow();
  else if (action === "rejoin") void view.session.join().catch(() => undefined);
  else void askToken(rejoin.connection.error?.message ?? view.session.snapshot.error?.message ?? "").then(() => location.reload());
}

/** Says what went wrong with something that has no place of its own to say it. */
function tell(done: Promise<unknown>): void {
  done.catch((error: unknown) => announce(error instanceof Error ? error.message : String(error)));
}

async function rename(): Promise<void> {
  await askName(identity.name);
  location.reload();
}

async function signOut(): Promise<void> {
  await rejoin.forget();
  keepToken(null);
  location.assign(addressOf(null));
}

rejoin.subscribe(draw);
list.subscribe(draw);
copyCode(byId("messages", HTMLElement), (text, from) => void copyText(text, from));
share.addEventListener("click", () => void copyText(addressOf(view.session.id), share));
begin.addEventListener("click", (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  show(null);
});
window.addEventListener("popstate", () => show(sessionInAddress(), true));
const second = byId("second", HTMLAnchorElement);
// Also of a session that is not there yet: whoever comes first makes it.
const aimSecond = (): void => void (second.href = addressFor(anyName(), view.session.id));
second.addEventListener("pointerenter", aimSecond);
second.addEventListener("focus", aimSecond);
aimSecond();
setText(byId("me-name", HTMLElement), me.name);
const change = byId("me-change", HTMLButtonElement);
setText(change, identity.token === null ? "Edit name" : "Sign out");
change.addEventListener("click", () => void (identity.token === null ? rename() : signOut()));
listenForShortcuts({
  begin: () => show(null),
  neighbour: (places) => {
    const id = sidebar.neighbour(places);
    if (id !== null) show(id);
  },
  write: () => composer.focus(),
  stop: () => tell(view.stop()),
  retry: () => tell(view.retry()),
});

// A refusal is in the snapshots, where `render` finds it.
list.join().catch(() => undefined);
render();
composer.focus();
