/** The parts of the service's responses that the page uses. Fields that older services lack are optional. */

export interface Ranked { genre: string; share: number; windows?: number; parent?: string | null }
export interface Ranking { genre: string | null; share: number; top_k: Ranked[] }
export interface Section { start_s: number; end_s: number; genre: string; share: number }
export interface Tag { tag: string; kind: string; probability: number; unverified?: boolean }
export interface ModelInfo { name: string; version: string; window_s: number; hop_s: number; step_s?: number | null; labels: string[] }
export interface Warning { code: string; detail: string }
export interface Problem { code: string; detail: string; title: string; status: number; request_id: string | null }

export interface Prediction {
  track: { filename: string | null; duration_s: number; codec: string; sample_rate_hz: number; channels: number };
  model: ModelInfo;
  prediction: { summed_score: Ranking; majority_vote: Ranking; agreement: boolean; confidence: number; in_domain: boolean | null };
  sections: Section[];
  tags?: { track: Tag[] } | null;
  windows: { count: number; silent: number[]; start_s: number[]; genre: (string | null)[]; probabilities: number[][] };
  timing_ms: Record<string, number>;
  warnings: Warning[];
}

export interface ModelSummary { name: string; default: boolean; available: boolean; labels: string[]; summary: string }

export type State = "waiting" | "recording" | "uploading" | "working" | "done" | "failed";

/** A recording in the queue, and what is known about it so far. */
export interface Track {
  id: number;
  name: string;
  file: File | null;
  model: string;
  hop: string;
  state: State;
  /** The part of the file that was sent, from 0 to 1. */
  sent: number;
  durationS: number;
  decodedS: number;
  info: ModelInfo | null;
  starts: number[];
  probabilities: number[][];
  silent: Set<number>;
  peaks: number[];
  result: Prediction | null;
  problem: Failure | null;
  /** From a link, without audio. */
  shared: boolean;
}

/** Why a recording was not predicted; `final` if no other model or setting would help. */
export interface Failure { sentence: string; retry: boolean; final: boolean; code: string }

export const windowLength = (info: ModelInfo): number => info.step_s ?? info.window_s;
