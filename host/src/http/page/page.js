"use strict";

// Reads the API once a second and shows what it says. Text of containers is only ever put in as text.

const LOOK_EVERY_MS = 1000;
const FILES_EVERY_LOOKS = 5;
let token = sessionStorage.getItem("token") || "";
let shownFiles = null;
let shownDeath = null;
let looks = 0;

const byId = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

async function ask(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.status === 401) {
    throw Object.assign(new Error("locked"), { locked: true });
  }
  const body = await answer.json();
  if (!answer.ok) {
    throw new Error(body.error || `status ${answer.status}`);
  }
  return body;
}

function clock(moment) {
  return moment ? new Date(moment).toLocaleTimeString() : "none yet";
}

function number(value) {
  return element("td", { className: "number" }, (value || 0).toLocaleString());
}

function lostOf(container) {
  return Object.entries(container.counters)
    .filter(([name]) => name.startsWith("lost."))
    .reduce((sum, [, value]) => sum + value, 0);
}

// Rows are kept and only their cells replaced, so that the focus stays where it is.
function fill(body, items, key, cells) {
  const rows = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const heads = [...body.parentElement.tHead.rows[0].cells].map((head) => head.textContent);
  items.forEach((item, index) => {
    const name = key(item);
    const row = rows.get(name) || element("tr");
    row.dataset.key = name;
    rows.delete(name);
    cells(item).forEach((cell, at) => {
      // Shown beside the value where the window is too narrow for columns.
      cell.dataset.label = heads[at];
      const old = row.children[at];
      if (!old) {
        row.append(cell);
      } else if (!old.isEqualNode(cell) && !old.contains(document.activeElement)) {
        old.replaceWith(cell);
      }
    });
    if (body.children[index] !== row) {
      body.insertBefore(row, body.children[index] || null);
    }
  });
  rows.forEach((row) => row.remove());
}

function containerCells(container) {
  const lost = lostOf(container);
  const show = element("button", { type: "button" }, "Show");
  show.setAttribute("aria-label", `Show the files of ${container.name}`);
  show.addEventListener("click", () => showFiles(container));
  const quiet = container.quiet ? element("span", { className: "note" }, container.quiet) : null;
  const runtime = element("span", { className: "note" }, container.runtime);
  return [
    element("th", { scope: "row" }, container.name, runtime),
    element("td", {}, show),
    number(container.counters.received),
    number(container.counters.admitted),
    element("td", { className: lost ? "number bad" : "number" }, lost.toLocaleString()),
    element("td", { className: "time" }, clock(container.last_event), quiet),
  ];
}

function pluginCells(plugin) {
  const faults = Object.values(plugin.faults).reduce((sum, value) => sum + value, 0);
  const good = plugin.state === "running";
  return [
    element("th", { scope: "row" }, plugin.name),
    element("td", { className: good ? "good" : "bad" }, plugin.state),
    number(plugin.events),
    number(plugin.dropped),
    number(faults),
    element("td", {}, plugin.reason || plugin.last_swap_failure || plugin.last_error || ""),
  ];
}

function unseen(status) {
  const probes = status.probes
    .filter((probe) => !probe.live && probe.tier !== "exact")
    .map((probe) => `Nobody sees ${probe.sees}: ${probe.reason}`);
  const losses = Object.entries(status.losses).map(([reason, value]) => `${reason}: ${value}`);
  const outputs = status.outputs
    .filter((output) => output.last_error)
    .map((output) => `${output.plugin}/${output.output} is not written: ${output.last_error}`);
  const all = [...probes, ...losses, ...outputs];
  return all.length ? all : ["Every probe is live, and nothing was lost that belongs to no container."];
}

async function showFiles(container) {
  const title = byId("files-title");
  byId("files-section").hidden = false;
  title.textContent = `Files of ${container.name}`;
  title.focus();
  shownFiles = container.id;
  await refreshFiles();
}

async function refreshFiles() {
  if (shownFiles === null) {
    return;
  }
  try {
    const found = await ask(`api/v1/containers/${shownFiles}/files`);
    const files = found.files;
    byId("files-about").textContent =
      `${files.length.toLocaleString()} files, as the plugin ${found.plugin} reported at ${clock(found.as_of)}.`;
    byId("files").replaceChildren(...files.map((path) => element("li", {}, path)));
  } catch (error) {
    byId("files-about").textContent = error.message;
    byId("files").replaceChildren();
  }
}

function deathItem(death) {
  const sure = death.verdict ? `${death.verdict}, ${death.confidence} % sure` : "unexplained";
  const details = element("details", {}, element("summary", {}, death.headline));
  if (death.explanation) {
    details.append(element("p", {}, death.explanation));
  }
  details.append(element("ul", {}, ...death.advice.map((advice) => element("li", {}, advice))));
  const about = `${death.container}: ${death.process} (pid ${death.pid}), ${death.ended}; ${sure}`;
  const time = element("time", { dateTime: death.at }, clock(death.at));
  const item = element("li", {}, time, details, element("span", { className: "note" }, about));
  item.dataset.key = death.id;
  return item;
}

// Asked for only when there is another one. Items that are there stay, opened or not.
async function refreshDeaths(deaths) {
  const newest = deaths.newest ? deaths.newest.id : null;
  if (newest === null || newest === shownDeath) {
    return;
  }
  const list = byId("deaths");
  const found = (await ask("api/v1/deaths")).deaths;
  const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
  list.replaceChildren(...found.map((death) => known.get(death.id) || deathItem(death)));
  byId("deaths-count").textContent = found.length;
  byId("deaths-section").hidden = false;
  shownDeath = newest;
}

function show(status) {
  const daemon = status.daemon;
  const memory = daemon.resident_bytes ? `, ${(daemon.resident_bytes / 1048576).toFixed(1)} MiB` : "";
  byId("daemon").textContent =
    `${daemon.version} watches the scope ${daemon.scope} on ${daemon.node_name} since ` +
    `${new Date(daemon.started_at).toLocaleString()}; ${daemon.cpu_seconds.toFixed(1)} s of CPU${memory}`;
  byId("freshness").textContent = "";
  byId("containers-count").textContent = status.containers.length;
  fill(byId("containers"), status.containers, (it) => String(it.id), containerCells);
  fill(byId("plugins"), status.plugins, (it) => it.name, pluginCells);
  byId("losses").replaceChildren(...unseen(status).map((line) => element("li", {}, line)));
}

async function look() {
  try {
    const status = await ask("api/v1/status");
    show(status);
    await refreshDeaths(status.deaths);
    byId("unlock").hidden = true;
    looks += 1;
    if (looks % FILES_EVERY_LOOKS === 0) {
      await refreshFiles();
    }
  } catch (error) {
    if (error.locked) {
      byId("unlock").hidden = false;
      byId("refusal").textContent = token ? "This token is not the daemon's." : "";
    } else {
      byId("freshness").textContent = `The daemon does not answer: ${error.message}`;
    }
  }
  setTimeout(look, LOOK_EVERY_MS);
}

byId("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  sessionStorage.setItem("token", token);
});

look();
