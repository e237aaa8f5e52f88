// The two ways to follow a channel: WebSocketFeed and EventSourceFeed. Each reports to the view that it is given:
// state(name, text), position(id), resumed(since), recovered(yes), error(text) and
// event({id, data, isBase64, type, time, arrivedAt, replayed}), times in ms since 1970. A view answers timeOf(id), if known.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const LOOKUP_TIMEOUT_MS = 3_000;
const NOT_ALLOWED = 1008;

/** Answer what an HTTP error response says was wrong. */
export async function problemOf(response) {
  const text = await response.text();
  const status = `${response.status} ${response.statusText}`.trim();
  try {
    return `${status}: ${JSON.parse(text).detail}`;
  } catch {
    return `${status}: ${text.slice(0, 300)}`;
  }
}

/** Answer the base64 of binary data, which an event stream carries as `{"data_base64":...}`; undefined for anything else. */
function base64Of(data) {
  return /^\{"data_base64":"([A-Za-z0-9+/=]*)"\}$/.exec(data)?.[1];
}

/** Tells the events that are replayed after a reconnect from those that come live. */
class Replay {
  #startedAt = Date.now();
  /** The position of the channel when the replay began, once it is known. */
  head = null;

  includes(id, time) {
    return this.#isUpToHead(id) ?? time < this.#startedAt;
  }

  /** Compare ids of the server's own form, `<epoch>-<sequence>`; of an id that a publisher gave only the time tells. */
  #isUpToHead(id) {
    const [mine, head] = [id, this.head].map((text) => /^([0-9a-z]{10})-(\d+)$/.exec(text));
    return mine && head && mine[1] === head[1] ? Number(mine[2]) <= Number(head[2]) : undefined;
  }
}

/** What the feeds share: the channel, the position to resume from, and trying again. A feed has open() and close(). */
class Feed {
  channel = null;
  position = null;
  replay = null;
  #failures = 0;
  #timer = null;

  constructor(view) {
    this.view = view;
  }

  follow(channel) {
    this.channel = channel;
    this.position = null;
    this.connect();
  }

  connect() {
    this.stop("connecting", "Connecting");
    this.open();
  }

  disconnect() {
    this.stop("closed", "Closed by you");
  }

  stop(state, text) {
    clearTimeout(this.#timer);
    this.close();
    this.view.state(state, text);
  }

  succeeded() {
    this.#failures = 0;
    this.view.state("open", "Open");
  }

  moveTo(position) {
    this.position = position;
    this.view.position(position);
  }

  /** The headers of a request with the token, if there is one. */
  headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  /** What the query has for the token: neither a WebSocket nor an EventSource can send headers. */
  tokenQuery(separator) {
    return this.token ? `${separator}access_token=${encodeURIComponent(this.token)}` : "";
  }

  /** Ask where the channel stands when a replay begins: neither protocol tells which of its events are replayed. */
  async beginReplay() {
    const replay = (this.replay = new Replay());
    try {
      const url = `/channels/${encodeURIComponent(this.channel)}`;
      const response = await fetch(url, { headers: this.headers(), signal: AbortSignal.timeout(LOOKUP_TIMEOUT_MS) });
      if (!response.ok) throw new Error(await problemOf(response));
      replay.head = (await response.json()).position;
    } catch (error) {
      this.view.error(`Replayed events may lack their mark: ${error.message}`);
    }
  }

  /** Connect again after a delay that doubles each time; half of it is random, so that clients do not return all at once. */
  retry() {
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures++);
    this.#countDown(Date.now() + longest * (0.5 + Math.random() / 2));
  }

  #countDown(due) {
    const left = due - Date.now();
    if (left <= 0) return this.connect();
    this.stop("waiting", `Reconnecting in ${Math.ceil(left / 1000)} s`);
    this.#timer = setTimeout(() => this.#countDown(due), Math.min(left, 250));
  }
}

export class WebSocketFeed extends Feed {
  #socket = null;
  #lastRef = 0;
  #subscribeRef = 0;
  #answers = new Map();

  open() {
    const socket = (this.#socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws${this.tokenQuery("?")}`));
    socket.onopen = () => this.#subscribe(socket);
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = (event) => this.#closed(event);
  }

  close() {
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    }
    this.#socket = null;
    for (const { reject } of this.#answers.values()) reject(new Error("The WebSocket closed before the answer came."));
    this.#answers.clear();
  }

  /** Publish to the channel; answer the server's `published` message. */
  publish(data, event) {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      return Promise.reject(new Error("The WebSocket is not open: connect it first, or publish over HTTP."));
    }
    const ref = this.#send({ type: "publish", channel: this.channel, data, ...(event && { event }) });
    return new Promise((resolve, reject) => this.#answers.set(ref, { resolve, reject }));
  }

  #send(message) {
    const ref = ++this.#lastRef;
    this.#socket.send(JSON.stringify({ ...message, ref }));
    return ref;
  }

  async #subscribe(socket) {
    const since = this.position;
    this.replay = null;
    if (since) {
      this.view.resumed(since);
      await this.beginReplay();
      if (socket !== this.#socket) return;
    }
    this.#subscribeRef = this.#send({ type: "subscribe", channel: this.channel, ...(since && { since }) });
  }

