/** Small helpers for the document. */

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found as T;
}

type Attributes = Record<string, string | number | boolean | ((event: Event) => void)>;

/** Create an element. Text is never parsed as HTML, since genres, names and links may contain anything. */
export function element<K extends keyof HTMLElementTagNameMap>(
  name: K, attributes: Attributes = {}, ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") created.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") created.toggleAttribute(key, value);
    else created.setAttribute(key, String(value));
  }
  created.append(...children);
  return created;
}

export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

export const percent = (share: number): string => `${Math.round(share * 100)} %`;

/** Save something as a file. */
export function save(content: Blob, name: string): void {
  const url = URL.createObjectURL(content);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Move the focus to another element if the one that has it is no longer shown. Browsers would move it to the top of the page. */
export function keepFocus(fallback: HTMLElement): void {
  const focused = document.activeElement;
  if (focused && focused !== document.body && !focused.getClientRects().length) fallback.focus({ preventScroll: true });
}

let statusTimer = 0;

/** Tell screen readers what happened. */
export function announce(text: string): void {
  clearTimeout(statusTimer);
  statusTimer = window.setTimeout(() => { byId("status").textContent = text; }, 50);
}
