"""Explains exit codes in the words of those who run the program."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import explainer, lifecycle
from wit_world.imports import configuration

meanings: dict[int, str] = {}


class Lifecycle(exports.Lifecycle):
    def describe(self) -> lifecycle.Description:
        return lifecycle.Description("exit-codes", "0.1.0")

    def start(self, context: lifecycle.Context) -> None:
        """What is raised as `Err` here is a sentence for the operator."""
        default = {"78": "Its configuration is wrong"}
        codes = json.loads(configuration.json()).get("codes", default)
        meanings.clear()
        for code, meaning in codes.items():
            if not code.isdecimal() or int(code) > 255:
                raise Err(f"`{code}` in `config.codes` is no exit code: 0 to 255 are")
            meanings[int(code)] = meaning


def explanation(verdict: str, headline: str, confidence: int) -> explainer.Explanation:
    return explainer.Explanation(
        verdict=verdict,
        headline=headline,
        explanation="",
        confidence=confidence,
        rests_on=[],
        missing=[],
        advice=[],
    )


class Explainer(exports.Explainer):
    def explain(self, death: explainer.Death) -> explainer.Explanation:
        """The status is as `wait` reports it. After `unknown` the next explainer is asked."""
        if death.status & 0x7F != 0:
            return explanation("unknown", "It did not exit by itself", 0)
        meaning = meanings.get(death.status >> 8 & 0xFF)
        if meaning is None:
            return explanation("unknown", "That is not one of ours", 0)
        return explanation("known-exit-code", meaning, 90)
