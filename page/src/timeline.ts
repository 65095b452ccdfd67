/**
 * The figure: waveform, genre probabilities and sections over the same time axis, with playback.
 *
 * The waveform comes from the service, so that long recordings and formats that the browser cannot decode have one, too.
 */

import uPlot from "uplot";
import WaveSurfer from "wavesurfer.js";
import { colourOf, css, inkOn } from "./colours";
import { byId, clock, element } from "./dom";
import type { Track } from "./types";
import { windowLength } from "./types";

const SILENCE = URL.createObjectURL(new Blob([], { type: "audio/wav" }));
const AREAS_HEIGHT = 300;
const AXIS_HEIGHT = 30;
const MIN_LABEL_HEIGHT = 24;
const SMOOTH_UP_TO = 500;

export class Timeline {
  readonly audio = new Audio();
  onTime: (seconds: number) => void = () => {};
  onHover: (window: number | null) => void = () => {};
  onPlaying: (playing: boolean) => void = () => {};
  onUnplayable: () => void = () => {};

  private readonly stage = byId("stage");
  private readonly areas = byId("areas");
  private readonly wave: WaveSurfer;
  private plot: uPlot | null = null;
  private track: Track | null = null;
  private url = "";
  private order: number[] = [];
  private frame = 0;
  private hovered: number | null = null;

