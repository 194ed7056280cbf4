// Explains exit codes in the words of those who run the program.

import { json as configuration } from "whodunit:plugin/configuration@0.1.0";

let meanings = new Map();

export const lifecycle = {
  describe() {
    return { name: "exit-codes", version: "0.1.0" };
  },

  // What is thrown here is a sentence for the operator.
  start(context) {
    const codes = JSON.parse(configuration()).codes ?? { 78: "Its configuration is wrong" };
    meanings = new Map();
    for (const [code, meaning] of Object.entries(codes)) {
      const number = /^\d+$/.test(code) ? Number(code) : 256;
      if (number > 255) throw `\`${code}\` in \`config.codes\` is no exit code: 0 to 255 are`;
      meanings.set(number, meaning);
    }
  },
};

function explanation(verdict, headline, confidence) {
  const nothing = { restsOn: [], missing: [], advice: [] };
  return { verdict, headline, explanation: "", confidence, ...nothing };
}

export const explainer = {
  // The status is as `wait` reports it. After `unknown` the next explainer is asked.
  explain({ status }) {
    if ((status & 0x7f) !== 0) return explanation("unknown", "It did not exit by itself", 0);
    const meaning = meanings.get((status >> 8) & 0xff);
    if (meaning === undefined) return explanation("unknown", "That is not one of ours", 0);
    return explanation("known-exit-code", meaning, 90);
  },
};
