// What the status page says to the server and hears from it. The token goes into a header, so that it is in no address.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const SILENCE_MS = 10_000;
const TIMEOUT_MS = 15_000;
const STORED = "pushd.status.token";

/** Where the server's other paths begin: it may be behind a proxy that gives it a path of its own. */
const base = new URL("..", import.meta.url);

/** An answer that is an error; `isAboutRights` if another token might change it. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  get isAboutRights() {
    return this.status === 401 || this.status === 403;
  }
}

async function refusalOf(response) {
  const text = await response.text();
  let detail;
  try {
    detail = JSON.parse(text).detail;
  } catch {
    // Not of pushd: perhaps of a proxy in front of it.
  }
  return new Refusal(response.status, `${response.status}: ${detail ?? (text.slice(0, 300) || response.statusText)}`);
}

/** The token that is shown, if there is one: in this tab only, and gone with it. */
export const token = {
  get: () => sessionStorage.getItem(STORED),
  set: (text) => sessionStorage.setItem(STORED, text),
  forget: () => sessionStorage.removeItem(STORED),
  /** Tell whether `text` may be one: RFC 6750, section 2.1. */
  isOne: (text) => /^[A-Za-z0-9._~+/-]+=*$/.test(text),
};

/** Make a request to `path`, which has no slash at its beginning; answer the response, or throw a Refusal. */
export async function request(path, { signal = AbortSignal.timeout(TIMEOUT_MS), ...options } = {}) {
  const shown = token.get();
  const headers = shown === null ? {} : { Authorization: `Bearer ${shown}` };
  const response = await fetch(new URL(path, base), { ...options, headers, signal, cache: "no-store" });
  if (!response.ok) throw await refusalOf(response);
  return response;
}

/** Answer the events of an event stream: `{type, data}` (WHATWG HTML, section 9.2; pushd ends its lines with LF). */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = block.split("\n").map((line) => /^([a-z]+): (.*)$/.exec(line)).filter(Boolean);
      const data = fields.filter(([, name]) => name === "data").map(([, , text]) => text);
      if (data.length) yield { type: fields.find(([, name]) => name === "event")?.[2], data: data.join("\n") };
    }
  }
}

/**
 * The figures, each second, for as long as the page is open. Reports to a view: state(name, text), about(facts),
 * figures(figures), lost(text) when there is no connection, and refused(refusal) when there will be none without another
 * token.
 */
export class Feed {
  #view;
  #failures = 0;
  #timer = null;
  #abort = null;

  constructor(view) {
    this.#view = view;
  }

  async open() {
    this.close();
    this.#view.state("connecting", "Connecting");
    const abort = (this.#abort = new AbortController());
    let why;
    try {
      why = await this.#follow(abort);
    } catch (error) {
      if (error instanceof Refusal && error.isAboutRights && abort === this.#abort) {
        this.close();
        this.#view.state("closed", "Not connected");
        return this.#view.refused(error);
      }
      why = error instanceof Refusal ? error.message : (abort.signal.reason?.message ?? "No connection to the server");
    }
    if (abort === this.#abort) this.#retry(why);
  }

  close() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  }

  /** Follow the stream until it ends; answer why it did. */
  async #follow(abort) {
    let why = "The connection to the server has ended";
    const silent = () => abort.abort(new Error(`The server has said nothing for ${SILENCE_MS / 1000} seconds`));
    let watch = setTimeout(silent, SILENCE_MS);
    try {
      const response = await request("status/events", { signal: abort.signal });
      for await (const { type, data } of eventsOf(response)) {
        clearTimeout(watch);
        watch = setTimeout(silent, SILENCE_MS);
        const members = JSON.parse(data);
        if (type === "pushd.about") this.#view.about(members);
        else if (type === "pushd.figures") this.#arrived(members);
        else if (type === "pushd.closed") why = `Closed by the server: ${members.detail}`;
      }
    } finally {
      clearTimeout(watch);
    }
    return why;
  }

  #arrived(figures) {
    this.#failures = 0;
    this.#view.state("open", "Live");
    this.#view.figures(figures);
  }

  /** Connect again after a delay that doubles each time; half of it is random, so that pages do not return all at once. */
  #retry(why) {
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures++);
    this.#view.lost(why);
    this.#countDown(Date.now() + longest * (0.5 + Math.random() / 2));
  }

  #countDown(due) {
    const left = due - Date.now();
    if (left <= 0) return this.open();
    this.#view.state("waiting", `Reconnecting in ${Math.ceil(left / 1000)} s`);
    this.#timer = setTimeout(() => this.#countDown(due), Math.min(left, 250));
  }
}
