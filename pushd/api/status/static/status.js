// The status page: figures that come each second, what has channels and connections, and a form that publishes.

import { Feed, Refusal, request, token } from "./client.js";
import { Figure, Rows, bytes, cell, count, duration, element, isolated, milliseconds, rate, row } from "./views.js";

const FEW_CHANNELS = 10;
const PAGE = 25;
const LIST_EVERY_MS = 5000;

const $ = (id) => document.getElementById(id);

let about = null;
let latest = null;
let isPaused = false;

function say(text) {
  $("announce").textContent = text;
}

// ---- figures

const per = (name) => (now, before) => {
  const elapsed = before && now.seconds - before.seconds;
  return elapsed > 0 && now[name] >= before[name] ? (now[name] - before[name]) / elapsed : null;
};
const asIs = (name) => (now) => now[name];

/** Answer how long something took on average, in seconds, since the figures before; null if it did not happen. */
const took = (name) => (now, before) => {
  const times = before ? now[name].count - before[name].count : 0;
  return times > 0 ? Math.max(0, now[name].sum - before[name].sum) / times : null;
};

function transports(now) {
  return Object.entries(now.transports).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, number]) => `${name} ${count(number)}`).join(", ");
}

const unsent = ({ missed }) => (missed ? `${count(missed)} not sent to slow clients` : "no client was too slow");

/** Each figure: what it is called, its value of the figures now and before, how that is written, and what stands below it. */
const FIGURES = [
  ["Subscribers", asIs("subscribers"), count, transports],
  ["Connections", asIs("connections"), count, () => "of any kind, this page too"],
  ["Published per second", per("published"), rate, (now) => `${count(now.published)} since the start`],
  ["Delivered per second", per("delivered"), rate, (now) => `${count(now.delivered)} since the start`],
  ["Sent per second", per("written_bytes"), bytes, (now) => `${bytes(now.written_bytes)} since the start`],
  ["Time to deliver", took("latency"), milliseconds, () => "from publishing to the last write"],
  ["Lag of the reactor", took("lag"), milliseconds, () => "everything waits so long"],
  ["Waiting in outboxes", asIs("outbox_bytes"), bytes, unsent],
  ["Channels", asIs("channels"), count, (now) => `${bytes(now.history_bytes)} kept`],
  ["Store", asIs("store_bytes"), bytes, (now) => (now.store_bytes ? "on disk" : "in memory only")],
].map(([name, value, format, note]) => ({ value, note, figure: new Figure(name, format) }));

let before = null;

function addFigures(now) {
  for (const { value, figure } of FIGURES) figure.add(value(now, before));
  before = now;
}

function showFigures() {
  for (const { note, figure } of FIGURES) figure.show(note(latest));
  const lasts = about ? `, up ${duration(latest.time - about.began)}` : "";
  $("about").textContent = `${location.host}${about ? `, pushd ${about.version}` : ""}${lasts}`;
}

// ---- channels

let showsAllChannels = false;

function choose(channel) {
  $("channel").value = channel;
  for (const field of $("filter").querySelectorAll("input, select")) field.value = "";
  $("by-channel").value = channel;
  list(null);
  say(`Channel ${channel} chosen: its connections are listed.`);
}

const channels = new Rows($("channels"), ({ key }) => {
  const name = element("button", "name", isolated(key));
  name.type = "button";
  name.onclick = () => choose(key);
  const first = cell("");
  first.append(name);
  const [often, subscribers, kept, size] = ["events/s", "subscribers", "kept", "size"].map((text) => cell("number", text));
  return {
    node: row(first, often, subscribers, kept, size),
    update({ busy }) {
      often.textContent = rate(busy.rate);
      subscribers.textContent = count(busy.subscribers);
      kept.textContent = count(busy.retained);
      size.textContent = bytes(busy.bytes);
    },
  };
});

