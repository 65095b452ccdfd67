/** The result of the selected recording: verdict, timeline, genres, sections. */

import { colourOf } from "./colours";
import { byId, clock, element, keepFocus, percent } from "./dom";
import { agreement, confidence, sentence, verdict } from "./sentences";
import { byMean, Timeline } from "./timeline";
import type { Prediction, Ranked, Track } from "./types";

const FEW = 10;
const READING = 3;

export class Results {
  readonly timeline = new Timeline();
  private track: Track | null = null;
  private hovered: number | null = null;
  private all = false;
  private drawn: { key: string; result: Prediction | null } = { key: "", result: null };
  private cells = new Map<number, HTMLElement>();

  constructor() {
    const position = byId<HTMLInputElement>("position");
    position.addEventListener("input", () => this.timeline.seek(Number(position.value)));
    byId("play").addEventListener("click", () => this.timeline.toggle());
    byId("more").addEventListener("click", () => { this.all = !this.all; this.drawn.key = ""; this.update(); });
    this.timeline.onTime = (time) => this.showTime(time);
    this.timeline.onHover = (window) => { this.hovered = window; this.showReading(); };
    this.timeline.onPlaying = (playing) => {
      byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
      byId("play-icon").setAttribute("d", playing ? "M6 4.5h4v15H6zM14 4.5h4v15h-4z" : "M7 4.5v15l13-7.5z");
    };
    this.timeline.onUnplayable = () => {
      byId("play-note").hidden = false;
      byId("play-note").textContent = "This browser cannot play this format; everything else works.";
      byId<HTMLButtonElement>("play").disabled = true;
    };
  }

  show(track: Track): void {
    this.track = track;
    this.all = false;
    this.drawn = { key: "", result: null };
    byId("play-note").hidden = !track.shared;
    byId("play-note").textContent = track.shared ? "This result came with a link, which holds no audio." : "";
    byId<HTMLButtonElement>("play").disabled = !track.file;
    byId<HTMLInputElement>("position").value = "0";
    this.timeline.show(track);
    this.update();
  }

  /** Move by some seconds. */
  step(seconds: number): void {
    const base = this.timeline.playable ? this.timeline.time : Number(byId<HTMLInputElement>("position").value);
    this.timeline.seek(base + seconds);
  }

  update(): void {
    const track = this.track;
    if (!track) return;
    byId("filename").textContent = track.name;
    byId("result").dataset.state = track.state;
    byId("result").setAttribute("aria-busy", String(track.state === "uploading" || track.state === "working"));
    byId("figure").hidden = !track.info || (track.state === "failed" && !track.starts.length);
    byId("sections").hidden = track.state === "recording";
    byId("failure").hidden = !track.problem;
    byId("sentence").hidden = Boolean(track.problem);
    byId("failure-text").textContent = track.problem?.sentence ?? "";
    byId("stop").hidden = track.state !== "recording";
    byId("retry").hidden = !(track.problem?.retry && track.file);
    byId("details").hidden = !track.starts.length || track.state === "failed" || track.result?.prediction.summed_score.genre === null;
    byId("saves").hidden = !track.result;
    byId("again").hidden = !track.file || !(track.result || (track.problem && !track.problem.final));
    byId("tools").hidden = byId("saves").hidden && byId("again").hidden;
    byId("hint").hidden = byId("figure").hidden || track.state === "recording";
    this.showVerdict(track);
    byId("sentence").textContent = track.result ? sentence(track.result) : soFar(track);
    if (track.info) this.timeline.update();
    byId<HTMLInputElement>("position").max = String(track.durationS);
    this.showTime(this.timeline.playable ? this.timeline.time : Number(byId<HTMLInputElement>("position").value));
    this.showRanking(track);
    if (track.result !== this.drawn.result) {
      this.drawn.result = track.result;
      this.showResult(track.result);
    }
    this.showReading();
    keepFocus(byId(track.state === "recording" ? "stop-button" : "verdict"));
  }

