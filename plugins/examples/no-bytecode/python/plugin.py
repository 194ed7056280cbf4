"""Drops events about files whose names end as nobody wants to see them."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import filter as filters
from wit_world.exports import lifecycle
from wit_world.imports import configuration, types

endings: tuple[bytes, ...] = ()


class Lifecycle(exports.Lifecycle):
    def describe(self) -> lifecycle.Description:
        return lifecycle.Description("no-bytecode", "0.1.0")

    def start(self, context: lifecycle.Context) -> None:
        """What is raised as `Err` here is a sentence for the operator."""
        global endings
        texts = json.loads(configuration.json()).get("endings", [".pyc"])
        if "" in texts:
            raise Err("an empty text in `config.endings` would drop everything")
        endings = tuple(text.encode() for text in texts)


class Filter(exports.Filter):
    def on_batch(self, batch: types.Batch) -> list[filters.Verdict]:
        """One verdict an event, in their order."""

        def verdict(event: types.Event) -> filters.Verdict:
            # Paths are bytes.
            path = batch.text[event.path.offset : event.path.offset + event.path.length]
            return filters.Verdict_Drop() if path.endswith(endings) else filters.Verdict_Keep()

        return [verdict(event) for event in batch.events]