  constructor() {
    const nonce = document.querySelector<HTMLMetaElement>('meta[name="csp-nonce"]')?.content ?? "";
    this.audio.preload = "metadata";
    this.wave = WaveSurfer.create({
      container: byId("wave"), media: this.audio, height: 84, interact: false, cursorWidth: 0, normalize: true,
      barWidth: 2, barGap: 1, barRadius: 2, cspNonce: nonce, hideScrollbar: true,
      ...this.waveColours(),
    });
    this.stage.addEventListener("pointermove", (event) => this.hover(event));
    this.stage.addEventListener("pointerleave", () => this.hover(null));
    this.stage.addEventListener("click", (event) => this.seek(this.timeAt(event)));
    for (const name of ["timeupdate", "seeking", "seeked"]) this.audio.addEventListener(name, () => this.moved());
    this.audio.addEventListener("play", () => { this.onPlaying(true); this.follow(); });
    for (const name of ["pause", "ended"]) this.audio.addEventListener(name, () => this.onPlaying(false));
    this.audio.addEventListener("loadedmetadata", () => this.metadata());
    this.audio.addEventListener("error", () => { if (this.url) this.onUnplayable(); });
    new ResizeObserver(() => this.resize()).observe(this.areas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
  }

  get canvas(): HTMLCanvasElement { return this.plot?.ctx.canvas as HTMLCanvasElement; }
  get time(): number { return this.audio.currentTime; }
  get playable(): boolean { return Boolean(this.url) && !this.audio.error; }

  /** Show a track from the beginning. */
  show(track: Track): void {
    this.audio.pause();
    this.track = track;
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = track.file ? URL.createObjectURL(track.file) : "";
    if (this.url) this.audio.src = this.url;
    else this.audio.removeAttribute("src");
    this.plot?.destroy();
    this.plot = null;
    byId("wave").hidden = track.shared;
    this.update();
    this.moved();
  }

  /** Show what has been added to the track. */
  update(): void {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  seek(seconds: number): void {
    if (!this.track?.durationS) return;
    const time = Math.min(Math.max(seconds, 0), this.track.durationS);
    if (this.playable) this.audio.currentTime = time;
    this.place(time);
    this.onTime(time);
  }

  toggle(): void {
    if (!this.playable) return;
    if (this.audio.paused) void this.audio.play().catch(() => this.onUnplayable());
    else this.audio.pause();
  }

  /** Index of the window whose centre is nearest to a time; -1 if there is none. */
  windowAt(seconds: number): number {
    const track = this.track;
    if (!track?.info || !track.starts.length) return -1;
    const target = seconds - windowLength(track.info) / 2;
    let [low, high] = [0, track.starts.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((track.starts[middle] as number) < target) low = middle + 1;
      else high = middle;
    }
    return low > 0 && target - (track.starts[low - 1] as number) < (track.starts[low] as number) - target ? low - 1 : low;
  }

  private waveColours() {
    return { waveColor: css("--faint"), progressColor: css("--ink") };
  }

  private recolour(): void {
    this.wave.setOptions(this.waveColours());
    this.plot?.redraw();
  }

  private metadata(): void {
    // A recording from a browser states no duration.
    if (this.track && !this.track.result && Number.isFinite(this.audio.duration)) this.track.durationS = this.audio.duration;
    this.update();
  }

  private timeAt(event: MouseEvent): number {
    const box = this.areas.getBoundingClientRect();
    return ((event.clientX - box.left) / box.width) * (this.track?.durationS ?? 0);
  }

  private hover(event: PointerEvent | null): void {
    const index = event ? this.windowAt(this.timeAt(event)) : -1;
    const line = byId("hover-line");
    line.hidden = !event;
    if (event) line.style.left = `${event.clientX - this.stage.getBoundingClientRect().left}px`;
    const hovered = index < 0 ? null : index;
    if (hovered !== this.hovered) this.onHover((this.hovered = hovered));
  }

  private follow(): void {
    this.moved();
    if (!this.audio.paused) requestAnimationFrame(() => this.follow());
  }

  private moved(): void {
    this.place(this.time);
    this.onTime(this.time);
  }

  private place(time: number): void {
    const duration = this.track?.durationS || 1;
    byId("cursor-line").style.left = `${Math.min(time / duration, 1) * 100}%`;
  }

  private resize(): void {
    const width = this.areas.clientWidth;
    if (this.plot && width) this.plot.setSize({ width, height: AREAS_HEIGHT + AXIS_HEIGHT });
    // Which names fit depends on the width.
    if (this.track) this.drawSections(this.track);
  }

  private draw(): void {
    const track = this.track;
    if (!track) return;
    this.drawWave(track);
    this.drawAreas(track);
    this.drawSections(track);
  }

  private drawWave(track: Track): void {
    if (!track.peaks.length || track.shared) return;
    const n = Math.max(track.peaks.length, Math.round(track.durationS * 10));
    const peaks = new Float32Array(n);
    peaks.set(track.peaks);
    // While a recording goes on, there is nothing to play yet.
    void this.wave.load(this.url || SILENCE, [peaks], track.durationS || track.decodedS);
  }

  private drawAreas(track: Track): void {
    if (!track.info || !track.starts.length) return;
    const labels = track.info.labels;
    this.order = byMean(track.probabilities, labels.length);
    const data = stacked(track, this.order);
    if (this.plot && this.plot.series.length === labels.length + 1) {
      this.plot.setData(data, false);
      this.plot.setScale("x", { min: 0, max: track.durationS });
      return;
    }
    this.plot?.destroy();
    this.areas.replaceChildren();
    this.plot = new uPlot(this.options(labels.length, track), data, this.areas);
    this.plot.setScale("x", { min: 0, max: track.durationS });
  }

  private options(n: number, track: Track): uPlot.Options {
    const smooth = uPlot.paths.spline?.();
    const straight = uPlot.paths.linear?.();
    // The area of a genre is drawn from its upper edge to the bottom, and the next one covers the rest of it.
    const series = Array.from({ length: n }, (_, i) => ({
      fill: () => colourOf(this.order[n - 1 - i] as number),
      stroke: () => css("--paper"),
      width: this.areas.clientWidth < 700 ? 0.5 : 1,
      points: { show: false },
      paths: (u: uPlot, index: number, from: number, to: number) =>
        ((track.starts.length <= SMOOTH_UP_TO ? smooth : straight) as uPlot.Series.PathBuilder)(u, index, from, to),
    }));
    return {
      width: this.areas.clientWidth || 600,
      height: AREAS_HEIGHT + AXIS_HEIGHT,
      padding: [0, 0, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      select: { show: false, left: 0, top: 0, width: 0, height: 0 },
      scales: { x: { time: false, auto: false }, y: { auto: false, range: [0, 1] } },
      axes: [
        {
          size: AXIS_HEIGHT, gap: 8, font: "13px 'Instrument Sans Variable', system-ui, sans-serif", stroke: () => css("--soft"),
          grid: { show: false }, ticks: { show: false }, space: 80,
          incrs: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600],
          values: (u, ticks) => ticks.map((t) => (t === 0 || t > (u.scales.x?.max ?? 0) * 0.985 ? "" : clock(t))),
        },
        { show: false },
      ],
      series: [{}, ...series],
      hooks: { draw: [(u) => { this.coverSilence(u); this.drawNames(u); }] },
    };
  }

  /** Show nothing where the recording is silent: there, all genres are equally likely. */
  private coverSilence(u: uPlot): void {
    const xs = u.data[0] as number[];
    u.ctx.fillStyle = css("--paper");
    for (let point = 0; point < xs.length; point++) {
      if (!this.isSilent(point)) continue;
      const from = u.valToPos(((xs[point - 1] ?? xs[0] as number) + (xs[point] as number)) / 2, "x", true);
      const to = u.valToPos(((xs[point + 1] ?? xs[point] as number) + (xs[point] as number)) / 2, "x", true);
      u.ctx.fillRect(from - 1, u.bbox.top, to - from + 2, u.bbox.height);
    }
  }

  /** Whether the window of a point of the areas is silent. The first window has two points, and so has the last one of a result. */
  private isSilent(point: number): boolean {
    const n = this.track?.starts.length ?? 0;
    return Boolean(this.track?.silent.has(Math.min(Math.max(point - 1, 0), n - 1)));
  }

  /** Write the name of each genre where its area is highest, if there is space. */
  private drawNames(u: uPlot): void {
    const track = this.track;
    if (!track?.info) return;
    const ratio = devicePixelRatio;
    const [ctx, labels] = [u.ctx, track.info.labels];
    ctx.save();
    ctx.font = `600 ${14 * ratio}px 'Instrument Sans Variable', system-ui, sans-serif`;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    const [xs, n] = [u.data[0] as number[], labels.length];
    const end = u.valToPos(xs[xs.length - 1] as number, "x", true);
    const edge = (rank: number, point: number): number => (rank < 0 ? 0 : ((u.data[n - rank] as number[])[point] as number));
    for (let rank = 0; rank < n; rank++) {
      const label = this.order[rank] as number;
      const name = labels[label] as string;
      const half = ctx.measureText(name).width / 2 + 6 * ratio;
      let best = { height: 0, x: 0, y: 0 };
      // The highest place at which the name fits into the area over all of its width.
      for (let point = 0; point < xs.length; point += Math.max(1, Math.floor(xs.length / 200))) {
        const x = u.valToPos(xs[point] as number, "x", true);
        if (this.isSilent(point) || x - half < u.bbox.left || x + half > Math.min(end, u.bbox.left + u.bbox.width)) continue;
        let [low, high] = [0, 1];
        for (let near = point; near >= 0 && u.valToPos(xs[near] as number, "x", true) >= x - half; near--)
          [low, high] = [Math.max(low, edge(rank - 1, near)), Math.min(high, edge(rank, near))];
        for (let near = point; near < xs.length && u.valToPos(xs[near] as number, "x", true) <= x + half; near++)
          [low, high] = [Math.max(low, edge(rank - 1, near)), Math.min(high, edge(rank, near))];
        if (high - low > best.height) best = { height: high - low, x, y: (high + low) / 2 };
      }
      if (best.height * u.bbox.height < MIN_LABEL_HEIGHT * ratio) continue;
      ctx.fillStyle = inkOn(colourOf(label));
      ctx.fillText(name, best.x, u.valToPos(best.y, "y", true));
    }
    ctx.restore();
  }

  private drawSections(track: Track): void {
    const lane = byId("sections");
    lane.replaceChildren();
    if (!track.result || !track.info) return;
    for (const section of track.result.sections) {
      const block = element("div", { class: "section", title: `${section.genre}, ${clock(section.start_s)}–${clock(section.end_s)}` }, element("span", {}, section.genre));
      const colour = colourOf(track.info.labels.indexOf(section.genre));
      block.style.left = `${(section.start_s / track.durationS) * 100}%`;
      block.style.width = `${((section.end_s - section.start_s) / track.durationS) * 100}%`;
      block.style.backgroundColor = colour;
      block.style.color = inkOn(colour);
      lane.append(block);
    }
    // A name that does not fit is left out rather than cut.
    for (const name of lane.querySelectorAll("span")) name.hidden = name.scrollWidth + 16 > (name.parentElement?.clientWidth ?? 0);
  }
}

/** The labels from the largest to the smallest mean probability. */
export function byMean(rows: number[][], n: number): number[] {
  const sums = Array.from({ length: n }, () => 0);
  for (const row of rows) for (let i = 0; i < n; i++) sums[i] = (sums[i] as number) + (row[i] ?? 0);
  return sums.map((_, i) => i).sort((a, b) => (sums[b] as number) - (sums[a] as number) || a - b);
}

/** The upper edges of all areas, from the highest to the lowest; the most likely genre is at the bottom. */
function stacked(track: Track, order: number[]): uPlot.AlignedData {
  const { starts, probabilities, info, durationS } = track;
  const length = windowLength(info as NonNullable<typeof info>);
  const xs = starts.map((start) => Math.min(start + length / 2, durationS));
  const edges: number[][] = order.map(() => []);
  probabilities.forEach((row) => {
    let sum = 0;
    order.forEach((label, rank) => { sum += row[label] ?? 0; (edges[rank] as number[]).push(Math.min(sum, 1)); });
  });
  (edges[edges.length - 1] as number[]).fill(1);
  // The first and the last half window have the probabilities of their window.
  const ends = track.result ? [durationS] : [];
  const extended = (values: number[]) => [values[0] as number, ...values, ...ends.map(() => values[values.length - 1] as number)];
  return [[0, ...xs, ...ends], ...edges.reverse().map(extended)] as uPlot.AlignedData;
}