  private showVerdict(track: Track): void {
    const headline = byId("verdict");
    const said = track.result ? verdict(track.result) : { before: waiting(track), genre: "", after: "" };
    const key = JSON.stringify(said);
    if (headline.dataset.key === key) return;
    headline.dataset.key = key;
    const genre = element("em", {}, said.genre);
    if (said.genre && track.info) genre.style.textDecorationColor = colourOf(track.info.labels.indexOf(said.genre));
    headline.replaceChildren(said.before, ...(said.genre ? [genre] : []), said.after);
    headline.classList.toggle("pending", !track.result);
  }

  /** The genres by summed score and by votes; while the recording is classified, of the windows so far. */
  private showRanking(track: Track): void {
    if (!track.info || !track.starts.length) return;
    const rows = track.result ? ranked(track.result) : rankedSoFar(track);
    const shown = this.all ? rows : rows.slice(0, FEW);
    const key = JSON.stringify(shown);
    if (key === this.drawn.key) return;
    this.drawn.key = key;
    this.cells.clear();
    const labels = track.info.labels;
    byId("genres").replaceChildren(...shown.map((row) => {
      const index = labels.indexOf(row.genre);
      const swatch = element("i", { class: "swatch", "aria-hidden": "true" });
      swatch.style.backgroundColor = colourOf(index);
      const bar = element("i", { class: "bar", "aria-hidden": "true" });
      bar.style.inlineSize = `${row.score * 100}%`;
      bar.style.backgroundColor = colourOf(index);
      const mark = element("i", { class: "mark", "aria-hidden": "true" });
      mark.style.insetInlineStart = `${row.vote * 100}%`;
      mark.hidden = row.vote < 0.005;
      const now = element("td", { class: "now" });
      this.cells.set(index, now);
      const name = element("th", { scope: "row" }, swatch, row.genre);
      if (row.parent) name.append(element("small", {}, ` ${row.parent}`));
      name.append(element("span", { class: "track", "aria-hidden": "true" }, bar, mark));
      return element("tr", {}, name, element("td", {}, percent(row.score)), element("td", {}, percent(row.vote)), now);
    }));
    const more = byId("more");
    more.hidden = rows.length <= FEW;
    more.textContent = this.all ? "Show fewer" : `Show all ${rows.length}`;
    this.showReading();
  }

