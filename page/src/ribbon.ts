/** The picture on the start page: what a result might look like, drawn from the colours of the genres. */

import { colourOf, css } from "./colours";

const N = 10;

export function drawRibbon(canvas: HTMLCanvasElement): void {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const draw = canvas.getContext("2d") as CanvasRenderingContext2D;
  draw.scale(devicePixelRatio, devicePixelRatio);
  const step = 4;
  const points = Array.from({ length: Math.ceil(width / step) + 1 }, (_, i) => i * step);
  const shares = points.map((x) => {
    const t = (x / Math.max(width, 900)) * 7;
    const raw = Array.from({ length: N }, (_, i) => Math.exp(2.6 * Math.sin(t * (0.6 + 0.13 * i) + i * 2.4) + 0.9 * Math.sin(t * 2.3 + i * 1.7)));
    const sum = raw.reduce((a, b) => a + b, 0);
    return raw.map((value) => value / sum);
  });
  const lower = points.map(() => height);
  for (let i = 0; i < N; i++) {
    const upper = lower.map((y, p) => y - (shares[p]?.[i] ?? 0) * height);
    draw.beginPath();
    points.forEach((x, p) => draw.lineTo(x, upper[p] as number));
    for (let p = points.length - 1; p >= 0; p--) draw.lineTo(points[p] as number, lower[p] as number);
    draw.fillStyle = colourOf(i);
    draw.fill();
    draw.strokeStyle = css("--paper");
    draw.stroke();
    lower.splice(0, lower.length, ...upper);
  }
}
