// @vitest-environment happy-dom
/** The hooks in React itself: what is drawn, how often, and what is joined meanwhile. */
import { StrictMode, memo, type ReactElement, type ReactNode } from "react";
import { act } from "react";
import { createRoot, hydrateRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Rejoin, type Message } from "../src/index.js";
import { persistIn } from "../src/persist.js";
import {
  RejoinProvider,
  SessionProvider,
  useConnection,
  useLive,
  usePresence,
  useSession,
  useSessionList,
  useTurn,
} from "../src/react.js";
import { MemoryArea } from "./support/area.js";
import { added, answer, completed, delta, prompt, snapshot, started, turn } from "./support/make.js";
import { FakeServer } from "./support/server.js";

const begun = [added(1, prompt("m1", 1)), started(2, turn("t1", "m1"))];

let server: FakeServer;
let rejoin: Rejoin;
let root: Root | null = null;
let element: HTMLElement;
/** How often each component was drawn. */
let drawn: Record<string, number>;

beforeEach(() => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  vi.useFakeTimers();
  server = new FakeServer();
  rejoin = new Rejoin("ws://server/socket", { transport: server.transport, user: { id: "u1", name: "Ada" } });
  element = document.body.appendChild(document.createElement("div"));
  drawn = {};
});

afterEach(async () => {
  await settled(() => root?.unmount());
  root = null;
  rejoin.disconnect();
  vi.useRealTimers();
  vi.unstubAllGlobals();
  element.remove();
});

function count(name: string): void {
  drawn[name] = (drawn[name] ?? 0) + 1;
}

const within = (children: ReactNode): ReactElement => <RejoinProvider client={rejoin}>{children}</RejoinProvider>;

async function draw(children: ReactNode): Promise<void> {
  await settled(() => {
    root ??= createRoot(element);
    root.render(within(children));
  });
}

async function join(reply: object = snapshot(0)): Promise<void> {
  await settled(() => {
    server.connection.open();
    server.joined(reply);
  });
}

/** What React does for all of this is done when it resolves. */
async function settled(what: () => unknown): Promise<void> {
  await act(async () => {
    what();
    await Promise.resolve();
  });
}

const push = (event: string, payload: object): Promise<void> => settled(() => server.push(event, payload));

const Row = memo(function Row({ message }: { readonly message: Message }): ReactNode {
  count(`row ${message.id}`);
  return <li>{message.parts.map(({ text }) => text).join("")}</li>;
});

function Messages(): ReactNode {
  const { messages } = useSession("s1");
  count("messages");
  return messages.map((message) => <Row key={message.id} message={message} />);
}

function People(): ReactNode {
  const { people } = usePresence("s1");
  count("people");
  return people.map(({ name }) => name).join();
}

function Answer({ id }: { readonly id: string }): ReactNode {
  const { text, turn: now } = useTurn(id, "s1");
  count(`answer ${id}`);
  return `${text} (${now?.status ?? "unknown"})`;
}

describe("useSession", () => {
  it("joins, shows, and draws only the messages that changed", async () => {
    await draw(<Messages />);
    await join(snapshot(2, { messages: [prompt("m1", 1), answer("t1", 2)], turns: [turn("t1", "m1")] }));
    await push("events", { prev: 2, events: [delta(3, "t1", "Hel")] });
    await push("events", { prev: 3, events: [delta(4, "t1", "lo")] });
    expect(element.textContent).toBe("HiHello");
    expect(drawn).toMatchObject({ "row m1": 1, "row r-t1": 3 });
  });

  it("draws once for a push of many events, and not at all for what changes nothing", async () => {
    await draw(<Messages />);
    await join();
    const before = drawn["messages"] ?? 0;
    await push("events", { prev: 0, events: [...begun, delta(3, "t1", "Hel"), delta(4, "t1", "lo")] });
    expect(drawn["messages"]).toBe(before + 1);
  });

  it("with a selector draws only when what it gives has changed", async () => {
    function Busy(): ReactNode {
      const { running, waiting } = useSession("s1", (s) => ({ running: s.running.length, waiting: s.queue.length }));
      count("busy");
      return `${running}/${waiting}`;
    }
    await draw(<Busy />);
    await join();
    const before = drawn["busy"] ?? 0;
    await push("events", { prev: 0, events: begun });
    for (let seq = 3; seq < 20; seq += 1) await push("events", { prev: seq - 1, events: [delta(seq, "t1", "x")] });
    expect(element.textContent).toBe("1/0");
    expect(drawn["busy"]).toBe(before + 1);
  });

  it("gives the session to act on", async () => {
    function Composer(): ReactNode {
      const { session, outbox } = useSession("s1");
      const say = (): void => void session.send("Hi", { id: "m1" });
      return <button onClick={say}>{outbox.map(({ status }) => status).join()}</button>;
    }
    await draw(<Composer />);
    await join();
    await settled(() => element.querySelector("button")?.click());
    expect(element.textContent).toBe("sending");
    expect(server.last("send").payload).toEqual({ id: "m1", text: "Hi" });
  });

  it("leaves when nobody uses the session any more, and not when it is only drawn anew", async () => {
    await draw(<Messages />);
    await join();
    await draw(<Messages key="other" />);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(server.connection.of("phx_leave")).toEqual([]);
    await draw(null);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(server.connection.of("phx_leave")).toHaveLength(1);
  });

  it("of another id shows the other session", async () => {
    function Title({ id }: { readonly id: string }): ReactNode {
      return useSession(id, ({ info }) => info?.title ?? "none");
    }
    await draw(<Title id="s1" />);
    await join(snapshot(0, { session: { title: "One" } }));
    expect(element.textContent).toBe("One");
    await draw(<Title id="s2" />);
    expect(element.textContent).toBe("none");
    await settled(() => server.joined(snapshot(0, { session: { id: "s2", title: "Two" } })));
    expect(element.textContent).toBe("Two");
    expect(server.connections).toHaveLength(1);
  });

  it("in strict mode joins once", async () => {
    await draw(
      <StrictMode>
        <Messages />
        <People />
      </StrictMode>,
    );
    await join();
    await vi.advanceTimersByTimeAsync(5_000);
    server.joinParams(1);
    expect(server.connection.of("phx_leave")).toEqual([]);
    expect(server.connections).toHaveLength(1);
  });

  it("without a provider says what is missing", () => {
    const silent = vi.spyOn(console, "error").mockImplementation(() => undefined);
    expect(() => renderToString(<Messages />)).toThrow("put <RejoinProvider");
    expect(() => renderToString(within(<Unnamed />))).toThrow("put <SessionProvider");
    silent.mockRestore();
  });
});

