/**
 * The blocks of a Markdown text: paragraphs, headings, code, quotes, lists, tables, rules. Pure.
 *
 * What is not understood is a paragraph. Invariant: if more text is appended, no block but the last one changes, so that
 * a streaming answer is parsed from there on only.
 */

export type Block =
  | { readonly kind: "paragraph"; readonly text: string }
  | { readonly kind: "heading"; readonly level: number; readonly text: string }
  | { readonly kind: "code"; readonly language: string; readonly text: string }
  | { readonly kind: "quote"; readonly blocks: readonly Block[] }
  | { readonly kind: "list"; readonly start: number | null; readonly items: readonly Item[] }
  | { readonly kind: "table"; readonly align: readonly Align[]; readonly head: readonly string[]; readonly rows: readonly (readonly string[])[] }
  | { readonly kind: "rule" };

/** An item of a list; `done` where it is one of a list of things to do. */
export interface Item {
  readonly done: boolean | null;
  readonly blocks: readonly Block[];
}

export type Align = "left" | "center" | "right" | null;

/** A block, and where in the text it begins. */
export interface Placed {
  readonly block: Block;
  readonly from: number;
}

const MAX_DEPTH = 8;
const FENCE = /^( {0,3})(`{3,}|~{3,})/u;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/u;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/u;
const QUOTE = /^ {0,3}> ?/u;
const MARKER = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}(?=\S)|[ \t]|$)/u;
const TASK = /^\[([ xX])\] /u;
const DIVIDER = /^[ \t|:-]+$/u;
const DIVIDER_CELL = /^:?-+:?$/u;

/** All blocks of a text. */
export function parseBlocks(text: string): readonly Placed[] {
  const lines = text.split("\n");
  const starts: number[] = [];
  let at = 0;
  for (const line of lines) {
    starts.push(at);
    at += line.length + 1;
  }
  return new BlockParser(lines, 0).parse().map(({ block, line }) => ({ block, from: starts[line] ?? 0 }));
}

class BlockParser {
  readonly #lines: readonly string[];
  readonly #depth: number;
  #at = 0;

  constructor(lines: readonly string[], depth: number) {
    this.#lines = lines;
    this.#depth = depth;
  }

  parse(): { readonly block: Block; readonly line: number }[] {
    const found: { block: Block; line: number }[] = [];
    while (this.#at < this.#lines.length) {
      const line = this.#at;
      if (isBlank(this.#line)) this.#at += 1;
      else found.push({ block: this.#block(), line });
    }
    return found;
  }

  get #line(): string {
    return this.#lines[this.#at] ?? "";
  }

  #block(): Block {
    const line = this.#line;
    const fence = fenceOf(line);
    if (fence) return this.#code(fence);
    if (HEADING.test(line)) return this.#heading();
    if (RULE.test(line)) return this.#rule();
    if (this.#depth < MAX_DEPTH && QUOTE.test(line)) return this.#quote();
    if (this.#depth < MAX_DEPTH && MARKER.test(line)) return this.#list();
    return this.#isTable(this.#at) ? this.#table() : this.#paragraph();
  }

  #rule(): Block {
    this.#at += 1;
    return { kind: "rule" };
  }

  #heading(): Block {
    const [mark = "", signs = ""] = HEADING.exec(this.#line) ?? [];
    const text = this.#line.slice(mark.length).trim();
    this.#at += 1;
    const end = text.length - (/#*$/u.exec(text.slice(-8))?.[0].length ?? 0);
    const isClosed = end === 0 || /\s/u.test(text.charAt(end - 1));
    return { kind: "heading", level: signs.length, text: isClosed ? text.slice(0, end).trim() : text };
  }

  /** A block of code that is not closed goes on to the end: that is how one streams. */
  #code({ indent, mark, language }: Fence): Block {
    const text: string[] = [];
    this.#at += 1;
    while (this.#at < this.#lines.length) {
      const line = this.#line;
      this.#at += 1;
      if (closes(line, mark)) break;
      text.push(unindented(line, indent));
    }
    return { kind: "code", language, text: text.join("\n") };
  }

  #quote(): Block {
    const inside: string[] = [];
    while (this.#at < this.#lines.length) {
      const line = this.#line;
      if (QUOTE.test(line)) inside.push(line.replace(QUOTE, ""));
      else if (this.#goesOn(inside)) inside.push(line);
      else break;
      this.#at += 1;
    }
    return { kind: "quote", blocks: this.#inner(inside) };
  }

  #list(): Block {
    const [, , first = ""] = MARKER.exec(this.#line) ?? [];
    const items: Item[] = [];
    while (this.#at < this.#lines.length && sameList(MARKER.exec(this.#line)?.[2], first)) {
      if (RULE.test(this.#line)) break;
      items.push(this.#item());
    }
    const start = /^\d/u.test(first) ? Number.parseInt(first, 10) : null;
    return { kind: "list", start, items };
  }

  #item(): Item {
    const [mark = ""] = MARKER.exec(this.#line) ?? [];
    const task = TASK.exec(this.#line.slice(mark.length));
    const inside = [this.#line.slice(mark.length + (task?.[0].length ?? 0))];
    const width = /\S/u.test(this.#line.slice(mark.length)) ? mark.length : mark.trimEnd().length + 1;
    this.#at += 1;
    while (this.#at < this.#lines.length) {
      const line = this.#line;
      if (isBlank(line)) inside.push("");
      else if (indentOf(line) >= width) inside.push(unindented(line, width));
      else if (!MARKER.test(line) && this.#goesOn(inside)) inside.push(line);
      else break;
      this.#at += 1;
    }
    return { done: task ? task[1] !== " " : null, blocks: this.#inner(inside) };
  }

  #inner(lines: readonly string[]): readonly Block[] {
    return new BlockParser(lines, this.#depth + 1).parse().map(({ block }) => block);
  }

  /** Whether this line continues a paragraph that a quote or an item ended with. */
  #goesOn(inside: readonly string[]): boolean {
    const last = inside.at(-1) ?? "";
    return !isBlank(last) && !isBlank(this.#line) && !begins(last) && !this.#interrupts(this.#at);
  }

  #isTable(at: number): boolean {
    const [head = "", divider = ""] = [this.#lines[at], this.#lines[at + 1]];
    if (!head.includes("|") || !DIVIDER.test(divider)) return false;
    const columns = cells(divider);
    return columns.every((column) => DIVIDER_CELL.test(column)) && cells(head).length === columns.length;
  }

  #table(): Block {
    const head = cells(this.#line);
    const align = cells(this.#lines[this.#at + 1] ?? "").map(alignOf);
    const rows: string[][] = [];
    this.#at += 2;
    while (this.#at < this.#lines.length && !isBlank(this.#line) && !begins(this.#line)) {
      const row = cells(this.#line);
      rows.push(head.map((_, column) => row[column] ?? ""));
      this.#at += 1;
    }
    return { kind: "table", align, head, rows };
  }

  #paragraph(): Block {
    const text = [this.#line];
    this.#at += 1;
    while (this.#at < this.#lines.length && !isBlank(this.#line) && !this.#interrupts(this.#at)) {
      text.push(this.#line);
      this.#at += 1;
    }
    return { kind: "paragraph", text: text.join("\n").trimEnd() };
  }

  #interrupts(at: number): boolean {
    return begins(this.#lines[at] ?? "") || this.#isTable(at);
  }
}

/** Whether a line begins a block of its own where a paragraph could go on. */
function begins(line: string): boolean {
  if (fenceOf(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  const [mark = "", , sign = ""] = MARKER.exec(line) ?? [];
  return sign !== "" && line.length > mark.length && (!/^\d/u.test(sign) || /^1[.)]$/u.test(sign));
}

interface Fence {
  readonly indent: number;
  readonly mark: string;
  readonly language: string;
}

/** Backticks behind the mark are a piece of code within a line. */
function fenceOf(line: string): Fence | null {
  const [whole = "", indent = "", mark = ""] = FENCE.exec(line) ?? [];
  const info = line.slice(whole.length);
  if (mark === "" || (mark.startsWith("`") && info.includes("`"))) return null;
  const [language = ""] = info.trim().split(/\s/u, 1);
  return { indent: indent.length, mark, language: language.slice(0, 40) };
}

function isBlank(line: string): boolean {
  return line.trim() === "";
}

function indentOf(line: string): number {
  return line.length - line.trimStart().length;
}

function unindented(line: string, width: number): string {
  return line.slice(Math.min(width, indentOf(line)));
}

function closes(line: string, mark: string): boolean {
  const bare = line.trim();
  return bare.length >= mark.length && indentOf(line) < 4 && bare === mark.charAt(0).repeat(bare.length);
}

/** Bullets of one kind, or numbers that are written alike. */
function sameList(sign: string | undefined, first: string): boolean {
  return sign !== undefined && sign.at(-1) === first.at(-1) && /^\d/u.test(sign) === /^\d/u.test(first);
}

function cells(line: string): string[] {
  const found: string[] = [];
  let cell = "";
  for (let at = 0; at < line.length; at += 1) {
    const char = line.charAt(at);
    if (char === "\\" && line.charAt(at + 1) === "|") cell += line.charAt(++at);
    else if (char === "|") {
      found.push(cell.trim());
      cell = "";
    } else cell += char;
  }
  found.push(cell.trim());
  if (found.length > 1 && found[0] === "") found.shift();
  if (found.length > 1 && found.at(-1) === "") found.pop();
  return found;
}

function alignOf(divider: string): Align {
  const [left, right] = [divider.startsWith(":"), divider.endsWith(":")];
  if (left && right) return "center";
  return right ? "right" : left ? "left" : null;
}
