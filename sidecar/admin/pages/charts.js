// Lines over the last two minutes, as SVG paths. The x axis is time, so a second without figures is a gap.

import { make } from './words.js';

export const SECONDS = 120;
const WIDTH = 1200;
const HEIGHT = 100;
const GAP = 3.5; // seconds without a point that break a line
const SVG = 'http://www.w3.org/2000/svg';

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** The next of 1, 2, 5, 10 ... that is not below the value. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

export class Chart {
  /** `lines` are [{key, label, fill, floor}]; with `floor` a few are still seen beside many; `least` is the smallest full scale; `write` makes text of a value. */
  constructor(figure, title, lines, least, write) {
    this.title = title;
    this.lines = lines;
    this.least = least;
    this.write = write;
    this.scale = make('span', { class: 'scale' });
    this.svg = shape('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
    for (const y of [0.5, 50]) this.svg.append(shape('line', { class: 'grid', x1: 0, x2: WIDTH, y1: y, y2: y }));
    this.paths = lines.map((line) => {
      const under = line.fill ? this.svg.appendChild(shape('path', { class: line.key === 'errors' ? 'under bad' : 'under' })) : null;
      return { under, path: this.svg.appendChild(shape('path', { class: line.key })) };
    });
    const keys = lines.map((line) => make('span', { class: `key ${line.key}` }, line.label));
    figure.append(make('figcaption', {}, ...keys, this.scale), this.svg);
  }

  /** `points` are [{time, ...values}] in order of time; `now` is the right edge. */
  draw(points, now) {
    let most = 0;
    for (const point of points) for (const line of this.lines) most = Math.max(most, point[line.key] ?? 0);
    const full = most > this.least ? ceiling(most) : this.least;
    this.lines.forEach((line, at) => {
      const { path, under } = this.paths[at];
      const runs = this.runs(points, line, now, full);
      path.setAttribute('d', runs.map((run) => `M${run.join('L')}${run.length === 1 ? 'h.1' : ''}`).join(''));
      if (under) {
        under.setAttribute('d', runs.map((run) => {
          const [first, last] = [run[0], run[run.length - 1]].map((point) => point.split(' ')[0]);
          return `M${first} ${HEIGHT}L${run.join('L')}L${last} ${HEIGHT}Z`;
        }).join(''));
      }
    });
    this.scale.textContent = `0 to ${this.write(full)}, last 2 min`;
    const last = points[points.length - 1] ?? {};
    const words = this.lines.map((line) => `${line.label} ${this.write(last[line.key] ?? null)}`);
    this.svg.setAttribute('aria-label', `${this.title} over two minutes; now ${words.join(', ')}`);
  }

  /** Lists of "x y", one per stretch without a gap. */
  runs(points, { key, floor }, now, full) {
    const runs = [];
    let run = null;
    let before = -Infinity;
    for (const point of points) {
      const value = point[key];
      if (value === null || value === undefined) {
        run = null;
        continue;
      }
      if (run === null || point.time - before > GAP) runs.push((run = []));
      const x = WIDTH * (1 - (now - point.time) / SECONDS);
      const part = value > 0 ? Math.max(Math.min(value / full, 1), floor ?? 0) : 0;
      const y = (HEIGHT - 1) * (1 - part) + 0.5;
      run.push(`${x.toFixed(1)} ${y.toFixed(1)}`);
      before = point.time;
    }
    return runs;
  }
}
