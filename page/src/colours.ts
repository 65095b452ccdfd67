/** A colour for each genre, by its position in the labels of the model, so that it is the same in every recording. */

import palette from "../../service/wholetrack/api/palette.json";

export const colourOf = (index: number): string => palette[index % palette.length] as string;

/** Black or white, whichever has more contrast with a colour. */
export function inkOn(colour: string): string {
  const channel = (i: number) => (parseInt(colour.slice(i, i + 2), 16) / 255) ** 2.2;
  return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5) > 0.18 ? "#1d1a16" : "#ffffff";
}

export const css = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
