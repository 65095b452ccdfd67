/** The page: a queue of recordings, and the result of one of them. */

import "uplot/dist/uPlot.min.css";
import "@fontsource-variable/instrument-sans/wght.css";
import "@fontsource/instrument-serif/latin-400.css";
import "@fontsource/instrument-serif/latin-400-italic.css";
import "./style.css";
import * as api from "./api";
import { announce, byId, clock, element, keepFocus, percent, save } from "./dom";
import { csv, picture } from "./files";
import { Recording, whyNot, whyRefused, type Source } from "./record";
import { Results } from "./results";
import { drawRibbon } from "./ribbon";
import { CANCELLED, failure, verdict } from "./sentences";
import { fromFragment, toFragment } from "./share";
import { drawStrip } from "./strip";
import type { ModelSummary, Prediction, Track } from "./types";

const tracks: Track[] = [];
const results = new Results();
let selected: Track | null = null;
let running: { track: Track; stop: () => void } | null = null;
let models: ModelSummary[] = [];
let nextId = 1;
let recording: Recording | null = null;

function newTrack(name: string, file: File | null): Track {
  return {
    id: nextId++, name, file, model: byId<HTMLSelectElement>("model").value, hop: "", state: "waiting", sent: 0, durationS: 0,
    decodedS: 0, info: null, starts: [], probabilities: [], silent: new Set(), peaks: [], result: null, problem: null, shared: false,
  };
}

function add(files: Iterable<File>): void {
  const added = [...files].map((file) => newTrack(file.name, file));
  if (!added.length) return;
  tracks.push(...added);
  announce(added.length === 1 ? `${added[0]?.name} added` : `${added.length} recordings added`);
  if (!selected || selected.shared) select(added[0] as Track);
  render();
  next();
}

function select(track: Track): void {
  selected = track;
  if (track.model) byId<HTMLSelectElement>("model").value = track.model;
  byId<HTMLSelectElement>("hop").value = track.hop;
  results.show(track);
  render();
}

/** Send the next recording that waits, unless one is being sent. */
function next(): void {
  const track = running ? undefined : tracks.find((candidate) => candidate.state === "waiting");
  if (!track?.file) return;
  reset(track);
  track.state = "uploading";
  const stop = api.predict(track.file, track.model, track.hop, genreCount(track.model), {
    sent: (part) => { track.sent = part; if (part >= 1) track.state = "working"; changed(track); },
    event: (event) => receive(track, event),
    failed: (problem, retryAfterS) => {
      if (problem?.code === "unauthorised") { askForKey(Boolean(api.key.get())); }
      if (problem?.code === "overloaded" && retryAfterS && retryAfterS <= 60) {
        waitFor(track, retryAfterS);
        return;
      }
      end(track, () => { track.state = "failed"; track.problem = failure(problem); announce(`${track.name}: ${track.problem.sentence}`); });
    },
  });
  running = { track, stop };
  changed(track);
}

const genreCount = (name: string): number => models.find((model) => model.name === name)?.labels.length ?? 0;

function waitFor(track: Track, seconds: number): void {
  end(track, () => { track.state = "failed"; track.problem = { ...failure(null), sentence: `The service is busy. Trying again in ${seconds} seconds.`, code: "overloaded" }; });
  setTimeout(() => { if (track.problem?.code === "overloaded") retry(track); }, seconds * 1000);
}

function end(track: Track, finish: () => void): void {
  running = null;
  finish();
  changed(track);
  next();
}

function reset(track: Track): void {
  Object.assign(track, { sent: 0, decodedS: 0, info: null, starts: [], probabilities: [], silent: new Set(), peaks: [], result: null, problem: null });
}

function retry(track: Track): void {
  reset(track);
  track.state = "waiting";
  changed(track);
  next();
}

/** Stop sending or predicting a recording, or take it out of the queue. */
function cancel(track: Track): void {
  const finish = () => { track.state = "failed"; track.problem = CANCELLED; announce(`${track.name}: cancelled`); };
  if (running?.track === track) {
    running.stop();
    end(track, finish);
  } else if (track.state === "waiting") {
    finish();
    changed(track);
  }
}

