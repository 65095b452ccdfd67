/** Recording from the microphone or from another tab, predicted while it goes on. */

import { LiveSocket, type LiveEvent } from "./live";

/** An hour of recording takes 350 MB of memory. */
const MAX_S = 30 * 60;
const PEAKS_PER_S = 10;
const HEADER_BYTES = 44;

export type Source = "microphone" | "tab";

/** Return why this browser cannot record here, in a sentence; an empty string if it can. */
export function whyNot(source: Source): string {
  if (!isSecureContext) return "Recording is off, because browsers allow it only over https or on this machine.";
  const media = navigator.mediaDevices as Partial<MediaDevices> | undefined;
  if (source === "tab" && !media?.getDisplayMedia) return "This browser cannot record the sound of a tab.";
  return media?.getUserMedia && "AudioWorkletNode" in window ? "" : "This browser cannot record.";
}

class NoSound extends Error {}

/** Say in a sentence why a recording did not begin. */
export function whyRefused(source: Source, error: unknown): string {
  const refused = error instanceof DOMException && error.name === "NotAllowedError";
  if (error instanceof NoSound) return "Nothing is recorded, because no sound was shared. Choose a tab, and share its audio, too.";
  if (source === "tab") return refused ? "Nothing is recorded, because no tab was shared." : "The browser could not record that tab.";
  if (refused) return "The browser did not allow this page to use the microphone. Allow it in the settings of this site.";
  if (error instanceof DOMException && error.name === "NotFoundError") return "There is no microphone.";
  return "The microphone could not be opened. Perhaps another program is using it.";
}

export interface Listener {
  /** There is more audio: its duration so far, and the peaks of what was added. */
  audio(durationS: number, peaks: number[]): void;
  /** The service says something about the audio so far; after "error" or "result" it says nothing more. */
  event(event: LiveEvent): void;
  /** The recording is complete. The result follows, unless `live` is false: then the service has heard only a part. */
  stopped(wav: Blob, live: boolean): void;
  /** The connection was lost before the result. */
  lost(): void;
}

export class Recording {
  private parts: Int16Array[] = [];
  private n = 0;
  private level: number[] = [];
  private peak = 0;
  private inPeak = 0;
  private ended = false;
  private readonly socket: LiveSocket;

  private constructor(
    private readonly stream: MediaStream, private readonly context: AudioContext, model: string, topK: number,
    private readonly listener: Listener,
  ) {
    this.socket = new LiveSocket(
      { model, ...(topK && { top_k: topK }), encoding: "int16", sample_rate_hz: context.sampleRate },
      { event: (event) => listener.event(event), closed: () => { if (this.ended) listener.lost(); } },
    );
  }

  /** Ask for the source and begin. Throws if the user or the browser refuses. */
  static async start(source: Source, model: string, topK: number, listener: Listener): Promise<Recording> {
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await (source === "tab"
      ? navigator.mediaDevices.getDisplayMedia({ video: true, audio })
      : navigator.mediaDevices.getUserMedia({ audio }));
    if (!stream.getAudioTracks().length) {
      for (const track of stream.getTracks()) track.stop();
      throw new NoSound();
    }
    const context = new AudioContext();
    const worklet = document.querySelector<HTMLMetaElement>('meta[name="recorder"]')?.content ?? "";
    await context.audioWorklet.addModule(new URL(worklet, document.baseURI));
    const recording = new Recording(stream, context, model, topK, listener);
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = (event) => recording.add(event.data as Float32Array);
    context.createMediaStreamSource(new MediaStream(stream.getAudioTracks())).connect(node);
    for (const track of stream.getTracks()) track.addEventListener("ended", () => recording.stop());
    return recording;
  }

  get durationS(): number { return this.n / this.context.sampleRate; }

  stop(): void {
    if (this.ended) return;
    this.ended = true;
    for (const track of this.stream.getTracks()) track.stop();
    const wav = this.wav();
    void this.context.close();
    this.listener.stopped(wav, this.socket.end());
  }

  private add(samples: Float32Array): void {
    if (this.ended) return;
    const part = Int16Array.from(samples, (sample) => Math.max(-1, Math.min(1, sample)) * 32767);
    this.parts.push(part);
    this.n += part.length;
    this.socket.send(part);
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

  /** Return the recording as WAV with 16 bits. */
  private wav(): Blob {
    const header = new DataView(new ArrayBuffer(HEADER_BYTES));
    const text = (offset: number, value: string) => [...value].forEach((char, i) => header.setUint8(offset + i, char.charCodeAt(0)));
    const rate = this.context.sampleRate;
    const size = 2 * this.n;
    text(0, "RIFF"); header.setUint32(4, HEADER_BYTES - 8 + size, true); text(8, "WAVEfmt ");
    header.setUint32(16, 16, true); header.setUint16(20, 1, true); header.setUint16(22, 1, true);
    header.setUint32(24, rate, true); header.setUint32(28, rate * 2, true); header.setUint16(32, 2, true); header.setUint16(34, 16, true);
    text(36, "data"); header.setUint32(40, size, true);
    return new Blob([header, ...(this.parts as BlobPart[])], { type: "audio/wav" });
  }
}
