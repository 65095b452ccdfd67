/** A result as a strip of colours, for the queue. */

import { colourOf, css } from "./colours";
import type { Track } from "./types";

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
  track.starts.forEach((start, i) => {
    if (track.silent.has(i)) return;
    const row = track.probabilities[i] ?? [];
    draw.fillStyle = colourOf(row.indexOf(Math.max(...row)));
    draw.fillRect(start * scale, 0, step * scale + 1, height);
  });
}