function showChannels() {
  const { busiest, channels: all } = latest;
  const shown = showsAllChannels ? busiest : busiest.slice(0, FEW_CHANNELS);
  channels.show(shown.map((busy) => ({ key: busy.channel, busy })));
  $("no-channels").hidden = busiest.length > 0;
  const more = $("more-channels");
  more.hidden = busiest.length <= FEW_CHANNELS;
  more.setAttribute("aria-expanded", showsAllChannels);
  more.textContent = showsAllChannels ? `Show ${FEW_CHANNELS}` : `Show ${busiest.length} of ${count(all)}`;
}

// ---- connections

let asked = {};
let following = null;
let isListing = false;

const connections = new Rows($("connections"), ({ key, subscriber }) => {
  const id = cell("mono short");
  id.append(key, ...(key === about?.connection ? [" ", element("span", "muted", "(this page)")] : []));
  const [transport, user, address] = [cell("short"), cell("", "user"), cell("mono address")];
  const [age, outbox] = ["age", "outbox"].map((text) => cell("number", text));
  const [where, act] = [cell("mono", "channels"), cell("act")];
  const close = element("button", "small", "Close");
  close.type = "button";
  close.setAttribute("aria-label", `Close ${key}`);
  close.onclick = () => askToClose(key, subscriber);
  act.append(close);
  const node = row(id, transport, user, address, age, outbox, where, act);
  node.classList.toggle("own", key === about?.connection);
  let shown = null;
  return {
    node,
    update({ subscriber: now, time }) {
      age.textContent = duration(time - now.since);
      outbox.textContent = bytes(now.outbox_bytes);
      const text = JSON.stringify([now.transport, now.user, now.address, now.channels]);
      if (text === shown) return;
      shown = text;
      transport.textContent = now.transport;
      user.replaceChildren(now.user === null ? "–" : isolated(now.user));
      address.textContent = now.address;
      where.replaceChildren(...channelNames(now.channels));
    },
  };
});

function channelNames(names) {
  if (!names.length) return ["–"];
  const few = names.slice(0, 3).flatMap((name, place) => [place ? ", " : "", isolated(name)]);
  return names.length > 3 ? [...few, ` and ${count(names.length - 3)} more`] : few;
}

function query(members) {
  return new URLSearchParams(Object.entries(members).filter(([, value]) => value !== null && value !== "")).toString();
}

function showListed(text, isGood = true) {
  if ($("listed").textContent !== text) $("listed").textContent = text;
  $("listed").classList.toggle("bad", !isGood);
}

/** List the connections from `after` on, null for the first page. */
async function list(after) {
  asked = { ...Object.fromEntries(new FormData($("filter"))), after };
  await listAgain();
}

async function listAgain() {
  const wanted = asked;
  isListing = true;
  try {
    const response = await request(`connections?${query({ ...wanted, limit: PAGE })}`);
    const found = await response.json();
    if (wanted !== asked) return;
    following = found.next;
    const time = latest?.time ?? Date.now() / 1000;
    connections.show(found.connections.map((subscriber) => ({ key: subscriber.connection, subscriber, time })));
    $("no-connections").hidden = found.connections.length > 0;
    $("first").hidden = !wanted.after;
    $("next").hidden = following === null;
    showListed(following === null && !wanted.after ? "" : `${PAGE} to a page, the oldest first`);
  } catch (error) {
    if (wanted === asked) showListed(`Not listed. ${error.message}`, false);
  } finally {
    isListing = false;
  }
}

let toClose = null;

function askToClose(key, subscriber) {
  toClose = key;
  const who = subscriber.user === null ? [] : [", ", isolated(subscriber.user)];
  $("closing-what").replaceChildren(key, ", ", subscriber.transport, ", ", subscriber.address, ...who);
  $("closing").showModal();
}

async function closeIt() {
  const key = toClose;
  $("closing").close();
  try {
    await request(`connections/${encodeURIComponent(key)}`, { method: "DELETE" });
    say(`Closed ${key}.`);
    await listAgain();
    showListed(`Closed ${key}.`);
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) return listAgain();
    showListed(`Not closed. ${error.message}`, false);
  }
}

// ---- publishing

