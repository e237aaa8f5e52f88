// The demo page: two panes that follow one channel, and a form that publishes to it.

import { EventSourceFeed, WebSocketFeed, problemOf } from "./feeds.js";

const MOST_EVENTS = 200;
const MOST_ORIGINS = 1000;
const BRIEF_LINES = 6;
const BRIEF_CHARACTERS = 280;

const $ = (id) => document.getElementById(id);

/** What is known of an event beyond its stream, by id: its `time`, and when this page sent it (`sentAt`), both in ms. */
const origins = new Map();

function learn(id, facts) {
  origins.set(id, { ...origins.get(id), ...facts });
  if (origins.size > MOST_ORIGINS) origins.delete(origins.keys().next().value);
  panes.forEach((pane) => pane.refresh(id));
}

function element(name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const clockText = (ms) => `${clock.format(ms)}.${String(Math.floor(ms) % 1000).padStart(3, "0")}`;

function duration(ms) {
  if (Math.abs(ms) < 1000) return `${Math.round(ms)} ms`;
  if (Math.abs(ms) < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** Say when an event was published and how long it took, and on what grounds. */
function timing({ id, arrivedAt, replayed }) {
  const { time, sentAt } = origins.get(id) ?? {};
  if (time !== undefined) return [clockText(time), `${duration(arrivedAt - time)}${replayed ? " later" : ""}`];
  if (sentAt !== undefined) return [`arrived ${clockText(arrivedAt)}`, `${duration(arrivedAt - sentAt)} since sent here`];
  return [`arrived ${clockText(arrivedAt)}`, "latency unknown"];
}

function brief(text) {
  const start = text.split("\n", BRIEF_LINES).join("\n").slice(0, BRIEF_CHARACTERS);
  return start.length < text.length ? `${start.replace(/[\uD800-\uDBFF]$/, "")}…` : text;
}

function expander(data, text) {
  const button = element("button", "small expand");
  const show = (isWhole) => {
    data.textContent = isWhole ? text : brief(text);
    button.textContent = isWhole ? "Show less" : `Show all ${text.length.toLocaleString("en")} characters`;
    button.setAttribute("aria-expanded", isWhole);
  };
  button.type = "button";
  button.onclick = () => show(button.getAttribute("aria-expanded") !== "true");
  show(false);
  return button;
}

function eventItem(event) {
  const item = element("li", "event");
  const meta = element("p", "meta");
  const data = element("p", "data mono", event.data);
  item.dataset.id = event.id;
  meta.append(element("time", ""), element("span", "latency"));
  if (event.replayed) {
    item.dataset.replayed = "";
    meta.append(element("span", "tag", "replayed"));
  }
  if (event.type !== undefined) meta.append(element("span", "tag type", event.type));
  if (event.isBase64) meta.append(element("span", "tag", "binary, as base64"));
  meta.append(element("span", "id mono", event.id));
  item.append(meta, data);
  if (brief(event.data) !== event.data) item.append(expander(data, event.data));
  return item;
}

/** One feed on the page. */
class Pane {
  #name;
  #title;
  #divider = null;
  #lastError = {};
  #shown = new Map();

  constructor(name, title) {
    this.#name = name;
    this.#title = title;
  }

  #part(name) {
    return $(`${this.#name}-${name}`);
  }

  state(state, text) {
    const label = this.#part("state");
    if (label.dataset.state !== state) $("announce").textContent = `${this.#title}: ${text}`;
    label.dataset.state = state;
    label.textContent = text;
    this.#part("toggle").textContent = { closed: "Connect", waiting: "Connect now" }[state] ?? "Disconnect";
  }

  position(id) {
    this.#part("position").textContent = id;
  }

  timeOf(id) {
    return origins.get(id)?.time ?? origins.get(id)?.sentAt;
  }

  event(event) {
    if (event.time !== undefined) learn(event.id, { time: event.time });
    if (event.type !== undefined) listen(event.type);
    const item = eventItem(event);
    this.#shown.set(event.id, { item, event });
    this.refresh(event.id);
    this.#add(item);
  }

  /** Show the timing of an event by what is known now. */
  refresh(id) {
    const { item, event } = this.#shown.get(id) ?? {};
    if (item) [item.querySelector("time").textContent, item.querySelector(".latency").textContent] = timing(event);
  }

  resumed(since) {
    this.#divider = { item: element("li", "notice"), since: since ?? "the position of the stream" };
    this.#divider.item.textContent = `resumed after ${this.#divider.since}`;
    this.#add(this.#divider.item);
  }

  recovered(isRecovered) {
    if (!this.#divider) this.resumed(null);
    const { item, since } = this.#divider;
    item.classList.toggle("bad", !isRecovered);
    item.textContent = `resumed after ${since}: ${isRecovered ? "recovered" : "position lost: some events are gone"}`;
  }

  /** Show an error; the same one again is counted rather than repeated, so that an outage does not push out the events. */
  error(text) {
    const last = this.#lastError;
    if (last.text !== text || this.#part("events").firstChild !== last.item) {
      this.#lastError = { text, count: 1, item: element("li", "notice bad", text) };
      return this.#add(this.#lastError.item);
    }
    last.item.textContent = `${text} (${++last.count} times)`;
  }

  #add(item) {
    const list = this.#part("events");
    list.prepend(item);
    const events = list.getElementsByClassName("event");
    while (events.length > MOST_EVENTS || list.childElementCount > 2 * MOST_EVENTS) {
      this.#shown.delete(list.lastElementChild.dataset.id);
      list.lastElementChild.remove();
    }
  }

  clear() {
    this.#part("events").replaceChildren();
    this.#part("position").textContent = "none yet";
    this.#shown.clear();
    this.#divider = null;
  }

  steer(feed) {
    this.#part("toggle").onclick = () => {
      const isOn = ["connecting", "open"].includes(this.#part("state").dataset.state);
      if (isOn) feed.disconnect();
      else feed.connect();
    };
  }
}

const panes = [new Pane("ws", "WebSocket"), new Pane("sse", "EventSource")];
const ws = new WebSocketFeed(panes[0]);
const sse = new EventSourceFeed(panes[1]);
let channel;

function listen(type) {
  $("sse-types").textContent = sse.listen(type).join(", ");
}

function follow(name) {
  channel = name;
  $("channel").value = name;
  $("current-channel").textContent = name;
  history.replaceState(null, "", `?channel=${encodeURIComponent(name)}`);
  panes.forEach((pane) => pane.clear());
  [ws, sse].forEach((feed) => feed.follow(name));
  showCurl();
}

function publishPath() {
  const type = $("event").value;
  return `/channels/${encodeURIComponent(channel)}${type && `?event=${encodeURIComponent(type)}`}`;
}

async function publishOverHttp(data) {
  const response = await fetch(publishPath(), { method: "POST", body: data, headers: ws.headers() });
  if (!response.ok) throw new Error(await problemOf(response));
  return response.json();
}

function answerText({ id, offset, subscribers }, ms) {
  const audience = subscribers === undefined ? "" : ` to ${subscribers} subscriber${subscribers === 1 ? "" : "s"}`;
  return `Published ${id} at offset ${offset}${audience}, answered in ${duration(ms)}.`;
}

async function publish(form) {
  const [data, type, sentAt] = [form.elements.data.value, form.elements.event.value, Date.now()];
  if (type) listen(type);
  try {
    const answer = await (form.elements.way.value === "ws" ? ws.publish(data, type) : publishOverHttp(data));
    learn(answer.id, { sentAt });
    showAnswer(answerText(answer, Date.now() - sentAt), true);
  } catch (error) {
    showAnswer(`Not published. ${error.message}`, false);
  }
}

function showAnswer(text, isGood) {
  $("publish-answer").textContent = text;
  $("publish-answer").classList.toggle("bad", !isGood);
}

const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function showCurl() {
  // The certificate that pushd makes for itself is for this machine only.
  const isOwn = location.protocol === "https:" && /^(localhost|127\.[0-9.]+|\[::1\])$/.test(location.hostname);
  const options = `${isOwn ? "-k " : ""}${$("token").value ? '-H "Authorization: Bearer $TOKEN" ' : ""}`;
  $("curl").textContent = `curl ${options}--data-raw ${shellQuoted($("data").value)} \\\n${shellQuoted(location.origin + publishPath())}`;
}

async function copyCurl() {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch {
    // Over plain HTTP from another machine there is no clipboard: leave the last step to the reader.
    getSelection().selectAllChildren($("curl"));
    $("copy").textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 3000);
}

function showProblem(text) {
  $("problem").textContent = `Something went wrong in this page: ${text}`;
  $("problem").hidden = false;
}

addEventListener("error", (event) => showProblem(event.message));
addEventListener("unhandledrejection", (event) => showProblem(event.reason?.message ?? event.reason));

panes[0].steer(ws);
panes[1].steer(sse);
$("follow").onsubmit = (event) => {
  event.preventDefault();
  [ws, sse].forEach((feed) => (feed.token = $("token").value.trim()));
  follow($("channel").value);
};
$("clock").onclick = () => follow("clock");
$("publish").onsubmit = (event) => {
  event.preventDefault();
  publish(event.target);
};
$("publish").oninput = showCurl;
$("data").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("publish").requestSubmit();
};
$("copy").onclick = copyCurl;
$("token").oninput = showCurl;
follow(new URLSearchParams(location.search).get("channel") || $("channel").value || "demo");
