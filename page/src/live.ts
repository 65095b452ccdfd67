/** The WebSocket of a live prediction. */

import { key, ROOT, type LiveEvent } from "./api";

export type { LiveEvent };

/** Above it, the connection is too slow for the audio. */
const MAX_UNSENT_BYTES = 8 << 20;

export interface LiveHandlers {
  event(event: LiveEvent): void;
  /** The connection was closed, or never opened, without a result or an error. */
  closed(): void;
}

export class LiveSocket {
  private readonly socket: WebSocket;
  /** What was recorded before the connection was open. */
  private early: Int16Array[] = [];
  private finished = false;

  /** Connect, and send the options and the key. */
  constructor(options: Record<string, unknown>, private readonly handlers: LiveHandlers) {
    const url = new URL("v1/live", ROOT);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url);
    this.socket.onopen = () => {
      this.socket.send(JSON.stringify({ ...options, model: options.model || null, key: key.get() || null }));
      for (const part of this.early.splice(0)) this.send(part);
    };
    this.socket.onmessage = (message) => {
      const event = JSON.parse(message.data as string) as LiveEvent;
      this.finished ||= event.event === "result" || event.event === "error";
      this.handlers.event(event);
    };
    this.socket.onclose = () => {
      if (!this.finished) { this.finished = true; this.handlers.closed(); }
    };
  }

  /** Send samples, unless the prediction is over. */
  send(part: Int16Array): void {
    if (this.finished) return;
    if (this.socket.readyState === WebSocket.CONNECTING) this.early.push(part);
    else if (this.socket.bufferedAmount > MAX_UNSENT_BYTES) this.socket.close();
    else this.socket.send(part as Int16Array<ArrayBuffer>);
  }

  /** Say that nothing follows. Returns whether the service has heard everything, so that a result will come. */
  end(): boolean {
    if (this.finished || this.socket.readyState !== WebSocket.OPEN) {
      this.finished = true;
      this.socket.close();
      return false;
    }
    this.socket.send(JSON.stringify({ end: true }));
    return true;
  }
}
