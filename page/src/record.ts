/** Recording from the microphone. */

/** Return why this browser cannot record here, in a sentence; an empty string if it can. */
export function whyNot(): string {
  if (!isSecureContext) return "Recording is off, because browsers allow it only over https or on this machine.";
  if (!navigator.mediaDevices?.getUserMedia || !("MediaRecorder" in window)) return "This browser cannot record.";
  return "";
}

export interface Recording { stop(): void }

/** Record until stopped or until the browser ends it, and hand over the file. */
export async function record(done: (file: File) => void): Promise<Recording> {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const recorder = new MediaRecorder(stream);
  const parts: Blob[] = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => {
    for (const track of stream.getTracks()) track.stop();
    const time = new Date().toTimeString().slice(0, 5).replace(":", ".");
    const suffix = recorder.mimeType.includes("mp4") ? "m4a" : recorder.mimeType.includes("ogg") ? "ogg" : "webm";
    done(new File(parts, `Recording ${time}.${suffix}`, { type: recorder.mimeType }));
  };
  recorder.start(1000);
  return { stop: () => recorder.stop() };
}
