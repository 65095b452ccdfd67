/** What the page says about a result or an error. */

import { clock, percent } from "./dom";
import type { Failure, Prediction, Problem, Section } from "./types";

const MAX_PASSAGES = 3;

export interface Verdict { before: string; genre: string; after: string }

/** The headline of a result, with the genre apart. */
export function verdict(result: Prediction): Verdict {
  const { summed_score: summed, majority_vote: voted, agreement, in_domain: inDomain } = result.prediction;
  if (summed.genre === null) return { before: "Silence", genre: "", after: "" };
  if (inDomain === false) return { before: "Closest to ", genre: summed.genre, after: "" };
  if (!agreement && voted.genre !== null) return { before: "", genre: summed.genre, after: ` by score, ${voted.genre} by vote` };
  if (summed.share >= 0.75) return { before: "", genre: summed.genre, after: ", throughout" };
  if (summed.share >= 0.45) return { before: "Mostly ", genre: summed.genre, after: "" };
  return { before: "A mixture, led by ", genre: summed.genre, after: "" };
}

/** What the headline leaves out: other genres and when they occur, and whether the model knows such music. */
export function sentence(result: Prediction): string {
  const { summed_score: summed, majority_vote: voted, in_domain: inDomain } = result.prediction;
  if (summed.genre === null) return "This recording has no sound, so it has no genre.";
  const passages = otherPassages(result);
  const parts = passages.slice(0, MAX_PASSAGES).map((s) => `${s.genre} from ${clock(s.start_s)} to ${clock(s.end_s)}`);
  const more = passages.length - MAX_PASSAGES;
  if (more > 0) parts.push(more === 1 ? "one more passage" : `${more} more passages`);
  const list = parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}` : parts[0];
  const sentences = [];
  if (inDomain === false) sentences.push("This is not like anything the model knows, so the genre may mean nothing.");
  if (list) sentences.push(`${list[0]?.toUpperCase()}${list.slice(1)}.`);
  else if (inDomain !== false && voted.genre === summed.genre) sentences.push(`It leads in ${percent(voted.share)} of the windows.`);
  return sentences.join(" ");
}

function otherPassages(result: Prediction): Section[] {
  const main = result.prediction.summed_score.genre;
  return result.sections
    .filter((section) => section.genre !== main)
    .sort((a, b) => (b.end_s - b.start_s) * b.share - (a.end_s - a.start_s) * a.share);
}

export function confidence(result: Prediction): string {
  const { confidence: value, in_domain: inDomain } = result.prediction;
  if (inDomain === false) return `${percent(value)}, but the music is unlike what the model was trained on`;
  if (value >= 0.8) return `${percent(value)}: fairly sure`;
  return value >= 0.5 ? `${percent(value)}: could be wrong` : `${percent(value)}: a guess`;
}

export function agreement(result: Prediction): string {
  const { summed_score: summed, majority_vote: voted, agreement: agree } = result.prediction;
  if (summed.genre === null) return "–";
  return agree ? `Both lead to ${summed.genre}` : `The score leads to ${summed.genre}, the votes to ${voted.genre}`;
}

const SENTENCES: Record<string, [string, boolean]> = {
  malformed_request: ["The recording did not arrive as one file. Try sending it again.", true],
  unauthorised: ["This service asks for a key before it accepts a recording.", true],
  unknown_model: ["That model is no longer available. Choose another one.", false],
  not_found: ["The service has moved. Reload this page.", true],
  request_too_slow: ["The connection is too slow for this file. Try again on a better one, or send a smaller file such as an mp3.", true],
  upload_too_large: ["This file is too big for the service. Export it as mp3, ogg or flac and try again.", false],
  audio_too_long: ["This recording is too long for the service. Cut it into shorter parts.", false],
  unsupported_media: ["This file is not a recording, or it is of a kind that the service cannot open. Send wav, flac, mp3, ogg, m4a or aiff.", false],
  unknown_host: ["The service does not know this address. Open it under the address that its operator gave you.", false],
  undecodable_audio: ["This file is damaged or incomplete and cannot be opened. Export it again.", false],
  no_audio_stream: ["There is no sound in this file. It may be a video without an audio track.", false],
  empty_audio: ["This recording is empty: it lasts no time at all.", false],
  invalid_parameter: ["This model cannot work with that setting. Choose another spacing between windows.", false],
  overloaded: ["The service is busy with other recordings. Try again in a moment.", true],
  internal_error: ["Something went wrong in the service. Try again; if it happens again, tell its operator.", true],
  not_ready: ["The service is still starting. Try again in a moment.", true],
  draining: ["The service is restarting. Try again in a moment.", true],
  device_failed: ["The computer that runs the model had a fault. Try again in a moment.", true],
  model_unavailable: ["This model cannot run at the moment. Choose another one.", false],
  deadline_exceeded: ["This took longer than the service allows. Try again when it is less busy, or send a shorter recording.", true],
};

/** Errors that every model reports for the same file. */
const ABOUT_THE_FILE = new Set([
  "upload_too_large", "audio_too_long", "unsupported_media", "undecodable_audio", "no_audio_stream", "empty_audio",
]);

export const CANCELLED: Failure = { sentence: "You have cancelled this recording.", retry: true, final: false, code: "cancelled" };

/** Describe an error for someone who makes music. */
export function failure(problem: Problem | null): Failure {
  if (!problem) return { sentence: "The connection was lost before the result arrived. Your recording is still here.", retry: true, final: false, code: "connection" };
  const [text, retry] = SENTENCES[problem.code] ?? [problem.detail, true];
  const report = problem.code === "internal_error" && problem.request_id ? ` Its number is ${problem.request_id}.` : "";
  return { sentence: text + report, retry, final: ABOUT_THE_FILE.has(problem.code), code: problem.code };
}