function Unnamed(): ReactNode {
  const { people } = usePresence();
  const { text } = useTurn("t1");
  return `${people.map(({ name }) => name).join()}: ${text}`;
}

describe("the other hooks", () => {
  it("usePresence draws for people, and not for what they say", async () => {
    await draw(<People />);
    await join();
    await push("presence_state", { u2: { metas: [{ phx_ref: "r2", name: "Ben" }] } });
    const before = drawn["people"];
    await push("events", { prev: 0, events: [...begun, delta(3, "t1", "Hel")] });
    expect(element.textContent).toBe("Ben");
    expect(drawn["people"]).toBe(before);
  });

  it("useTurn draws for its turn, and not for another", async () => {
    await draw([<Answer key="1" id="t1" />, <Answer key="2" id="t2" />]);
    await join(snapshot(0, { session: { max_running: 2 } }));
    await push("events", { prev: 0, events: [...begun, added(3, prompt("m2", 3)), started(4, turn("t2", "m2"))] });
    const before = drawn["answer t1"];
    await push("events", { prev: 4, events: [delta(5, "t2", "Two")] });
    await push("events", { prev: 5, events: [completed(6, "t2", answer("t2", 4, "Two"))] });
    expect(element.textContent).toBe(" (running)Two (completed)");
    expect(drawn["answer t1"]).toBe(before);
  });

  it("inside a SessionProvider need no id", async () => {
    await draw(
      <SessionProvider id="s1" options={{ create: false }}>
        <Unnamed />
      </SessionProvider>,
    );
    await join();
    expect(server.joinParams(1)).toEqual({ create: false });
    await push("presence_state", { u2: { metas: [{ phx_ref: "r2", name: "Ben" }] } });
    await push("events", { prev: 0, events: [...begun, delta(3, "t1", "Hel")] });
    expect(element.textContent).toBe("Ben: Hel");
  });

  it("useLive shows what the others do", async () => {
    function Typing(): ReactNode {
      const { others, live } = useLive<boolean>("typing", {}, "s1");
      return <button onClick={() => live.set(true)}>{others.map(({ by }) => by.name).join()}</button>;
    }
    await draw(<Typing />);
    await join();
    await push("broadcast", { event: "typing", payload: { value: true }, by: { id: "u2", name: "Ben" } });
    expect(element.textContent).toBe("Ben");
    await settled(() => element.querySelector("button")?.click());
    expect(server.last("broadcast").payload).toEqual({ event: "typing", payload: { value: true } });
  });

  it("useConnection and useSessionList show theirs", async () => {
    function Bar(): ReactNode {
      return `${useConnection().status} ${useSessionList().sessions.map(({ id }) => id).join()}`;
    }
    await draw(<Bar />);
    expect(element.textContent).toBe("connecting ");
    const summary = { id: "a", title: null, status: "idle", last_seq: 1, running: [], updated_at: "2026-11-22T10:00:00Z" };
    await join({ sessions: [summary], has_more: false });
    expect(element.textContent).toBe("open a");
  });
});

describe("a page rendered on a server", () => {
  it("connects nowhere, and shows that nothing is known yet", () => {
    expect(renderToString(within([<Messages key="1" />, <People key="2" />, <Answer key="3" id="t1" />]))).toBe(" (unknown)");
    expect(server.connections).toEqual([]);
    expect(rejoin.session("s1").snapshot.status).toBe("idle");
  });

  it("is taken over without a mismatch, and shows at once what was kept", async () => {
    const area = new MemoryArea();
    const options = { transport: server.transport, user: { id: "u1" }, persist: persistIn(area) };
    rejoin = new Rejoin("ws://server/socket", options);
    await draw(<Answer id="t1" />);
    await join();
    await push("events", { prev: 0, events: [...begun, delta(3, "t1", "Hel")] });
    await act(() => vi.advanceTimersByTimeAsync(1_000));
    await settled(() => root?.unmount());
    rejoin.disconnect();

    rejoin = new Rejoin("ws://server/socket", options);
    const page = within(
      <main>
        <Messages />
        <Answer id="t1" />
      </main>,
    );
    const rendered = new DOMParser().parseFromString(renderToString(page), "text/html");
    element.append(...rendered.body.childNodes);
    expect(element.textContent.trim()).toBe("(unknown)");
    const errors: unknown[] = [];
    await settled(() => {
      root = hydrateRoot(element, page, { onRecoverableError: (error) => errors.push(error) });
    });
    expect(errors).toEqual([]);
    expect(element.textContent).toBe("HiHelHel (running)");
  });
});