function receive(track: Track, { event, data }: api.LiveEvent): void {
  track.state = "working";
  if (event === "start" || event === "restart") {
    reset(track);
    track.info = data.model;
  } else if (event === "progress") {
    track.peaks.push(...data.peaks);
    track.decodedS = data.decoded_s;
    if (track.decodedS > track.durationS) track.durationS = track.decodedS;
  } else if (event === "windows") {
    addWindows(track, data);
  } else if (event === "result") {
    end(track, () => complete(track, data));
    announce(`${track.name}: ${spoken(data)}`);
    return;
  } else if (event === "error") {
    end(track, () => { track.state = "failed"; track.problem = failure(data); announce(`${track.name}: ${track.problem.sentence}`); });
    return;
  }
  changed(track);
}

function addWindows(track: Track, data: api.LiveEvent["data"]): void {
  track.starts.push(...data.start_s);
  track.probabilities.push(...data.probabilities);
  for (const i of data.silent) track.silent.add(data.first + i);
}

function complete(track: Track, result: Prediction): void {
  track.state = "done";
  track.result = result;
  track.info = result.model;
  track.durationS = result.track.duration_s;
  track.starts = result.windows.start_s;
  track.probabilities = result.windows.probabilities;
  track.silent = new Set(result.windows.silent);
}

function spoken(result: Prediction): string {
  const { before, genre, after } = verdict(result);
  return `${before}${genre}${after}`;
}

/** Drawing takes time that the service needs if it runs on the same machine. */
const MIN_INTERVAL_MS = 200;
let lastChange = 0;
let changeTimer = 0;

/** Show what has changed about a track: a change of its state at once, and progress at most five times a second. */
function changed(track: Track): void {
  clearTimeout(changeTimer);
  const wait = track.state === "working" || track.state === "recording" ? lastChange + MIN_INTERVAL_MS - performance.now() : 0;
  if (wait > 0) {
    changeTimer = window.setTimeout(() => changed(track), wait);
    return;
  }
  lastChange = performance.now();
  if (selected) results.update();
  render();
}

let renderFrame = 0;

/** Show the queue. At most once per frame, because events arrive faster. */
function render(): void {
  cancelAnimationFrame(renderFrame);
  renderFrame = requestAnimationFrame(() => {
    byId("start").hidden = selected !== null;
    byId("queue").hidden = selected === null;
    byId("result").hidden = selected === null;
    document.body.classList.toggle("started", selected !== null);
    const list = byId("cards");
    for (const track of tracks) card(track, list);
    for (const id of ["record-more", "record-tab-more"]) byId(id).hidden = recording !== null || (id === "record-tab-more" && noTab);
    byId("cancel").hidden = !selected || !(selected.state === "waiting" || running?.track === selected);
    keepFocus(byId(selected?.state === "recording" ? "stop-button" : "verdict"));
  });
}

function card(track: Track, list: HTMLElement): void {
  let item = document.getElementById(`card-${track.id}`);
  if (!item) {
    const button = element("button", { type: "button", class: "card", onclick: () => select(track) },
      element("span", { class: "card-name" }, track.name || "Shared result"),
      element("span", { class: "card-state" }), element("canvas", { width: 200, height: 6, "aria-hidden": "true" }));
    const again = element("button", { type: "button", class: "quiet card-retry", onclick: () => retry(track) }, "Try again");
    item = element("li", { id: `card-${track.id}` }, button, again);
    list.append(item);
  }
  const button = item.firstElementChild as HTMLButtonElement;
  button.setAttribute("aria-current", String(track === selected));
  button.dataset.state = track.state;
  const state = button.querySelector(".card-state") as HTMLElement;
  const text = stateText(track);
  if (state.textContent !== text) state.textContent = text;
  const again = item.lastElementChild as HTMLElement;
  const offered = Boolean(track.problem?.retry && track.file && track !== selected);
  if (!offered && document.activeElement === again) button.focus();
  again.hidden = !offered;
  drawStrip(button.querySelector("canvas") as HTMLCanvasElement, track);
}

