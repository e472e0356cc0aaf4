// How the page says things: numbers with their units, and elements. Text goes in as text only, whoever chose it.

export const NONE = '–';

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

export function count(value) {
  return value === null || value === undefined ? NONE : whole.format(value);
}

/** Per second: [number, unit]. */
export function rate(value) {
  if (value === null || value === undefined) return [NONE, ''];
  if (value === 0) return ['0', '/s'];
  if (value >= 100000) return [whole.format(value / 1000), 'k/s'];
  return [value < 10 ? value.toFixed(1) : whole.format(value), '/s'];
}

/** Milliseconds: [number, unit]. */
export function duration(ms) {
  if (ms === null || ms === undefined) return [NONE, ''];
  if (ms < 1) return [ms.toFixed(2), 'ms'];
  if (ms < 10) return [ms.toFixed(1), 'ms'];
  if (ms < 1000) return [whole.format(ms), 'ms'];
  if (ms < 60000) return [(ms / 1000).toFixed(1), 's'];
  return [whole.format(ms / 60000), 'min'];
}

export function milliseconds(ms) {
  return duration(ms).join(' ').trim();
}

export function bytes(value) {
  if (value < 1024) return `${value} B`;
  if (value < 1024 ** 2) return `${(value / 1024).toFixed(1)} KiB`;
  if (value < 1024 ** 3) return `${(value / 1024 ** 2).toFixed(0)} MiB`;
  return `${(value / 1024 ** 3).toFixed(2)} GiB`;
}

/** A span of seconds, coarse. */
export function span(seconds) {
  if (seconds < 1) return 'under 1 s';
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export function percent(share) {
  return share >= 0.1 ? `${Math.round(share * 100)} %` : share >= 0.001 ? `${(share * 100).toFixed(1)} %` : 'under 0.1 %';
}

/** The time of day in UTC, as the access log has it. */
export function clock(seconds) {
  return new Date(seconds * 1000).toISOString().slice(11, 19);
}

/** An element with attributes and children; strings become text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The first sentence: the rest is in the story. */
export function gist(text) {
  return text.split(/(?<=\.) /, 1)[0];
}

/** Sets a text if it is another one: what has not changed is not laid out again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
