/**
 * What stands within a line of Markdown: emphasis, code, links. Pure.
 *
 * Raw HTML is text like any other, and a link that leads anywhere but to the web or to a mailbox is no link. Invariant:
 * whatever is given, the work grows with its length and the result nests to a fixed depth, since what others wrote is
 * parsed while it streams.
 */

export type Inline =
  | { readonly kind: "text" | "code"; readonly text: string }
  | { readonly kind: "strong" | "emphasis" | "strike"; readonly children: readonly Inline[] }
  | { readonly kind: "link"; readonly href: string; readonly children: readonly Inline[] };

/** A run of `*`, `_` or `~` that may turn out to be one end of an emphasis. */
interface Run {
  readonly kind: "run";
  readonly char: string;
  count: number;
  readonly canOpen: boolean;
  readonly canClose: boolean;
}

/** A `[` that may turn out to begin a link. */
interface Bracket {
  readonly kind: "bracket";
  readonly text: string;
}

type Item = Inline | Run | Bracket;

const MAX_OPEN_RUNS = 16;
const MAX_LINK_CHARS = 2_000;
const SPECIAL = /[\\`*_~[\]!<h]/gu;
const PUNCTUATION = /[!-/:-@[-`{-~]/u;
const WEB_ADDRESS = /https?:\/\/[^\s<>[\]]+/uy;
const IN_ANGLES = /<((?:https?:|mailto:)[^\s<>]+)>/uy;
const SCHEMES: ReadonlySet<string> = new Set(["http:", "https:", "mailto:"]);

export function parseInline(text: string): readonly Inline[] {
  return new InlineParser(text).parse();
}

/** The address if it may be linked to, written out in full; null otherwise. */
export function safeHref(address: string): string | null {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  return SCHEMES.has(url.protocol) ? url.href : null;
}

class InlineParser {
  readonly #text: string;
  readonly #items: Item[] = [];
  /** Where in `#items` a link may begin. */
  #brackets: number[] = [];
  /** Lengths of runs of backticks that nothing closes any more. */
  readonly #unclosed = new Set<number>();
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parse(): readonly Inline[] {
    const text = this.#text;
    while (this.#at < text.length) {
      SPECIAL.lastIndex = this.#at;
      const next = SPECIAL.exec(text)?.index ?? text.length;
      this.#say(text.slice(this.#at, next));
      this.#at = next;
      if (next < text.length) this.#special(text.charAt(next));
    }
    return emphasize(this.#items);
  }

  #special(char: string): void {
    if (char === "\\") this.#escape();
    else if (char === "`") this.#code();
    else if (char === "[" || (char === "!" && this.#text.charAt(this.#at + 1) === "[")) this.#open(char);
    else if (char === "]") this.#close();
    else if (char === "<") this.#angles();
    else if (char === "h") this.#address();
    else if (char === "!") this.#take(1);
    else this.#run(char);
  }

  #escape(): void {
    const next = this.#text.charAt(this.#at + 1);
    if (!PUNCTUATION.test(next)) { this.#take(1); return; }
    this.#at += 2;
    this.#say(next);
  }

  #code(): void {
    const length = runLength(this.#text, this.#at);
    const from = this.#at + length;
    const end = this.#unclosed.has(length) ? -1 : closingTicks(this.#text, from, length);
    if (end < 0) {
      this.#unclosed.add(length);
      this.#take(length); return;
    }
    const inside = this.#text.slice(from, end).replaceAll("\n", " ");
    const isPadded = inside.startsWith(" ") && inside.endsWith(" ") && inside.trim() !== "";
    this.#items.push({ kind: "code", text: isPadded ? inside.slice(1, -1) : inside });
    this.#at = end + length;
  }

  #open(char: string): void {
    const text = char === "!" ? "![" : "[";
    this.#brackets.push(this.#items.length);
    this.#items.push({ kind: "bracket", text });
    this.#at += text.length;
  }

  /** A picture is shown as a link to it: the page loads nothing from elsewhere. */
  #close(): void {
    const opened = this.#brackets.pop();
    const target = opened === undefined ? null : linkTarget(this.#text, this.#at + 1);
    const href = target && safeHref(target.address);
    if (opened === undefined || !target || href === null) { this.#take(1); return; }
    const [, ...inside] = this.#items.splice(opened);
    // There are no links within links.
    const children = emphasize(inside.flatMap((item): readonly Item[] => (item.kind === "link" ? item.children : [item])));
    this.#items.push({ kind: "link", href, children: children.length > 0 ? children : [{ kind: "text", text: href }] });
    this.#brackets = [];
    this.#at = target.end;
  }

  #angles(): void {
    IN_ANGLES.lastIndex = this.#at;
    const [whole = "", address = ""] = IN_ANGLES.exec(this.#text) ?? [];
    if (!this.#link(address)) { this.#take(1); return; }
    this.#at += whole.length;
  }

  #address(): void {
    const before = this.#text.charAt(this.#at - 1);
    WEB_ADDRESS.lastIndex = this.#at;
    const [found = ""] = (/[\p{L}\p{N}_]/u.test(before) ? null : WEB_ADDRESS.exec(this.#text)) ?? [];
    if (found.length > MAX_LINK_CHARS) { this.#take(found.length); return; }
    const address = withoutTail(found);
    if (!this.#link(address)) { this.#take(1); return; }
    this.#at += address.length;
  }

  #link(address: string): boolean {
    const href = address === "" || address.length > MAX_LINK_CHARS ? null : safeHref(address);
    if (href === null) return false;
    this.#items.push({ kind: "link", href, children: [{ kind: "text", text: address }] });
    return true;
  }

  #run(char: string): void {
    const text = this.#text;
    const count = runLength(text, this.#at);
    const [before, after] = [text.charAt(this.#at - 1) || " ", text.charAt(this.#at + count) || " "];
    const isWorth = char === "~" ? count === 2 : count <= 3;
    if (!isWorth) { this.#take(count); return; }
    const isWord = char === "_" && /[\p{L}\p{N}]/u.test(before) && /[\p{L}\p{N}]/u.test(after);
    const canOpen = !isWord && /\S/u.test(after);
    const canClose = !isWord && /\S/u.test(before);
    this.#items.push({ kind: "run", char, count, canOpen, canClose });
    this.#at += count;
  }

  #take(count: number): void {
    this.#say(this.#text.slice(this.#at, this.#at + count));
    this.#at += count;
  }

  #say(text: string): void {
    say(this.#items, text);
  }
}

/** Pairs the runs; whatever finds no partner is text. */
function emphasize(items: readonly Item[]): Inline[] {
  const out: Item[] = [];
  let open: number[] = [];
  for (const item of items) {
    if (item.kind !== "run") {
      if (item.kind === "text") say(out, item.text);
      else out.push(item);
      continue;
    }
    const run = { ...item };
    if (run.canClose) open = closeRuns(out, open, run);
    if (run.count === 0) continue;
    if (run.canOpen && open.length < MAX_OPEN_RUNS) open.push(out.length);
    out.push(run);
  }
  return plain(out);
}

/** Ends as many of the open runs as `run` has characters for; what remains open. */
function closeRuns(out: Item[], open: readonly number[], run: Run): number[] {
  let left = [...open];
  while (run.count > 0) {
    const place = left.findLastIndex((index) => isPartner(out[index], run));
    const index = left[place];
    const opener = index === undefined ? undefined : out[index];
    if (index === undefined || opener?.kind !== "run") break;
    const used = Math.min(2, opener.count, run.count);
    const children = plain(out.splice(index + 1));
    const kind = run.char === "~" ? "strike" : used === 2 ? "strong" : "emphasis";
    opener.count -= used;
    run.count -= used;
    left = left.slice(0, opener.count > 0 ? place + 1 : place);
    if (opener.count === 0) out.pop();
    out.push({ kind, children });
  }
  return left;
}

function isPartner(item: Item | undefined, run: Run): boolean {
  return item?.kind === "run" && item.char === run.char && item.count > 0;
}

function plain(items: readonly Item[]): Inline[] {
  const out: Item[] = [];
  for (const item of items) {
    if (item.kind === "run") say(out, item.char.repeat(item.count));
    else if (item.kind === "bracket" || item.kind === "text") say(out, item.text);
    else out.push(item);
  }
  return out as Inline[];
}

/** Adds text to a list, to the text that is its last item if there is one. */
function say(items: Item[], text: string): void {
  if (text === "") return;
  const last = items.at(-1);
  if (last?.kind === "text") items[items.length - 1] = { kind: "text", text: last.text + text };
  else items.push({ kind: "text", text });
}

function runLength(text: string, from: number): number {
  const char = text.charAt(from);
  let to = from;
  while (text.charAt(to) === char) to += 1;
  return to - from;
}

function closingTicks(text: string, from: number, length: number): number {
  let at = text.indexOf("`", from);
  while (at >= 0) {
    const found = runLength(text, at);
    if (found === length) return at;
    at = text.indexOf("`", at + found);
  }
  return -1;
}

/** `(address)` or `(address "title")` from there on. */
function linkTarget(text: string, from: number): { readonly address: string; readonly end: number } | null {
  if (text.charAt(from) !== "(") return null;
  let depth = 0;
  for (let at = from; at < text.length && at < from + MAX_LINK_CHARS; at += 1) {
    const char = text.charAt(at);
    if (char === "(") depth += 1;
    if (char === ")" && --depth === 0) {
      const [address = ""] = text.slice(from + 1, at).trim().split(/\s/u, 1);
      return { address: address.replace(/^<|>$/gu, ""), end: at + 1 };
    }
    if (char === "\n" || char === "[" || char === "]") return null;
  }
  return null;
}

/** Without the punctuation of the sentence around it. */
function withoutTail(address: string): string {
  let end = address.length;
  while (end > 0) {
    const last = address.charAt(end - 1);
    const isTail = last === ")" ? !address.slice(0, end).includes("(") : ".,;:!?'\"*_~]`".includes(last);
    if (!isTail) break;
    end -= 1;
  }
  return address.slice(0, end);
}
