// @vitest-environment happy-dom
/* eslint no-restricted-properties: "off" -- what was made is only read here */
import { describe, expect, it } from "vitest";
import { parseBlocks } from "../demo/markdown/blocks.js";
import { parseInline } from "../demo/markdown/inline.js";
import { MarkdownView } from "../demo/markdown/view.js";

function html(text: string): string {
  const view = new MarkdownView();
  view.update(text);
  return view.element.innerHTML;
}

/** The elements and attributes of a text that may do something. */
function dangers(text: string): string[] {
  const view = new MarkdownView();
  view.update(text);
  const known = new Set(["class", "href", "title", "target", "rel", "start", "scope", "tabindex", "role", "aria-label", "type", "disabled", "checked", "data-copy-code"]);
  const allowed = /^(?:P|H[3-6]|UL|OL|LI|BLOCKQUOTE|HR|FIGURE|FIGCAPTION|SPAN|BUTTON|PRE|CODE|DIV|TABLE|THEAD|TBODY|TR|TH|TD|STRONG|EM|S|A|INPUT)$/u;
  return [...view.element.querySelectorAll("*")].flatMap((element) => [
    ...(allowed.test(element.tagName) ? [] : [element.tagName]),
    ...element.getAttributeNames().filter((name) => !known.has(name)),
    ...(element.tagName === "A" && !/^(?:https?|mailto):/u.test(element.getAttribute("href") ?? "") ? [element.getAttribute("href") ?? ""] : []),
  ]);
}

const link = (href: string, text: string): string =>
  `<a href="${href}" title="${href}" target="_blank" rel="noopener noreferrer nofollow">${text}</a>`;

