/** Files to save: the table of a result, in the columns of the service's CSV, and a picture. */

import { clock, percent } from "./dom";
import { colourOf, css, inkOn } from "./colours";
import { verdict } from "./sentences";
import type { Prediction, Track } from "./types";
import { windowLength } from "./types";

export function csv(result: Prediction): string {
  const labels = result.model.labels;
  const columns = ["kind", "start_s", "end_s", "genre", "share", "silent", ...labels.map((label) => `p_${label}`)];
  const lines: unknown[][] = [columns];
  const blank = [ "", ...labels.map(() => "")];
  const { summed_score: summed, majority_vote: voted } = result.prediction;
  for (const [kind, ranking] of [["summed_score", summed], ["majority_vote", voted]] as const)
    lines.push([kind, real(0), real(result.track.duration_s), ranking.genre ?? "", real(ranking.share), ...blank]);
  for (const s of result.sections) lines.push(["section", real(s.start_s), real(s.end_s), s.genre, real(s.share), ...blank]);
  const silent = new Set(result.windows.silent);
  result.windows.probabilities.forEach((row, i) => {
    const start = result.windows.start_s[i] ?? 0;
    const end = Math.round((start + windowLength(result.model)) * 1e6) / 1e6;
    lines.push(["window", real(start), real(end), result.windows.genre[i] ?? "", real(Math.max(...row)), silent.has(i), ...row.map(real)]);
  });
  return lines.map((line) => line.map(cell).join(",") + "\r\n").join("");
}

/** A number as the service writes it. */
const real = (value: number): string => (Number.isInteger(value) ? value.toFixed(1) : String(value));

function cell(value: unknown): string {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Draw the verdict, the timeline that is on the screen and its genres on a canvas of their own. */
export function picture(track: Track, areas: HTMLCanvasElement): Promise<Blob> {
  const result = track.result as Prediction;
  const canvas = document.createElement("canvas");
  const [width, height, left] = [1600, 720, 72];
  canvas.width = width;
  canvas.height = height;
  const draw = canvas.getContext("2d") as CanvasRenderingContext2D;
  const [ink, soft] = [css("--ink"), css("--soft")];
  const text = (content: string, x: number, y: number, font: string, fill = ink) => {
    draw.font = font;
    draw.fillStyle = fill;
    draw.fillText(content, x, y);
    return draw.measureText(content).width;
  };
  draw.fillStyle = css("--paper");
  draw.fillRect(0, 0, width, height);
  const said = verdict(result);
  let x = left + text(said.before, left, 132, "84px 'Instrument Serif', Georgia, serif");
  x += text(said.genre, x, 132, "italic 84px 'Instrument Serif', Georgia, serif");
  text(said.after, x, 132, "84px 'Instrument Serif', Georgia, serif");
  const about = `${track.name ? `${track.name} · ` : ""}${clock(track.durationS)} · confidence ${percent(result.prediction.confidence)} · ${result.model.name}`;
  text(about, left, 186, "24px 'Instrument Sans Variable', system-ui, sans-serif", soft);
  const inner = width - 2 * left;
  draw.drawImage(areas, left, 230, inner, 320);
  const scale = inner / track.durationS;
  for (const section of result.sections) {
    const colour = colourOf(result.model.labels.indexOf(section.genre));
    const [from, wide] = [left + section.start_s * scale, (section.end_s - section.start_s) * scale];
    draw.fillStyle = colour;
    draw.fillRect(from, 560, Math.max(wide - 2, 1), 34);
    draw.font = "20px 'Instrument Sans Variable', system-ui, sans-serif";
    if (draw.measureText(section.genre).width + 20 < wide) text(section.genre, from + 10, 584, draw.font, inkOn(colour));
  }
  x = left;
  for (const { genre, share } of result.prediction.summed_score.top_k.slice(0, 8)) {
    if (share < 0.005) continue;
    draw.fillStyle = colourOf(result.model.labels.indexOf(genre));
    draw.fillRect(x, 638, 20, 20);
    x += 30 + text(`${genre} ${percent(share)}`, x + 30, 656, "22px 'Instrument Sans Variable', system-ui, sans-serif") + 34;
  }
  return new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/png"));
}
