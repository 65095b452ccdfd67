/** Recording from the microphone or from another tab, predicted about once a second while it goes on. */

import * as api from "./api";
import type { Prediction } from "./types";

const FIRST_WINDOW_S = 3;
const INTERVAL_MS = 1000;
/** An hour of recording takes 350 MB of memory. */
const MAX_S = 30 * 60;
const PEAKS_PER_S = 10;

export type Source = "microphone" | "tab";

/** Return why this browser cannot record here, in a sentence; an empty string if it can. */
export function whyNot(source: Source): string {
  if (!isSecureContext) return "Recording is off, because browsers allow it only over https or on this machine.";
  const media = navigator.mediaDevices as Partial<MediaDevices> | undefined;
  if (source === "tab" && !media?.getDisplayMedia) return "This browser cannot record the sound of a tab.";
  return media?.getUserMedia && "AudioWorkletNode" in window ? "" : "This browser cannot record.";
}

export interface Listener {
  /** There is more audio: its duration so far, and the peaks of what was added. */
  audio(durationS: number, peaks: number[]): void;
  /** The last seconds were predicted; they begin at `startS`. */
  predicted(result: Prediction, startS: number): void;
  refused(status: number): void;
  /** The recording is complete. */
  stopped(wav: Blob): void;
}

export class Recording {
  private parts: Float32Array[] = [];
  private n = 0;
  private level: number[] = [];
  private peak = 0;
  private inPeak = 0;
  private windowS = FIRST_WINDOW_S;
  private busy = false;
  private timer = 0;
  private ended = false;

  private constructor(
    private readonly stream: MediaStream, private readonly context: AudioContext, private readonly model: string,
    private readonly listener: Listener,
  ) {}

  /** Ask for the source and begin. Throws if the user or the browser refuses. */
  static async start(source: Source, model: string, listener: Listener): Promise<Recording> {
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await (source === "tab"
      ? navigator.mediaDevices.getDisplayMedia({ video: true, audio })
      : navigator.mediaDevices.getUserMedia({ audio }));
    if (!stream.getAudioTracks().length) {
      for (const track of stream.getTracks()) track.stop();
      throw new Error("no sound");
    }
    const context = new AudioContext();
    const recording = new Recording(stream, context, model, listener);
    const worklet = document.querySelector<HTMLMetaElement>('meta[name="recorder"]')?.content ?? "";
    await context.audioWorklet.addModule(new URL(worklet, document.baseURI));
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = (event) => recording.add(event.data as Float32Array);
    context.createMediaStreamSource(new MediaStream(stream.getAudioTracks())).connect(node);
    for (const track of stream.getTracks()) track.addEventListener("ended", () => recording.stop());
    recording.timer = window.setInterval(() => void recording.predict(), INTERVAL_MS);
    return recording;
  }

  get durationS(): number { return this.n / this.context.sampleRate; }

  stop(): void {
    if (this.ended) return;
    this.ended = true;
    clearInterval(this.timer);
    for (const track of this.stream.getTracks()) track.stop();
    const wav = this.wav(this.n);
    void this.context.close();
    this.listener.stopped(wav);
  }

  private add(samples: Float32Array): void {
    if (this.ended) return;
    this.parts.push(samples);
    this.n += samples.length;
    for (const sample of samples) {
      this.peak = Math.max(this.peak, Math.abs(sample));
      if (++this.inPeak >= this.context.sampleRate / PEAKS_PER_S) {
        this.level.push(this.peak);
        this.peak = this.inPeak = 0;
      }
    }
    this.listener.audio(this.durationS, this.level.splice(0));
    if (this.durationS >= MAX_S) this.stop();
  }

  /** Predict the last seconds, as long as a window of the model. */
  private async predict(): Promise<void> {
    if (this.busy || this.durationS < this.windowS) return;
    this.busy = true;
    const n = Math.round(this.windowS * this.context.sampleRate);
    const startS = (this.n - n) / this.context.sampleRate;
    try {
      const result = await api.predictShort(this.wav(n), this.model);
      if (this.ended) return;
      if (typeof result === "number") this.listener.refused(result);
      else {
        this.windowS = result.model.window_s;
        this.listener.predicted(result, startS);
      }
    } catch {
      this.listener.refused(0);
    } finally {
      this.busy = false;
    }
  }

  /** Return the last `n` samples as WAV with 16 bits. */
  private wav(n: number): Blob {
    const data = new DataView(new ArrayBuffer(44 + 2 * n));
    const text = (offset: number, value: string) => [...value].forEach((char, i) => data.setUint8(offset + i, char.charCodeAt(0)));
    const rate = this.context.sampleRate;
    text(0, "RIFF"); data.setUint32(4, 36 + 2 * n, true); text(8, "WAVEfmt ");
    data.setUint32(16, 16, true); data.setUint16(20, 1, true); data.setUint16(22, 1, true);
    data.setUint32(24, rate, true); data.setUint32(28, rate * 2, true); data.setUint16(32, 2, true); data.setUint16(34, 16, true);
    text(36, "data"); data.setUint32(40, 2 * n, true);
    let position = n;
    for (let i = this.parts.length - 1; i >= 0 && position > 0; i--) {
      const part = this.parts[i] as Float32Array;
      for (let j = part.length - 1; j >= 0 && position > 0; j--) {
        position--;
        data.setInt16(44 + 2 * position, Math.max(-1, Math.min(1, part[j] as number)) * 32767, true);
      }
    }
    return new Blob([data.buffer], { type: "audio/wav" });
  }
}