function stateText(track: Track): string {
  switch (track.state) {
    case "waiting": return "Waiting";
    case "recording": return `Recording, ${clock(track.durationS)}`;
    case "uploading": return `Sending, ${percent(track.sent)}`;
    case "working": return track.decodedS ? `Listening, ${clock(track.decodedS)}${track.durationS > track.decodedS ? ` of ${clock(track.durationS)}` : ""}` : "Opening";
    case "failed": return track.problem?.sentence ?? "Not predicted";
    case "done": return track.result ? spoken(track.result) : "";
  }
}

// Files

const picker = byId<HTMLInputElement>("files");
for (const id of ["choose", "add"]) byId(id).addEventListener("click", () => picker.click());
picker.addEventListener("change", () => { add(picker.files ?? []); picker.value = ""; });

let depth = 0;
const veil = byId("veil");
addEventListener("dragenter", (event) => { event.preventDefault(); depth++; veil.hidden = false; });
addEventListener("dragleave", () => { if (--depth <= 0) { depth = 0; veil.hidden = true; } });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  veil.hidden = true;
  add(event.dataTransfer?.files ?? []);
});

// Recording

async function startRecording(source: Source): Promise<void> {
  if (recording) return;
  showNote(whyNot(source));
  if (whyNot(source)) return;
  const time = new Date().toTimeString().slice(0, 5).replace(":", ".");
  const track = newTrack(`Recording ${time}.wav`, null);
  track.state = "recording";
  showLiveNote("");
  try {
    recording = await Recording.start(source, track.model, genreCount(track.model), {
      audio: (durationS, peaks) => { track.durationS = track.decodedS = durationS; track.peaks.push(...peaks); changed(track); },
      event: (event) => followRecording(track, event),
      stopped: (wav, live) => {
        recording = null;
        track.file = new File([wav], track.name, { type: "audio/wav" });
        announce("Recording stopped");
        track.state = "working";
        if (selected === track) select(track);
        if (!live) retry(track);
      },
      lost: () => retry(track),
    });
  } catch (error) {
    showNote(whyRefused(source, error));
    return;
  }
  tracks.push(track);
  select(track);
  announce("Recording");
}

/** Show what the service says about a recording while it goes on. If it refuses, the whole recording is sent at the end. */
function followRecording(track: Track, { event, data }: api.LiveEvent): void {
  if (event === "start") {
    track.info = data.model;
  } else if (event === "windows") {
    addWindows(track, data);
  } else if (event === "result") {
    // While the recording goes on, the service has ended the audio itself, and the result covers only a part.
    if (track.state === "working") {
      complete(track, data);
      announce(`${track.name}: ${spoken(data)}`);
    }
  } else if (event === "error") {
    if (data.code === "unauthorised") askForKey(Boolean(api.key.get()));
    if (track.state === "working") retry(track);
    else showLiveNote(`${failure(data).sentence} The recording goes on, and is predicted when you stop it.`);
  }
  changed(track);
}

function showLiveNote(text: string): void {
  const note = byId("live-note");
  note.textContent = text;
  note.hidden = !text;
  if (text) announce(text);
}

function showNote(text: string): void {
  for (const note of [byId("record-note"), byId("queue-note")]) {
    note.textContent = text;
    note.hidden = !text;
  }
  if (text) announce(text);
}

// Phones cannot record tabs. Without a secure context, the page says why when the button is used.
const noTab = isSecureContext && Boolean(whyNot("tab")) && !whyNot("microphone");
byId("record-tab").hidden = noTab;
byId("record").addEventListener("click", () => void startRecording("microphone"));
byId("record-tab").addEventListener("click", () => void startRecording("tab"));
byId("record-more").addEventListener("click", () => void startRecording("microphone"));
byId("record-tab-more").addEventListener("click", () => void startRecording("tab"));
byId("stop-button").addEventListener("click", () => recording?.stop());
addEventListener("pagehide", () => recording?.stop());

