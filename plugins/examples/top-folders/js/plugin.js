// Counts the files that were opened below each top folder.

import { json as configuration } from "whodunit:plugin/configuration@0.1.0";
import { emit } from "whodunit:plugin/documents@0.1.0";

const OPEN = 16;
let folders = new Map();
let atLeast = 1;

// The engine has no TextDecoder and no TextEncoder. Bytes that are not UTF-8 stay as they are, one
// character each.
function decode(bytes) {
  const characters = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  try {
    return decodeURIComponent(escape(characters));
  } catch {
    return characters;
  }
}

function encode(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (character) => character.charCodeAt(0));
}

export const lifecycle = {
  describe() {
    return { name: "top-folders", version: "0.1.0" };
  },

  // What is thrown here is a sentence for the operator.
  start(context) {
    atLeast = JSON.parse(configuration()).at_least ?? 1;
    folders = new Map();
  },
};

export const reporter = {
  onBatch(batch) {
    for (const event of batch.events) {
      if (event.kind !== OPEN || event.outcome !== 0) continue;
      const { offset, length } = event.path;
      const path = decode(batch.text.slice(offset, offset + length));
      const folder = "/" + (path.split("/")[1] ?? "");
      folders.set(folder, (folders.get(folder) ?? 0) + 1);
    }
  },

  onTick(tick) {
    const shown = [...folders].filter(([, files]) => files >= atLeast).sort();
    emit("report", encode(JSON.stringify(Object.fromEntries(shown))));
  },
};
