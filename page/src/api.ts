/** Requests to the service. Its address follows from that of this script, so that it works behind a path prefix. */

import type { ModelSummary, Prediction, Problem } from "./types";

export const ROOT = new URL("..", import.meta.url);
const KEY = "wholetrack-key";

export const key = {
  get: (): string => sessionStorage.getItem(KEY) ?? "",
  set: (value: string): void => sessionStorage.setItem(KEY, value),
  forget: (): void => sessionStorage.removeItem(KEY),
};

export interface LiveEvent { event: string; data: any }

export interface Handlers {
  sent(part: number): void;
  event(event: LiveEvent): void;
  failed(problem: Problem | null, retryAfterS: number | null): void;
}

const authorisation = (): Record<string, string> => (key.get() ? { Authorization: `Bearer ${key.get()}` } : {});

/** Return the served models, or the status of the refusal. */
export async function models(): Promise<ModelSummary[] | number> {
  const response = await fetch(new URL("v1/models", ROOT), { headers: authorisation() });
  return response.ok ? (await response.json()).models : response.status;
}

/**
 * Send a recording and report events until the result, an "error" event or a failure. Returns a function that cancels.
 *
 * XMLHttpRequest, because fetch does not report how much of a body was sent.
 */
export function predict(file: File, model: string, hop: string, topK: number, handlers: Handlers): () => void {
  const url = new URL("v1/predict", ROOT);
  if (model) url.searchParams.set("model", model);
  if (hop) url.searchParams.set("hop_s", hop);
  if (topK) url.searchParams.set("top_k", String(topK));
  const request = new XMLHttpRequest();
  request.open("POST", url);
  request.setRequestHeader("Accept", "application/x-ndjson");
  for (const [name, value] of Object.entries(authorisation())) request.setRequestHeader(name, value);
  let read = 0;
  let finished = false;
  const readLines = () => {
    if (request.status !== 200) return;
    const text = request.responseText;
    for (let end = text.indexOf("\n", read); end >= 0; end = text.indexOf("\n", read)) {
      const event = JSON.parse(text.slice(read, end)) as LiveEvent;
      read = end + 1;
      finished ||= event.event === "result" || event.event === "error";
      handlers.event(event);
    }
  };
  request.upload.onprogress = (event) => { if (event.lengthComputable) handlers.sent(event.loaded / event.total); };
  request.upload.onload = () => handlers.sent(1);
  request.onprogress = readLines;
  request.onload = () => {
    readLines();
    if (finished) return;
    let problem: Problem | null = null;
    try { problem = JSON.parse(request.responseText) as Problem; } catch { /* not a response of the service */ }
    handlers.failed(problem?.code ? problem : null, Number(request.getResponseHeader("Retry-After")) || null);
  };
  request.onerror = () => handlers.failed(null, null);
  const body = new FormData();
  body.append("file", file);
  request.send(body);
  return () => request.abort();
}

export type { Prediction };
