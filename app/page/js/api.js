// Requests to this server: JSON, and lines of JSON as they come. Errors are what the server says, in one line.

const KEY = "ref-engine.key";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let askForKey = async () => null;
let asking = null;

/** `ask(problem)` shows a dialog and gives the key or null; it is called where the server wants one. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

async function call(path, options) {
  let key = sessionStorage.getItem(KEY);
  for (;;) {
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("the server does not answer", 0);
    }
    if (response.ok) return response;
    const message = await problem(response);
    if (response.status !== 401) throw new ApiError(message, response.status);
    const newer = sessionStorage.getItem(KEY); // another request may have asked meanwhile
    if (newer !== key) {
      key = newer;
      continue;
    }
    asking ??= askForKey(key ? "this key is not the server's" : null).finally(() => (asking = null));
    key = await asking;
    if (key === null) throw new ApiError(message, 401);
    sessionStorage.setItem(KEY, key);
  }
}

async function problem(response) {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : error.message;
  } catch {
    return `status ${response.status} from the server`;
  }
}

export async function get(path) {
  return (await call(path, {})).json();
}

const posting = (body, signal) => ({
  method: "POST",
  body: JSON.stringify(body),
  headers: { "Content-Type": "application/json" },
  signal,
});

export async function post(path, body, signal) {
  return (await call(path, posting(body, signal))).json();
}

/** The objects of a stream, one a line. A line that is an error ends it with that error. */
export async function* lines(path, body, signal) {
  const response = await call(path, posting(body, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await read(reader);
    const parts = (rest + (value ?? "")).split("\n");
    rest = done ? "" : parts.pop();
    for (const part of parts) if (part.trim()) yield parsed(part);
    if (done) return;
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the connection was cut", 0);
  }
}

function parsed(line) {
  let value;
  try {
    value = JSON.parse(line);
  } catch {
    throw new ApiError("the server's answer was cut", 0);
  }
  if (value.error) throw new ApiError(value.error, 200);
  return value;
}
