"""Counts the files that were opened below each top folder."""

import json

from wit_world import exports
from wit_world.exports import lifecycle, reporter
from wit_world.imports import configuration, documents, types

OPEN = 16
folders: dict[str, int] = {}
at_least = 1


class Lifecycle(exports.Lifecycle):
    def describe(self) -> lifecycle.Description:
        return lifecycle.Description("top-folders", "0.1.0")

    def start(self, context: lifecycle.Context) -> None:
        """What is raised as `Err` here is a sentence for the operator."""
        global at_least
        at_least = json.loads(configuration.json()).get("at_least", 1)
        folders.clear()


class Reporter(exports.Reporter):
    def on_batch(self, batch: types.Batch) -> None:
        for event in batch.events:
            if event.kind != OPEN or event.outcome != 0:
                continue
            start = event.path.offset
            path = batch.text[start : start + event.path.length]
            folder = "/" + path.decode(errors="backslashreplace").split("/")[1]
            folders[folder] = folders.get(folder, 0) + 1

    def on_tick(self, tick: reporter.Tick) -> None:
        shown = {name: files for name, files in sorted(folders.items()) if files >= at_least}
        documents.emit("report", json.dumps(shown, separators=(",", ":")).encode())