  #receive(message) {
    if (message.type === "event") this.#event(message);
    else if (message.type === "subscribed") this.#subscribed(message);
    else if (message.type === "published") this.#takeAnswer(message.ref)?.resolve(message);
    else if (message.type === "error") this.#refused(message);
    else if (message.type === "unsubscribed") this.#lost(`Unsubscribed by the server: ${message.detail ?? "no reason given"}`);
  }

  #event({ id, position = id, data, data_base64: base64, event: type, time: seconds }) {
    const time = seconds * 1000;
    const replayed = this.replay?.includes(position, time) ?? false;
    this.moveTo(position);
    this.view.event({ id, data: data ?? base64, isBase64: data === undefined, type, time, arrivedAt: Date.now(), replayed });
  }

  #subscribed({ position, recovered }) {
    if (this.replay) this.view.recovered(recovered);
    this.moveTo(position);
    this.succeeded();
  }

  #refused({ ref, status, detail }) {
    const text = `${status}: ${detail}`;
    const answer = this.#takeAnswer(ref);
    if (answer) return answer.reject(new Error(text));
    this.view.error(text);
    if (ref === this.#subscribeRef) this.stop("closed", "Refused");
  }

  #takeAnswer(ref) {
    const answer = this.#answers.get(ref);
    this.#answers.delete(ref);
    return answer;
  }

  #closed({ code, reason }) {
    // 1006 is the browser's own code for a connection that failed, or ended without a close frame.
    this.#lost(code === 1006 ? "No connection (1006)" : `Closed by the server: ${code} ${reason}`);
    if (code === NOT_ALLOWED) this.stop("closed", "Refused");
  }

  #lost(text) {
    this.view.error(text);
    this.retry();
  }
}

export class EventSourceFeed extends Feed {
  #source = null;
  #types = new Set(["message"]);
  #isAgain = false;
  #ready = Promise.resolve();

  open() {
    const since = this.position ? `&since=${encodeURIComponent(this.position)}` : "";
    const source = (this.#source = new EventSource(`/sse?channel=${encodeURIComponent(this.channel)}${since}${this.tokenQuery("&")}`));
    this.#isAgain = Boolean(since);
    // An event of type "open" or "error" comes to the same listeners as the EventSource's own, as a MessageEvent.
    source.onopen = (event) => {
      if (event instanceof MessageEvent) return;
      this.#opened();
    };
    source.onerror = (event) => {
      if (!(event instanceof MessageEvent)) this.#failed(source);
    };
    source.addEventListener("pushd.open", (event) => this.#began(event));
    source.addEventListener("pushd.closed", (event) => this.view.error(`Closed by the server: ${JSON.parse(event.data).detail}`));
    for (const type of this.#types) source.addEventListener(type, this.#receive);
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }

  /** Hear events of `type` from now on: an EventSource drops those that nobody asked for. Answer all the types. */
  listen(type) {
    this.#types.add(type);
    this.#source?.addEventListener(type, this.#receive);
    return [...this.#types];
  }

  #opened() {
    this.succeeded();
    this.replay = null;
    this.#ready = Promise.resolve();
    if (!this.#isAgain) return;
    this.view.resumed(this.position);
    this.#ready = this.beginReplay();
  }

  /** The stream says where it begins, and whether anything since the position that was asked for is missing. */
  #began({ data, lastEventId }) {
    const { recovered } = JSON.parse(data);
    if (this.#isAgain) this.view.recovered(recovered);
    if (!recovered) this.moveTo(lastEventId);
    this.#isAgain = true;
  }

  #receive = async (message) => {
    if (!(message instanceof MessageEvent)) return;
    const { lastEventId: id, data, type } = message;
    const [arrivedAt, replay] = [Date.now(), this.replay];
    await this.#ready;
    // Closed meanwhile: the position has not moved, so the event comes again with the next stream.
    if (message.target !== this.#source) return;
    this.moveTo(id);
    const replayed = replay?.includes(id, this.view.timeOf(id)) ?? false;
    const base64 = base64Of(data);
    this.view.event({
      id, data: base64 ?? data, isBase64: base64 !== undefined, type: type === "message" ? undefined : type, arrivedAt, replayed,
    });
  };

  /** The browser reconnects by itself, when it thinks fit, after a lost connection; but never after an error response. */
  async #failed(source) {
    this.view.state("waiting", "Reconnecting soon");
    if (source.readyState !== EventSource.CLOSED) return this.view.error("No connection: the browser tries again by itself");
    const { text, isFinal } = await this.#explain(source.url);
    if (source !== this.#source) return;
    this.view.error(text);
    if (isFinal) this.stop("closed", "Refused");
    else this.retry();
  }

  /** Request the stream once more for the error response that an EventSource keeps to itself. */
  async #explain(url) {
    const abort = new AbortController();
    try {
      const response = await fetch(url, { signal: abort.signal });
      if (response.ok) return { text: "The stream failed", isFinal: false };
      return { text: await problemOf(response), isFinal: response.status < 500 && response.status !== 429 };
    } catch (error) {
      return { text: `No connection: ${error.message}`, isFinal: false };
    } finally {
      abort.abort();
    }
  }
}
