/**
 * Sessions in React: `useSession(id)`, `usePresence(id)`, `useTurn(id)` and their kin, on `useSyncExternalStore`.
 *
 * A session is joined while a component uses it, and left a moment after the last one is gone. A component is drawn
 * anew only when what it asked for has changed. On a server nothing connects: what is rendered there, and at first in
 * the page, is that nothing is known yet.
 */
import { createContext, createElement, useContext, useEffect, useMemo, useRef, useSyncExternalStore } from "react";
import type { FunctionComponent, ReactNode } from "react";
import type { ListOptions, ListSnapshot } from "./list.js";
import type { Readable } from "./listeners.js";
import { live as liveOf, type LiveEntry, type LiveOptions, type LiveState } from "./live.js";
import type { Rejoin } from "./rejoin.js";
import type { Session } from "./session.js";
import type { ConnectionSnapshot, SessionOptions, SessionSnapshot } from "./shapes.js";
import type { Json, Message, PresenceEntry, Turn } from "./types.js";

const RejoinContext = createContext<Rejoin | null>(null);
const SessionContext = createContext<Session | null>(null);

/** Gives the components below their client: one `Rejoin` for the whole page, made outside of any component. */
export const RejoinProvider: FunctionComponent<{ readonly client: Rejoin; readonly children?: ReactNode }> = ({ client, children }) =>
  createElement(RejoinContext.Provider, { value: client }, children);

/** What to show, and of which session: the components below need not name it. Joins it. */
export interface SessionProviderProps {
  readonly id: string;
  /** How to join; counts the first time that the session is used. */
  readonly options?: SessionOptions;
  readonly children?: ReactNode;
}

/** Joins a session, and lets the components below leave its id out. */
export const SessionProvider: FunctionComponent<SessionProviderProps> = ({ id, options, children }) => {
  const session = useRejoin().session(id, options);
  useHold(session);
  return createElement(SessionContext.Provider, { value: session }, children);
};

/** The client. */
export function useRejoin(): Rejoin {
  const client = useContext(RejoinContext);
  if (!client) throw new Error('There is no client here: put <RejoinProvider client={new Rejoin("/socket")}> around it.');
  return client;
}

/** Whether there is a connection, and what keeps it from being there. */
export function useConnection(): ConnectionSnapshot {
  return useReadable(useRejoin());
}

/** Everything that is known of a session, and the session itself to act on. */
export interface SessionView extends SessionSnapshot {
  readonly session: Session;
}

/**
 * A session, joined while somebody uses it. With `select` only that part of its snapshot counts: the component is drawn
 * anew when what it gives has changed (for a new object or array: when one of its fields has).
 */
export function useSession(id?: string): SessionView;
export function useSession<Selected>(id: string | undefined, select: (snapshot: SessionSnapshot) => Selected): Selected;
export function useSession<Selected>(
  id?: string,
  select?: (snapshot: SessionSnapshot) => Selected,
): SessionView | Selected {
  const session = useHeldSession(id);
  const selected = useSelected<SessionSnapshot, SessionSnapshot | Selected>(session, select ?? everything);
  return useMemo(
    () => (select ? (selected as Selected) : { ...(selected as SessionSnapshot), session }),
    // Whether there is a `select` stays as it is for a component; another one shows in what it selects.
    [selected, session, select !== undefined],
  );
}

/** Who is in a session. */
export interface PresenceView {
  readonly people: readonly PresenceEntry[];
  readonly agents: readonly PresenceEntry[];
}

/** Who is in a session, and which agents are at work in it. */
export function usePresence(id?: string): PresenceView {
  return useSelected(useHeldSession(id), presenceOf);
}

/** One turn as it stands. */
export interface TurnView {
  /** Null while it is not known, or not any more. */
  readonly turn: Turn | null;
  /** Its answer, also while it is being written. */
  readonly message: Message | null;
  /** The text of the answer. */
  readonly text: string;
}

