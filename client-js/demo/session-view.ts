/** One session as it is shown: its messages, who is in it, what waits. Everything that it knows is in the snapshot. */
import type { Rejoin, Session, SessionSnapshot } from "../src/index.js";
import { announceEvents } from "./announcer.js";
import { MessageList } from "./messages.js";
import type { People } from "./people.js";
import { Pending } from "./pending.js";
import { Queue } from "./queue.js";
import type { Scroller } from "./scroller.js";
import { Typing } from "./typing.js";
import { titleFrom } from "./words.js";

/** The parts of the page that stay when another session is shown. */
export interface Stage {
  readonly rejoin: Rejoin;
  readonly userId: string;
  readonly people: People;
  readonly scroller: Scroller;
  /** Draws all of the page, soon. */
  readonly changed: () => void;
}

export class SessionView {
  readonly session: Session;
  readonly #stage: Stage;
  readonly #messages: MessageList;
  readonly #pending: Pending;
  readonly #queue: Queue;
  readonly #typing: Typing;
  readonly #closers: (() => void)[] = [];
  /** A session that nothing was said in yet, and that is made by the first message. */
  #isNew: boolean;

  constructor(stage: Stage, sessionId: string, isNew: boolean) {
    this.#stage = stage;
    this.#isNew = isNew;
    const session = stage.rejoin.session(sessionId);
    this.session = session;
    this.#messages = new MessageList({
      userId: stage.userId,
      stop: (turnId) => session.cancel(turnId),
      retry: (turnId) => session.retry(turnId),
      visit: (messageId) => stage.scroller.visit(messageId),
    });
    this.#pending = new Pending(session);
    this.#queue = new Queue(session);
    this.#typing = new Typing(session);
    this.#closers.push(session.subscribe(stage.changed), announceEvents(session, stage.userId), () => this.#typing.close());
    if (!isNew) this.#closers.push(session.hold());
  }

  get isNew(): boolean {
    return this.#isNew;
  }

  draw(): void {
    const snapshot = this.session.getSnapshot();
    this.#stage.people.update(snapshot.people, snapshot.agents);
    this.#messages.update(snapshot);
    this.#queue.update(snapshot);
    this.#pending.update(snapshot.outbox);
    this.#stage.scroller.shown(snapshot.messages.length + snapshot.outbox.length, snapshot.hasMore);
  }

  /** Loads older messages, and draws them so that the reader stays where they are. */
  async older(): Promise<boolean> {
    const count = (): number => this.session.snapshot.messages.length;
    const before = count();
    const hasMore = await this.session.history();
    this.#stage.scroller.prepend(() => this.draw(), () => count() - before);
    return hasMore;
  }

  /** What becomes of it is shown where it stands. */
  say(text: string, whenBusy: "queue" | "interrupt"): void {
    const { session } = this;
    const wasNew = this.#isNew;
    if (wasNew) this.#closers.push(session.hold());
    this.#isNew = false;
    this.#typing.tell(false);
    this.#stage.scroller.toNewest();
    const sent = session.send(text, { whenBusy });
    // A title can be given by anybody later; that it cannot be given now is no reason for a word.
    if (wasNew) void sent.then(() => session.update({ title: titleFrom(text) || null })).catch(() => undefined);
  }

  typing(isTyping: boolean): void {
    if (!this.#isNew) this.#typing.tell(isTyping);
  }

  /** Stops one's own running answer, or the one that runs. */
  async stop(): Promise<void> {
    const { running } = this.session.getSnapshot();
    const turn = running.find(({ by }) => by.id === this.#stage.userId) ?? running[0];
    if (turn) await this.session.cancel(turn.id);
  }

  /** Asks again what was interrupted last, if nothing came after it. */
  async retry(): Promise<void> {
    const last = lastCut(this.session.getSnapshot());
    if (last !== null) await this.session.retry(last);
  }

  close(): void {
    for (const close of this.#closers) close();
  }
}

/** The newest turn that was cut and not asked again. */
function lastCut({ messages, ended }: SessionSnapshot): string | null {
  const prompt = messages.findLast(({ id }) => {
    const status = ended.get(id)?.status;
    return status === "cancelled" || status === "failed";
  });
  return prompt ? (ended.get(prompt.id)?.id ?? null) : null;
}
