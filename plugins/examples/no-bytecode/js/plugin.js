// Drops events about files whose names end as nobody wants to see them.

import { json as configuration } from "whodunit:plugin/configuration@0.1.0";

let endings = [];

// The engine has no TextEncoder.
function encode(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (character) => character.charCodeAt(0));
}

export const lifecycle = {
  describe() {
    return { name: "no-bytecode", version: "0.1.0" };
  },

  // What is thrown here is a sentence for the operator.
  start(context) {
    const texts = JSON.parse(configuration()).endings ?? [".pyc"];
    if (texts.includes("")) throw "an empty text in `config.endings` would drop everything";
    endings = texts.map(encode);
  },
};

// Paths are bytes, from `start` to `end` of the batch's text.
function endsWith(text, start, end, ending) {
  const first = end - ending.length;
  return first >= start && ending.every((byte, index) => text[first + index] === byte);
}

export const filter = {
  // One verdict an event, in their order.
  onBatch({ events, text }) {
    return events.map(({ path: { offset, length } }) => {
      const drop = endings.some((ending) => endsWith(text, offset, offset + length, ending));
      return { tag: drop ? "drop" : "keep" };
    });
  },
};
