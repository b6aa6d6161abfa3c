// Numbers as text, formatted the same way in every panel.

const grouped = new Intl.NumberFormat("en-US");

/** A whole number with separators: 16,777,216. */
export const count = (number) => grouped.format(number);

/** Three significant digits, never an exponent: 1,234, 256, 20.5, 0.391. */
export const about = (number) =>
  Math.abs(number) >= 100 ? count(Math.round(number)) : String(Number(number.toPrecision(3)));

/** A round number on an axis, in full: 100.5. */
export const inFull = (number) => (Math.abs(number) < 1 ? about(number) : count(number));

/** A share as a percentage: 0.391%. */
export const percent = (share) => `${about(100 * share)}%`;

/** Bytes in powers of ten: 13.6 MB. */
export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, number)) / 3)));
  return `${about(number / 1000 ** step)} ${units[step]}`;
}

/** Bytes of memory, in powers of two: 13.6 GiB. Three digits, trailing zeros included. */
export function binary(number) {
  const at = number >= 2 ** 30 ? 3 : number >= 2 ** 20 ? 2 : 1;
  const value = number / 1024 ** at;
  const digits = value >= 99.95 ? count(Math.round(value)) : value.toFixed(value >= 9.995 ? 1 : 2);
  return `${digits} ${["", "KiB", "MiB", "GiB"][at]}`;
}

/** Round to the nearest tenth. Add up rounded parts, so that the numbers shown are consistent. */
export const tenth = (number) => Math.round(10 * number) / 10 + 0; // + 0 turns -0 into 0

/** Fixed decimals with a real minus sign; zero is "0". */
export function decimal(number, places = 1) {
  const text = number.toFixed(places);
  return Number(text) === 0 ? "0" : text.replace("-", "−");
}

export const clamp = (number, low = 0, high = 1) => Math.min(high, Math.max(low, number));

export const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** Bytes as Python sent them. */
export const octets = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

export const extent = (numbers) => [Math.min(...numbers), Math.max(...numbers)];

/** "1 cell", "2 cells". */
export const plural = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;

/** The plain text of some markup. */
export const plain = (markup) => markup.replace(/<[^>]+>/g, "").replace(/&(lt|quot|amp);/g, (_, sign) => ({ lt: "<", quot: '"', amp: "&" })[sign]);

export const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

/** Escape external text for markup. Control characters are decoded as Windows-1252 dashes and quotes. */
export const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/"/g, "&quot;")
  .replace(/[\x80-\x9f]/g, (sign) => new TextDecoder("windows-1252").decode(Uint8Array.of(sign.charCodeAt(0))));
