/** Passes the sound of a stream on to the page, mixed to one channel. Runs in the browser's audio thread. */

declare class AudioWorkletProcessor { readonly port: MessagePort }
declare function registerProcessor(name: string, processor: new () => AudioWorkletProcessor): void;

const BLOCK = 2048;

class Recorder extends AudioWorkletProcessor {
  private block = new Float32Array(BLOCK);
  private n = 0;

  process(inputs: Float32Array[][]): boolean {
    const channels = inputs[0] ?? [];
    const length = channels[0]?.length ?? 0;
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i] as number;
      this.block[this.n++] = sum / channels.length;
      if (this.n === BLOCK) {
        this.port.postMessage(this.block.slice());
        this.n = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