/** One turn of a session; nothing else of it makes the component draw anew. */
export function useTurn(turnId: string, sessionId?: string): TurnView {
  const session = useHeldSession(sessionId);
  const reader = useMemo(() => session.turn(turnId), [session, turnId]);
  // Of a page that is rendered on a server nothing is known, whatever the session holds.
  const select = useMemo(() => {
    return (snapshot: SessionSnapshot) => {
      if (!snapshot.isReady) return { turn: null, message: null };
      return { turn: reader.turn, message: reader.message };
    };
  }, [reader]);
  const { turn, message } = useSelected(session, select);
  return useMemo(() => ({ turn, message, text: textOf(message) }), [turn, message]);
}

/** What the others do at this moment, and where to show what one does oneself. */
export interface LiveView<Value extends Json> {
  readonly others: readonly LiveEntry<Value>[];
  readonly live: LiveState<Value>;
}

/** What people do at this moment, under one name: `useLive("typing")`. The options count the first time. */
export function useLive<Value extends Json = Json>(name: string, options?: LiveOptions, id?: string): LiveView<Value> {
  const live = liveOf<Value>(useHeldSession(id), name, options);
  const others = useReadable(live);
  return useMemo(() => ({ others, live }), [others, live]);
}

/** The live list of sessions, joined while somebody uses it. */
export function useSessionList(options?: ListOptions): ListSnapshot {
  const list = useRejoin().list(options);
  useHold(list);
  return useReadable(list);
}

function useHeldSession(id: string | undefined): Session {
  const client = useContext(RejoinContext);
  const around = useContext(SessionContext);
  const session = id === undefined ? around : client?.session(id);
  if (!session) {
    const missing = id === undefined ? '<SessionProvider id="…">' : "<RejoinProvider client={…}>";
    throw new Error(`There is no session here: put ${missing} around it${id === undefined ? ", or name the session" : ""}.`);
  }
  useHold(session);
  return session;
}

function useHold(held: { hold(): () => void }): void {
  useEffect(() => held.hold(), [held]);
}

function useReadable<Snapshot>(source: Readable<Snapshot>): Snapshot {
  return useSyncExternalStore(source.subscribe, source.getSnapshot, source.getServerSnapshot);
}

/** A part of a snapshot: the same value as before where it is not different. */
function useSelected<Snapshot, Selected>(source: Readable<Snapshot>, select: (snapshot: Snapshot) => Selected): Selected {
  const shown = useRef<{ readonly value: Selected } | null>(null);
  const [get, getServer] = useMemo(() => {
    const memo = (read: () => Snapshot): (() => Selected) => {
      let held: { readonly of: Snapshot; readonly value: Selected } | null = null;
      return () => {
        const now = read();
        if (held?.of === now) return held.value;
        const before = held ?? shown.current;
        const value = select(now);
        held = { of: now, value: before && isSame(before.value, value) ? before.value : value };
        return held.value;
      };
    };
    return [memo(source.getSnapshot), memo(source.getServerSnapshot)];
  }, [source, select]);
  const value = useSyncExternalStore(source.subscribe, get, getServer);
  useEffect(() => {
    shown.current = { value };
  }, [value]);
  return value;
}

function everything(snapshot: SessionSnapshot): SessionSnapshot {
  return snapshot;
}

function presenceOf({ people, agents }: SessionSnapshot): PresenceView {
  return { people, agents };
}

function textOf(message: Message | null): string {
  return message?.parts.map(({ kind, text = "" }) => (kind === "text" ? text : "")).join("") ?? "";
}

/** The same, or two plain objects or arrays of which each field is the same. */
function isSame(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (!isPlain(a) || !isPlain(b) || Array.isArray(a) !== Array.isArray(b)) return false;
  const [one, other] = [a as Record<string, unknown>, b as Record<string, unknown>];
  const keys = Object.keys(one);
  return keys.length === Object.keys(other).length && keys.every((key) => key in other && Object.is(one[key], other[key]));
}

function isPlain(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === Array.prototype;
}
