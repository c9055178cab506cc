/**
 * Where the reader is in a session.
 *
 * The newest stays in sight until the reader goes up, and from then on nothing moves what is being read: neither what
 * arrives below nor older messages that are loaded above.
 */
import { byId, setText } from "./dom.js";

const NEAR_PX = 48;
const LOAD_AHEAD_PX = 600;

export class Scroller {
  readonly element = byId("scroll", HTMLElement);
  readonly #older = byId("older", HTMLButtonElement);
  readonly #jump = byId("jump", HTMLButtonElement);
  readonly #loadOlder: () => Promise<boolean>;
  #isFollowing = true;
  #isLoading = false;
  #hasMore = false;
  #lastTop = 0;
  #count = 0;
  /** How many messages there were when the reader went up. */
  #seen = 0;

  /** `loadOlder` resolves once they are shown, with whether there are still more. */
  constructor(loadOlder: () => Promise<boolean>) {
    this.#loadOlder = loadOlder;
    this.element.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    this.#jump.addEventListener("click", () => this.toNewest(true));
    this.#older.addEventListener("click", () => void this.#load());
    // The composer grows, a keyboard comes up: what was at the end stays there.
    new ResizeObserver(() => this.#follow()).observe(this.element);
  }

  /** Another session: from its end on. */
  reset(): void {
    this.#isFollowing = true;
    this.#count = 0;
    this.#lastTop = 0;
  }

  /** Goes to the newest and stays there. */
  toNewest(withFocus = false): void {
    this.#isFollowing = true;
    this.#follow();
    if (withFocus) this.element.focus();
  }

  /** Goes to a message, which takes the focus, and stays there whatever arrives below. */
  visit(messageId: string): void {
    const message = this.element.querySelector<HTMLElement>(`[data-message-id="${CSS.escape(messageId)}"]`);
    if (!message) return;
    this.#isFollowing = false;
    this.#seen = this.#count;
    // For as long as it has the focus: who clicks into a message does not want it marked.
    message.tabIndex = -1;
    message.addEventListener("blur", () => message.removeAttribute("tabindex"), { once: true });
    message.focus({ preventScroll: true });
    message.scrollIntoView({ block: "center" });
    this.#showJump();
  }

  /** After each change of what is shown: `count` messages, and whether there are older ones. */
  shown(count: number, hasMore: boolean): void {
    this.#count = count;
    this.#hasMore = hasMore;
    this.#older.hidden = !hasMore;
    this.#follow();
    if (hasMore && this.element.scrollHeight <= this.element.clientHeight) void this.#load();
  }

  #follow(): void {
    if (this.#isFollowing) this.element.scrollTop = this.element.scrollHeight;
    else this.#showJump();
    if (this.#isFollowing) this.#jump.hidden = true;
  }

  #onScroll(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    // Only who goes up leaves the end; what grows below moves nobody.
    const wentUp = scrollTop < this.#lastTop - 1;
    this.#lastTop = scrollTop;
    if (isAtEnd) this.#isFollowing = true;
    else if (wentUp && this.#isFollowing) {
      this.#isFollowing = false;
      this.#seen = this.#count;
    }
    this.#follow();
    if (this.#hasMore && !this.#isFollowing && scrollTop < LOAD_AHEAD_PX) void this.#load();
  }

  #showJump(): void {
    this.#jump.hidden = false;
    const unseen = this.#count - this.#seen;
    setText(this.#jump, unseen > 0 ? `${unseen} new ↓` : "Newest ↓");
  }

  async #load(): Promise<void> {
    if (this.#isLoading) return;
    this.#isLoading = true;
    setText(this.#older, "Loading older messages…");
    try {
      await this.#loadOlder();
      setText(this.#older, "Show older messages");
    } catch {
      // The button stays; the notice above says what is wrong.
      setText(this.#older, "Older messages could not be loaded. Try again");
    } finally {
      this.#isLoading = false;
    }
  }

  /** Shows what is older by `draw`, and leaves the reader where they are. */
  prepend(draw: () => void, added: () => number): void {
    const fromEnd = this.element.scrollHeight - this.element.scrollTop;
    const wasFollowing = this.#isFollowing;
    this.#isFollowing = false;
    draw();
    this.#seen += added();
    this.#isFollowing = wasFollowing;
    this.element.scrollTop = this.element.scrollHeight - fromEnd;
    this.#lastTop = this.element.scrollTop;
  }
}