async function publish() {
  const [channel, type, data] = [$("channel").value, $("event").value, $("data").value];
  const path = `channels/${encodeURIComponent(channel)}${type && `?event=${encodeURIComponent(type)}`}`;
  try {
    const { id, offset, subscribers } = await (await request(path, { method: "POST", body: data })).json();
    const audience = subscribers === undefined ? "" : ` to ${count(subscribers)} subscriber${subscribers === 1 ? "" : "s"}`;
    showPublished([`Published ${id} at offset ${count(offset)}${audience}.`], true);
  } catch (error) {
    showPublished(["Not published. ", isolated(error.message)], false);
  }
}

function showPublished(content, isGood) {
  $("published").replaceChildren(...content);
  $("published").classList.toggle("bad", !isGood);
}

// ---- whether there is a connection, and a token

function show(name) {
  $("sign-in").hidden = name !== "sign-in";
  $("status").hidden = name !== "status";
  $("pause").hidden = name !== "status";
  $("sign-out").hidden = name !== "status" || token.get() === null;
}

const view = {
  state(name, text) {
    $("state").dataset.state = name;
    $("state").textContent = text;
  },

  about(facts) {
    about = facts;
    before = null;
    $("publishing").hidden = !facts.publishes;
  },

  figures(figures) {
    const isFirst = $("status").hidden;
    latest = figures;
    addFigures(figures);
    $("stale").hidden = true;
    delete $("status").dataset.stale;
    if (isFirst) {
      show("status");
      say("Connected.");
      list(null);
    }
    if (!isPaused || isFirst) showAll();
  },

  lost(text) {
    before = null;
    for (const { figure } of FIGURES) figure.add(null);
    $("status").dataset.stale = "";
    $("stale").textContent = latest ? `${text}. What you see is from ${new Date(latest.time * 1000).toLocaleTimeString()}.` : `${text}.`;
    $("stale").hidden = false;
    say(text);
  },

  refused(refusal) {
    $("stale").hidden = true;
    const isShown = token.get() !== null;
    if (refusal.status === 401) token.forget();
    askForToken(isShown || refusal.status === 403 || latest !== null ? refusal.message : "");
  },
};

function showAll() {
  showFigures();
  showChannels();
}

function askForToken(why) {
  if ($("closing").open) $("closing").close();
  show("sign-in");
  $("refusal").hidden = !why;
  $("refusal").replaceChildren(isolated(why));
  $("token").value = "";
  $("token").focus();
}

function signIn() {
  const text = $("token").value.trim().replace(/^Bearer +/i, "");
  if (!token.isOne(text)) return askForToken("That is no token: it has letters, digits and -._~+/ only.");
  token.set(text);
  feed.open();
}

function showProblem(text) {
  $("problem").textContent = `Something went wrong in this page: ${text}`;
  $("problem").hidden = false;
}

addEventListener("error", (event) => showProblem(event.message));
addEventListener("unhandledrejection", (event) => showProblem(event.reason?.message ?? event.reason));

const feed = new Feed(view);
$("figures").append(...FIGURES.map(({ figure }) => figure.node));
$("sign-in").onsubmit = (event) => {
  event.preventDefault();
  signIn();
};
$("sign-out").onclick = () => {
  token.forget();
  location.reload();
};
$("pause").onclick = () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", isPaused);
  if (!isPaused && latest) showAll();
};
$("more-channels").onclick = () => {
  showsAllChannels = !showsAllChannels;
  showChannels();
};
$("filter").onsubmit = (event) => {
  event.preventDefault();
  list(null);
};
$("filter").onreset = () => setTimeout(() => list(null));
$("first").onclick = () => list(null);
$("next").onclick = () => list(following);
$("publish").onsubmit = (event) => {
  event.preventDefault();
  publish();
};
$("keep").onclick = () => $("closing").close();
$("close").onclick = closeIt;
setInterval(() => {
  const isSeen = !$("status").hidden && !document.hidden && !isPaused && !("stale" in $("status").dataset);
  if (isSeen && !isListing) listAgain();
}, LIST_EVERY_MS);
feed.open();
