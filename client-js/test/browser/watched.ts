/** Runs in a page of its own: a session that is shown nowhere, and watched for whatever a reader would see go wrong. */
import { Rejoin, type RejoinOptions, type Session, type SessionSnapshot } from "../../src/index.js";
import { persistIn } from "../../src/persist.js";

/** What a test asks of the page. */
export interface Watched {
  readonly rejoin: Rejoin;
  readonly session: Session;
  /** What was shown before anything had come from the server. */
  readonly first: { readonly text: string; readonly lastSeq: number };
  /** Why everything was replaced, each time. */
  readonly resets: readonly string[];
  /** How many different texts of the answer there were. */
  readonly steps: number;
  /** Texts that did not continue what was shown before. */
  readonly jumps: readonly string[];
  readonly statuses: readonly string[];
  /** When it was tried to connect by a WebSocket, in the machine's time. */
  readonly tries: readonly number[];
  text(): string;
}

declare global {
  interface Window {
    watched: Watched;
    mint?: () => Promise<string>;
  }
}

const query = new URLSearchParams(location.search);
const name = query.get("name") ?? window.name;
const who: RejoinOptions = window.mint ? { token: window.mint } : { user: { id: name.toLowerCase(), name } };
const tries: number[] = [];
window.WebSocket = class extends WebSocket {
  constructor(url: string | URL, protocols?: string | string[]) {
    super(url, protocols);
    tries.push(performance.timeOrigin + performance.now());
  }
};
// A frame without an address of its own is one of many, and a browser lets only a few of them poll at a time.
const many = { transport: "websocket" } as const;
const one = { maxReconnectMs: 1_000 };
const url = new URL("/socket", document.baseURI).href.replace(/^http/u, "ws");
const rejoin = new Rejoin(url, { ...who, persist: persistIn("sessionStorage"), ...(location.host === "" ? many : one) });
const session = rejoin.session("watched");

const textOf = ({ messages }: SessionSnapshot): string => messages.findLast(({ role }) => role === "assistant")?.parts[0]?.text ?? "";
const answers = ({ messages }: SessionSnapshot): string[] => messages.filter(({ role }) => role === "assistant").map(({ id }) => id);

const resets: string[] = [];
const jumps: string[] = [];
const statuses: string[] = [];
const first = { text: textOf(session.snapshot), lastSeq: session.snapshot.lastSeq };
let shown = first.text;
let count = answers(session.snapshot).length;
let steps = 0;

session.on("reset", (reason) => resets.push(reason));
rejoin.subscribe(() => {
  const { status } = rejoin.connection;
  if (statuses.at(-1) !== status) statuses.push(status);
});
session.subscribe(() => {
  const text = textOf(session.snapshot);
  const isSame = answers(session.snapshot).length === count;
  count = answers(session.snapshot).length;
  if (text === shown) return;
  steps += 1;
  if (isSame && !text.startsWith(shown)) jumps.push(`${shown} → ${text}`);
  shown = text;
});
window.watched = {
  rejoin,
  session,
  first,
  resets,
  jumps,
  statuses,
  tries,
  get steps(): number {
    return steps;
  },
  text: () => textOf(session.snapshot),
};
session.join().catch(() => undefined);