describe("Markdown", () => {
  it.each([
    ["plain words", "<p>plain words</p>"],
    ["two\nlines", "<p>two\nlines</p>"],
    ["one\n\ntwo", "<p>one</p><p>two</p>"],
    ["# Big", "<h3>Big</h3>"],
    ["###### Small ##", "<h6>Small</h6>"],
    ["#hashtag", "<p>#hashtag</p>"],
    ["**bold** and *soft* and ~~gone~~", "<p><strong>bold</strong> and <em>soft</em> and <s>gone</s></p>"],
    ["***both***", "<p><em><strong>both</strong></em></p>"],
    ["**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"],
    ["snake_case_name and 2 * 3 * 4", "<p>snake_case_name and 2 * 3 * 4</p>"],
    ["**open and *more", "<p>**open and *more</p>"],
    ["\\*not\\* `a*b*`", "<p>*not* <code>a*b*</code></p>"],
    ["``a ` b``", "<p><code>a ` b</code></p>"],
    ["`open", "<p>`open</p>"],
    ["> quoted\nstill\n\nafter", "<blockquote><p>quoted\nstill</p></blockquote><p>after</p>"],
    ["- a\n- b\n  - c", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"],
    ["3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'],
    ["a\n***\nb", "<p>a</p><hr><p>b</p>"],
  ])("reads %j", (text, expected) => {
    expect(html(text)).toBe(expected);
  });

  it("shows code as it is, also while it is not closed", () => {
    const view = new MarkdownView();
    view.update('```js\nconst a = "<b>";\n\n  # no heading');
    expect(view.element.querySelector("code")?.textContent).toBe('const a = "<b>";\n\n  # no heading');
    expect(view.element.querySelector("figcaption span")?.textContent).toBe("js");
    expect(view.element.querySelector("pre")?.getAttribute("aria-label")).toBe("Code, js");
  });

  it("makes tables, and cells that nobody wrote", () => {
    const view = new MarkdownView();
    view.update("| a | b |\n|:--|--:|\n| 1 | x \\| y |\n| 2 |");
    const cells = [...view.element.querySelectorAll("td")].map((cell) => [cell.className, cell.textContent]);
    expect(cells).toEqual([["to-left", "1"], ["to-right", "x | y"], ["to-left", "2"], ["to-right", ""]]);
  });

  it("makes lists of things to do", () => {
    const view = new MarkdownView();
    view.update("- [x] done\n- [ ] to do");
    expect([...view.element.querySelectorAll("input")].map((box) => box.checked)).toEqual([true, false]);
  });

  it.each([
    ["[a](https://x.test/b)", link("https://x.test/b", "a")],
    ["[a](https://x.test/(b) 'title')", link("https://x.test/(b)", "a")],
    ["see https://x.test/b.", `see ${link("https://x.test/b", "https://x.test/b")}.`],
    ["<mailto:a@x.test>", link("mailto:a@x.test", "mailto:a@x.test")],
    ["![cat](https://x.test/cat.png)", link("https://x.test/cat.png", "cat")],
    ["[https://a.test](https://b.test)", link("https://b.test/", "https://a.test")],
  ])("links %j", (text, expected) => {
    expect(html(text)).toBe(`<p>${expected}</p>`);
  });

  it.each([
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](java\tscript:alert(1))",
    "[a](&#106;avascript:alert(1))",
    "[a](\u0001javascript:alert(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](vbscript:x)",
    "[a](file:///etc/passwd)",
    "[a](//evil.test)",
    "[a](/relative)",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
    '[a](https://x.test/"onmouseover="alert(1))',
    '[a](https://x.test "t" onclick="alert(1)")',
    "```\"><script>alert(1)</script>\nx\n```",
    "| <img src=x onerror=alert(1)> | b |\n|---|---|\n| <script>1</script> | [x](javascript:1) |",
    "# <img src=x onerror=alert(1)>",
    "- [x](javascript:alert(1))",
    "> <style>*{display:none}</style>",
    "**<b onclick=alert(1)>x</b>**",
    "[<img src=x onerror=alert(1)>](https://x.test)",
  ])("makes nothing dangerous of %j", (text) => {
    expect(dangers(text)).toEqual([]);
  });

  it("loses no character of what it does not understand", () => {
    for (const text of ["<b>x</b>", "[a](javascript:x)", "a [b] ![c] (d)", "*a **b ~~c `d", "&amp; \\q", "https://", "<https:>"]) {
      const view = new MarkdownView();
      view.update(text);
      expect(view.element.textContent).toBe(text);
    }
  });

  it("shows the same, however the text arrives", () => {
    const whole = [
      "# Plan\n\nFirst **bold** words, then [a link](https://x.test).\n\n",
      "1. one\n2. two\n   - three\n\n      deep\n\nafter\n\n",
      "```ts\nlet a = `x`;\n```\n\n| a | b |\n|---|---|\n| 1 | *2* |\n\n> quote\n> goes on\n\n---\n\n~~end~~ `code`",
    ].join("");
    const growing = new MarkdownView();
    for (let end = 1; end <= whole.length; end += 1) {
      growing.update(whole.slice(0, end));
      expect(growing.element.innerHTML).toBe(html(whole.slice(0, end)));
    }
    growing.update("something else");
    expect(growing.element.innerHTML).toBe("<p>something else</p>");
  });

  it("keeps what is shown when text is appended", () => {
    const view = new MarkdownView();
    view.update("first\n\nsecond");
    const [first, second] = [...view.element.childNodes].map((node) => node.firstChild);
    view.update("first\n\nsecond, and more");
    expect(view.element.firstChild?.firstChild).toBe(first);
    expect(view.element.lastChild?.firstChild).toBe(second);
    expect(second?.textContent).toBe("second, and more");
  });

  it.each(["[", "]", "*", "**a ", "_a", "`", "``a", "> ", "- ", "  - ", "| ", "|-", "](", "[a](", "![", "~~", "http://", "<http:", "\\", "# ", "```a`", "* * ", "1. "])(
    "is done soon with very many of %j",
    (piece) => {
      const view = new MarkdownView();
      view.update(piece.repeat(Math.ceil(20_000 / piece.length)));
      expect(depthOf(view.element)).toBeLessThan(80);
      // Work that grows with the square of the length would take longer than any test may.
      const blocks = parseBlocks(piece.repeat(Math.ceil(400_000 / piece.length)));
      for (const { block } of blocks) if (block.kind === "paragraph") parseInline(block.text);
    },
    30_000,
  );
});

function depthOf(element: Element): number {
  let deepest = 0;
  for (const leaf of element.querySelectorAll(":scope *")) {
    let depth = 0;
    for (let at: Element | null = leaf; at !== null && at !== element; at = at.parentElement) depth += 1;
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}
