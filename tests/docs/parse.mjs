// Takes a JSON list of diagrams on standard input and prints a list of errors, "" for a good one.
// tests/docs/mermaid_parser.py copies it to where its packages are.
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

// Mermaid cleans labels with DOMPurify, which looks for a window while it is loaded.
globalThis.window = new JSDOM("").window;
globalThis.document = window.document;
const { default: mermaid } = await import("mermaid");

const errors = [];
for (const diagram of JSON.parse(readFileSync(0, "utf-8"))) {
  errors.push(await mermaid.parse(diagram).then(() => "", (error) => String(error.message)));
}
console.log(JSON.stringify(errors));
