/**
 * A server that keeps a session's log and serves it by the rules, on the connections of a `FakeServer`; and that does,
 * when told, everything that the rules allow it and a network does to it.
 */
import { applyEvent, fromJoin, type SessionState } from "../../src/fold.js";
import type { JoinReply, KnownEvent, Message } from "../../src/types.js";
import { added, answer, completed, delta, ended, prompt, snapshot, started, turn } from "./make.js";
import type { Connection, FakeServer, Frame } from "./server.js";

interface Joined {
  readonly connection: Connection;
  readonly frame: Frame;
  sentSeq: number;
}

export class Model {
  readonly #server: FakeServer;
  readonly #log: KnownEvent[] = [];
  readonly #seen = new Map<Connection, number>();
  readonly #sends = new Map<string, object>();
  #joined: Joined | null = null;
  #running: string | null = null;
  #text = "";
  #turns = 0;
  state: SessionState = fromJoin(null, snapshot(0));
  /** What the next join gets instead of what it could have. */
  nextJoin: "continue" | "snapshot" | "pages" = "continue";
  /** The next answer does not arrive: the connection breaks before. */
  losesAnswer = false;
  /** The next question does not arrive either. */
  losesQuestion = false;
  /** The next event does not arrive. */
  losesEvent = false;

  constructor(server: FakeServer) {
    this.#server = server;
  }

  get seq(): number {
    return this.#log.length;
  }

  /** Opens what is being opened, and answers what was asked. */
  work(): void {
    const { connections } = this.#server;
    for (const connection of connections) {
      if (connection.readyState === 0) connection.open();
      for (;;) {
        const index = this.#seen.get(connection) ?? 0;
        const frame = connection.frames[index];
        if (!frame) break;
        this.#seen.set(connection, index + 1);
        if (connection.readyState === 1) this.#handle(connection, frame);
      }
    }
  }

  /** Somebody else says something. */
  say(): void {
    const seq = this.seq + 1;
    this.#append(added(seq, prompt(`other-${seq}`, seq, "from elsewhere", "u2")));
  }

  /** The agent goes on: begins, says a word, comes to an end. */
  answer(isOver: boolean, isCut: boolean): void {
    const seq = this.seq + 1;
    const id = this.#running;
    if (id === null) {
      this.#running = `t${(this.#turns += 1)}`;
      this.#text = "";
      this.#append(started(seq, turn(this.#running, this.state.messages.at(-1)?.id ?? "none")));
    } else if (!isOver) {
      const word = `w${seq} `;
      this.#text += word;
      this.#append(delta(seq, id, word));
    } else {
      this.#running = null;
      const message = this.state.messages.find((held) => held.turn_id === id) as Message;
      const whole = { ...answer(id, message.seq, this.#text), parts: message.parts };
      this.#append(isCut ? ended(seq, id, "user", { ...whole, status: "partial" }) : completed(seq, id, whole));
    }
  }

  drop(): void {
    this.#joined = null;
    this.#server.connections.at(-1)?.close();
  }

  #append(event: KnownEvent): void {
    this.#log.push(event);
    this.state = applyEvent(this.state, event);
    const joined = this.#joined;
    if (!joined) return;
    const push = { prev: joined.sentSeq, events: [event] };
    joined.sentSeq = event.seq;
    if (!this.losesEvent) joined.connection.push(joined.frame, "events", push);
    this.losesEvent = false;
  }

  #handle(connection: Connection, frame: Frame): void {
    if (this.losesQuestion) {
      this.losesQuestion = false;
      this.drop();
    } else if (frame.event === "phx_join") this.#join(connection, frame);
    else if (frame.event === "phx_leave" && this.#joined?.frame.joinRef === frame.joinRef) this.#joined = null;
    else if (frame.event === "send") this.#send(connection, frame);
  }

  #join(connection: Connection, frame: Frame): void {
    const { last_seq: after } = frame.payload as { last_seq?: number };
    const { session, messages, turns, ended: over } = this.state;
    const base = snapshot(this.seq, { session: { status: session.status }, turns });
    let reply: JoinReply = { ...base, replay: { ...base.replay, messages, ended: [...over.values()] } as JoinReply["replay"] };
    let rest: KnownEvent[] = [];
    if (after !== undefined && this.nextJoin !== "snapshot") {
      const missed = this.#log.slice(after);
      const size = this.nextJoin === "pages" ? Math.ceil(missed.length / 2) : missed.length;
      rest = missed.slice(size);
      reply = { ...base, replay: { mode: "replay", from: after, to: after + size, events: missed.slice(0, size) } };
    }
    this.nextJoin = "continue";
    if (this.#loses(connection)) return;
    this.#joined = { connection, frame, sentSeq: this.seq };
    connection.reply(frame, reply);
    for (const event of rest) connection.push(frame, "events", { prev: event.seq - 1, events: [event] });
  }

  #send(connection: Connection, frame: Frame): void {
    const { id, text } = frame.payload as { id: string; text: string };
    const known = this.#sends.get(id);
    const seq = this.seq + 1;
    const sent = { message_id: id, turn_id: null, seq, duplicate: false };
    if (!known) {
      this.#sends.set(id, sent);
      this.#append(added(seq, prompt(id, seq, text)));
    }
    if (!this.#loses(connection)) connection.reply(frame, known ? { ...known, duplicate: true } : sent);
  }

  #loses(connection: Connection): boolean {
    if (!this.losesAnswer) return false;
    this.losesAnswer = false;
    this.#joined = null;
    connection.close();
    return true;
  }
}