  private showResult(result: Prediction | null): void {
    byId("facts").replaceChildren();
    byId("parts").replaceChildren();
    byId("tags-box").hidden = true;
    byId("figure-caption").textContent = result ? `Genres over ${clock(result.track.duration_s)}. ${sentence(result)}` : "Genres over time, as the recording is classified.";
    if (!result) return;
    const { track, model } = result;
    const facts: [string, string][] = [
      ["Confidence", confidence(result)],
      ["Score and votes", agreement(result)],
      ["Length", clock(track.duration_s)],
      ["Windows", model.step_s
        ? `${result.windows.count} steps of ${Math.round(model.step_s * 100) / 100} s, in windows of ${model.window_s} s`
        : `${result.windows.count}, ${model.window_s} s long, every ${model.hop_s} s`],
      ["Model", `${model.name} ${model.version}`],
    ];
    if (track.codec) facts.push(["File", `${track.codec}, ${track.sample_rate_hz / 1000} kHz, ${["", "mono", "stereo"][track.channels] ?? `${track.channels} channels`}`]);
    for (const warning of result.warnings) if (warning.code !== "out_of_domain") facts.push(["Note", warning.detail]);
    byId("facts").append(...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
    byId("parts").append(...result.sections.map((section) => {
      const swatch = element("i", { class: "swatch", "aria-hidden": "true" });
      swatch.style.backgroundColor = colourOf(model.labels.indexOf(section.genre));
      return element("li", {}, element("button", { type: "button", class: "part", onclick: () => this.timeline.seek(section.start_s) },
        element("span", { class: "time" }, `${clock(section.start_s)}–${clock(section.end_s)}`), swatch, section.genre,
        element("span", { class: "share" }, percent(section.share))));
    }));
    // Tags of the kind "other" say how the model works, not what the recording sounds like.
    const tags = (result.tags?.track ?? []).filter((tag) => tag.probability >= 0.3 && tag.kind !== "other");
    byId("tags-box").hidden = !tags.length;
    byId("tags").replaceChildren(...tags.map((tag) => tag.unverified
      ? element("li", { class: "unverified", title: "Not verified: there were too few recordings to judge this tag by." }, `${tag.tag}?`)
      : element("li", {}, `${tag.tag} ${percent(tag.probability)}`)));
  }

  private showTime(time: number): void {
    const duration = this.track?.durationS ?? 0;
    byId("clock").textContent = `${clock(time)} / ${clock(duration)}`;
    const position = byId<HTMLInputElement>("position");
    position.value = String(time);
    this.showReading();
    position.setAttribute("aria-valuetext", `${clock(time)} of ${clock(duration)}${this.reading(this.timeline.windowAt(time))}`);
  }

  /** The probabilities of the window under the pointer, or at the position of playback. */
  private showReading(): void {
    const track = this.track;
    if (!track?.info) return;
    const index = this.hovered ?? this.timeline.windowAt(Number(byId<HTMLInputElement>("position").value));
    const row = track.probabilities[index];
    byId("reading").textContent = row ? `${clock(track.starts[index] ?? 0)}${this.reading(index)}` : "";
    for (const [label, cell] of this.cells) cell.textContent = row ? percent(row[label] ?? 0) : "";
  }

  private reading(index: number): string {
    const track = this.track;
    const row = track?.probabilities[index];
    if (!track?.info || !row) return "";
    if (track.silent.has(index)) return ", silent";
    const best = row.map((p, label) => [p, label] as const).sort((a, b) => b[0] - a[0]).slice(0, READING).filter(([p]) => p >= 0.05);
    return best.map(([p, label]) => `, ${track.info?.labels[label]} ${percent(p)}`).join("");
  }
}

/** The genres that lead while the recording is classified. */
function soFar(track: Track): string {
  const leading = track.starts.length ? rankedSoFar(track).slice(0, READING).filter((row) => row.score >= 0.05) : [];
  return leading.length ? `So far ${leading.map((row) => `${row.genre} ${percent(row.score)}`).join(", ")}.` : "";
}

function waiting(track: Track): string {
  switch (track.state) {
    case "recording": return "Recording";
    case "waiting": return "Waiting for the others";
    case "uploading": return `Sending, ${percent(track.sent)}`;
    case "failed": return "Not predicted";
    default: return track.starts.length ? "Listening" : "Opening";
  }
}

interface Row { genre: string; score: number; vote: number; parent: string | null }

function ranked(result: Prediction): Row[] {
  const votes = new Map(result.prediction.majority_vote.top_k.map((r: Ranked) => [r.genre, r.share]));
  return result.prediction.summed_score.top_k.map((r: Ranked) => ({ genre: r.genre, score: r.share, vote: votes.get(r.genre) ?? 0, parent: r.parent ?? null }));
}

function rankedSoFar(track: Track): Row[] {
  const labels = track.info?.labels ?? [];
  const sounding = track.probabilities.filter((_, i) => !track.silent.has(i));
  const scores = labels.map((_, label) => sounding.reduce((sum, row) => sum + (row[label] ?? 0), 0) / (sounding.length || 1));
  const votes = labels.map(() => 0);
  for (const row of sounding) { const best = row.indexOf(Math.max(...row)); votes[best] = (votes[best] as number) + 1 / sounding.length; }
  return byMean(track.probabilities, labels.length).map((label) => ({ genre: labels[label] as string, score: scores[label] as number, vote: votes[label] as number, parent: null }));
}