// The result

byId("cancel").addEventListener("click", () => selected && cancel(selected));
byId("retry").addEventListener("click", () => selected && retry(selected));
byId("again").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!selected?.file || running?.track === selected) return;
  selected.model = byId<HTMLSelectElement>("model").value;
  selected.hop = byId<HTMLSelectElement>("hop").value;
  retry(selected);
});
const baseName = () => selected?.name.replace(/\.[^.]*$/, "") || "wholetrack";
byId("save-json").addEventListener("click", () => {
  if (selected?.result) save(new Blob([JSON.stringify(selected.result, null, 1)], { type: "application/json" }), `${baseName()}.json`);
});
byId("save-csv").addEventListener("click", () => {
  if (selected?.result) save(new Blob([csv(selected.result)], { type: "text/csv" }), `${baseName()}.csv`);
});
byId("save-png").addEventListener("click", async () => {
  if (selected?.result) save(await picture(selected, results.timeline.canvas), `${baseName()}.png`);
});
byId("share").addEventListener("click", async () => {
  if (!selected?.result) return;
  const withName = byId<HTMLInputElement>("share-name").checked;
  const fragment = await toFragment(selected.result, withName ? selected.name : null);
  history.replaceState(null, "", fragment);
  let copied = true;
  try { await navigator.clipboard.writeText(location.href); } catch { copied = false; }
  const text = copied ? "Link copied" : "The link is in the address bar";
  byId("share").textContent = text;
  announce(text);
  setTimeout(() => { byId("share").textContent = "Copy link"; }, 3000);
});

addEventListener("keydown", (event) => {
  const target = event.target as HTMLElement;
  if (event.altKey || event.ctrlKey || event.metaKey || target.closest("input:not([type=range]), select, textarea, dialog")) return;
  const onButton = Boolean(target.closest("button, a, summary"));
  if (event.key === " " && !onButton) results.timeline.toggle();
  else if (event.key === "ArrowLeft" || event.key === "ArrowRight") results.step(event.key === "ArrowLeft" ? -1 : 1);
  else return;
  event.preventDefault();
});

// The key

const dialog = byId<HTMLDialogElement>("key-dialog");

function askForKey(wasWrong: boolean): void {
  byId("key-button").hidden = false;
  byId("key-note").hidden = !wasWrong;
  if (!dialog.open) dialog.showModal();
}

byId("key-button").addEventListener("click", () => askForKey(false));
byId("key-cancel").addEventListener("click", () => dialog.close());
byId<HTMLFormElement>("key-form").addEventListener("submit", async () => {
  api.key.set(byId<HTMLInputElement>("key").value.trim());
  byId<HTMLInputElement>("key").value = "";
  await loadModels();
  for (const track of tracks) if (track.problem?.code === "unauthorised") retry(track);
});

async function loadModels(): Promise<void> {
  let found: ModelSummary[] | number;
  try { found = await api.models(); } catch { return; }
  if (typeof found === "number") {
    if (found === 401) { askForKey(Boolean(api.key.get())); api.key.forget(); }
    return;
  }
  models = found;
  const list = byId<HTMLSelectElement>("model");
  list.replaceChildren(...models.filter((model) => model.available).map((model) =>
    element("option", { value: model.name, title: model.summary, selected: model.default }, model.name)));
  for (const track of tracks) track.model ||= list.value;
}

async function openLink(): Promise<void> {
  try {
    const shared = await fromFragment(location.hash);
    if (!shared) return;
    const track = newTrack(shared.name, null);
    track.shared = true;
    complete(track, shared.result);
    tracks.push(track);
    select(track);
  } catch {
    showNote("This link is damaged, so the result in it cannot be shown.");
  }
}

const ribbon = byId<HTMLCanvasElement>("ribbon");
new ResizeObserver(() => drawRibbon(ribbon)).observe(ribbon);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawRibbon(ribbon));
addEventListener("hashchange", () => void openLink());
void loadModels();
void openLink();
