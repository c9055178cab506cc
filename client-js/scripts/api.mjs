/** Writes docs/api.md, the reference of all exports, from the declarations that the package ships. */
import { readFile, writeFile } from "node:fs/promises";
import ts from "typescript";
import { ENTRIES, root } from "./bundle.mjs";

const HEAD = `# Reference

All that the package exports, as its declarations say it. Written by \`npm run build\`; a test compares.
`;

/** The declarations of the package in memory: file name to text. */
function declarations() {
  const { config } = ts.readConfigFile(`${root}/tsconfig.build.json`, ts.sys.readFile);
  const { options, fileNames } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  const files = new Map();
  const write = (name, text) => files.set(name, text);
  ts.createProgram(fileNames, options).emit(undefined, write, undefined, true);
  return { files, options };
}

/** A program of those files alone. */
function programOf({ files, options }) {
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile: read } = host;
  host.fileExists = (name) => files.has(name) || fileExists(name);
  host.readFile = (name) => files.get(name) ?? read(name);
  // Where the package was never built, the folder of these files is not there, and imports would not be looked for in it.
  host.directoryExists = (name) => ts.sys.directoryExists(name) || [...files.keys()].some((file) => file.startsWith(name));
  host.getSourceFile = (name, ...rest) =>
    files.has(name) ? ts.createSourceFile(name, files.get(name), ts.ScriptTarget.ES2022, true) : getSourceFile(name, ...rest);
  return ts.createProgram([...files.keys()], options, host);
}

function resolved(checker, symbol) {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
}

function rank(checker, symbol) {
  return `${resolved(checker, symbol).flags & ts.SymbolFlags.Value ? 0 : 1}${symbol.name.toLowerCase()}`;
}

/** One export: its comment and its declaration, overloads together. */
function section(checker, symbol) {
  const target = resolved(checker, symbol);
  const texts = (target.declarations ?? []).map((node) => {
    const whole = ts.isVariableDeclaration(node) ? node.parent.parent : node;
    const text = whole.getSourceFile().text.slice(whole.getFullStart(), whole.getEnd());
    // Of what stands before a declaration, only the comment right before it is its own.
    const comments = ts.getLeadingCommentRanges(whole.getSourceFile().text, whole.getFullStart()) ?? [];
    const own = comments.at(-1);
    const from = own ? own.pos - whole.getFullStart() : text.length - text.trimStart().length;
    return text.slice(from).replace(/\n {4}private .*;/gu, "").replace(/\n {4}#private;/u, "");
  });
  return `### ${symbol.name}\n\n\`\`\`ts\n${texts.join("\n")}\n\`\`\`\n`;
}

export async function reference() {
  const declared = declarations();
  const program = programOf(declared);
  const checker = program.getTypeChecker();
  const parts = ENTRIES.map((entry) => {
    const file = [...declared.files.keys()].find((name) => name.endsWith(`/${entry}.d.ts`));
    const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)));
    // What one calls first, then the shapes of what one gets.
    const sorted = [...exported].sort((a, b) => rank(checker, a).localeCompare(rank(checker, b)));
    const title = entry === "index" ? "rejoin-client" : `rejoin-client/${entry}`;
    return [`## ${title}\n`, ...sorted.map((symbol) => section(checker, symbol))].join("\n");
  });
  return [HEAD, ...parts].join("\n");
}

export const referencePath = `${root}/docs/api.md`;
export const writeReference = async () => writeFile(referencePath, await reference());
export const isReferenceFresh = async () => (await readFile(referencePath, "utf8").catch(() => "")) === (await reference());
