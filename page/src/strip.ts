/** A result as a strip of colours, for the queue. */

import { colourOf, css } from "./colours";
import type { Track } from "./types";
import { windowLength } from "./types";

export function drawStrip(canvas: HTMLCanvasElement, track: Track): void {
  const draw = canvas.getContext("2d") as CanvasRenderingContext2D;
  const { width, height } = canvas;
  draw.clearRect(0, 0, width, height);
  draw.fillStyle = css("--line");
  draw.fillRect(0, 0, width, height);
  if (track.state === "uploading") {
    draw.fillStyle = css("--soft");
    draw.fillRect(0, 0, width * track.sent, height);
  }
  if (!track.durationS || !track.info) return;
  const scale = width / track.durationS;
  const step = track.info.step_s ?? track.info.hop_s;
  // As in the timeline, each window stands for the time around its centre, and the first and the last for the ends.
  const margin = (windowLength(track.info) - step) / 2;
  track.starts.forEach((start, i) => {
    if (track.silent.has(i)) return;
    const row = track.probabilities[i] ?? [];
    const from = i ? start + margin : 0;
    const to = track.result && i === track.starts.length - 1 ? track.durationS : start + margin + step;
    draw.fillStyle = colourOf(row.indexOf(Math.max(...row)));
    draw.fillRect(from * scale, 0, (to - from) * scale + 1, height);
  });
}
