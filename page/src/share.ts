/**
 * A result in the fragment of a link, which browsers never send to a server: the verdicts, the sections and a reduced
 * timeline. The audio is not part of it, nor the name of the file unless the sender wants that.
 */

import type { ModelInfo, Prediction, Ranked } from "./types";

const MAX_LENGTH = 8000;
const MAX_POINTS = 400;
const MAX_LABELS = 512;
const LEVELS = 90;
const FIRST = 35;

interface Packed {
  v: 1; n?: string; m: [string, string, number, number]; l: string[]; d: number; c: number; i: boolean | null;
  s: [number, number][]; o: [number, number, number][]; p: [number, number, number, number][]; t: string; k: number;
}

export async function toFragment(result: Prediction, name: string | null): Promise<string> {
  const { model, prediction } = result;
  const index = (genre: string) => model.labels.indexOf(genre);
  const round = (value: number) => Math.round(value * 1000) / 1000;
  for (let points = Math.min(MAX_POINTS, result.windows.count); points >= 1; points = Math.floor(points * 0.8)) {
    const packed: Packed = {
      v: 1, m: [model.name, model.version, model.window_s, model.hop_s], l: model.labels,
      d: round(result.track.duration_s), c: round(prediction.confidence), i: prediction.in_domain,
      s: prediction.summed_score.top_k.map((r) => [index(r.genre), round(r.share)]),
      o: prediction.majority_vote.top_k.map((r) => [index(r.genre), round(r.share), r.windows ?? 0]),
      p: result.sections.slice(0, points).map((s) => [s.start_s, s.end_s, index(s.genre), round(s.share)]),
      k: points, t: reduced(result.windows.probabilities, points),
    };
    if (name) packed.n = name.slice(0, 200);
    const fragment = `#r=${await deflated(JSON.stringify(packed))}`;
    if (fragment.length <= MAX_LENGTH) return fragment;
  }
  throw new Error("the result does not fit into a link");
}

/** Return the result in a fragment, with the name of its file; null if there is none. Throws if it is damaged. */
export async function fromFragment(fragment: string): Promise<{ result: Prediction; name: string } | null> {
  if (!fragment.startsWith("#r=")) return null;
  if (fragment.length > MAX_LENGTH) throw new Error("too long");
  const packed = JSON.parse(await inflated(fragment.slice(3))) as Packed;
  check(packed);
  const labels = packed.l;
  const model: ModelInfo = { name: packed.m[0], version: packed.m[1], window_s: packed.m[2], hop_s: packed.m[3], labels };
  const ranked = (rows: number[][]): Ranked[] =>
    rows.map(([i, share, windows]) => ({ genre: labels[i as number] as string, share: share as number, ...(windows !== undefined && { windows }) }));
  const [summed, voted] = [ranked(packed.s), ranked(packed.o)];
  const probabilities = unpacked(packed.t, packed.k, labels.length);
  const step = packed.d / packed.k;
  return {
    name: packed.n ?? "",
    result: {
      track: { filename: packed.n ?? null, duration_s: packed.d, codec: "", sample_rate_hz: 0, channels: 0 },
      // Each point of the reduced timeline stands for an equal part of the recording.
      model: { ...model, step_s: step },
      prediction: {
        summed_score: { genre: summed[0]?.genre ?? null, share: summed[0]?.share ?? 0, top_k: summed },
        majority_vote: { genre: voted[0]?.genre ?? null, share: voted[0]?.share ?? 0, top_k: voted },
        agreement: summed[0]?.genre === voted[0]?.genre, confidence: packed.c, in_domain: packed.i,
      },
      sections: packed.p.map(([start_s, end_s, i, share]) => ({ start_s, end_s, genre: labels[i] as string, share })),
      windows: {
        count: packed.k, silent: [], start_s: probabilities.map((_, i) => i * step),
        genre: probabilities.map((row) => labels[row.indexOf(Math.max(...row))] ?? null), probabilities,
      },
      timing_ms: {}, warnings: [],
    },
  };
}

/** A link can be written by anyone, so nothing in it is taken for granted. */
function check(packed: Packed): void {
  const isNumber = (value: unknown): boolean => typeof value === "number" && Number.isFinite(value) && value >= 0;
  const isLabel = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0 && (value as number) < packed.l.length;
  const ok =
    packed.v === 1 && Array.isArray(packed.l) && packed.l.length >= 2 && packed.l.length <= MAX_LABELS &&
    packed.l.every((label) => typeof label === "string") && isNumber(packed.d) && packed.d > 0 && isNumber(packed.c) &&
    Number.isInteger(packed.k) && packed.k >= 1 && packed.k <= MAX_POINTS && typeof packed.t === "string" &&
    packed.t.length === packed.k * packed.l.length && [true, false, null].includes(packed.i) &&
    typeof packed.m[0] === "string" && typeof packed.m[1] === "string" && isNumber(packed.m[2]) && isNumber(packed.m[3]) &&
    (packed.n === undefined || typeof packed.n === "string") &&
    [...packed.s, ...packed.o].every((row) => isLabel(row[0]) && row.slice(1).every(isNumber)) &&
    packed.p.every(([a, b, i, share]) => isNumber(a) && isNumber(b) && isLabel(i) && isNumber(share) && b <= packed.d + 1);
  if (!ok) throw new Error("damaged");
}

/** Average the windows of equal parts, with one character per probability. */
function reduced(rows: number[][], points: number): string {
  let text = "";
  for (let p = 0; p < points; p++) {
    const part = rows.slice(Math.floor((p * rows.length) / points), Math.floor(((p + 1) * rows.length) / points));
    for (let l = 0; l < (rows[0]?.length ?? 0); l++) {
      const mean = part.reduce((sum, row) => sum + (row[l] ?? 0), 0) / part.length;
      let code = FIRST + Math.round(mean * (LEVELS - 1));
      if (code >= 92) code += 1; // a backslash would need to be escaped
      text += String.fromCharCode(code);
    }
  }
  return text;
}

function unpacked(text: string, points: number, n: number): number[][] {
  return Array.from({ length: points }, (_, p) => {
    const row = Array.from({ length: n }, (_, l) => {
      const code = text.charCodeAt(p * n + l);
      return Math.min(Math.max((code > 92 ? code - 1 : code) - FIRST, 0), LEVELS - 1);
    });
    const sum = row.reduce((a, b) => a + b, 0) || 1;
    return row.map((level) => level / sum);
  });
}

async function deflated(text: string): Promise<string> {
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function inflated(text: string): Promise<string> {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).text();
}
