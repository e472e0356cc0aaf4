// The page: takes one summary per second from /events and shows it. Nothing here is made of markup: see words.js.

import { Chart, SECONDS } from './charts.js';
import { address, tellStories } from './story.js';
import { showVerdict } from './verdict.js';
import { NONE, bytes, clock, count, duration, gist, make, milliseconds, rate, say, span } from './words.js';

const QUIET = 4000; // ms without a summary: something is wrong
const AGAIN = 2000; // ms until a refused stream is asked for again
const HIDDEN = 60000; // ms until a page in the background stops listening
const find = (selector, root = document) => root.querySelector(selector);
const past = []; // summaries of the last two minutes
const cards = {};
const SHORT = { inbound: 'in', outbound: 'out' };

// -- by direction ----------------------------------------------------------------------------------------------------

class Direction {
  constructor(card) {
    card.append(find('#direction-parts').content.cloneNode(true));
    this.figures = {};
    for (const element of card.querySelectorAll('[data-figure]')) this.figures[element.dataset.figure] = element;
    const name = card.dataset.direction;
    const perSecond = (value) => rate(value).join('');
    this.rates = new Chart(find('[data-chart=rate]', card), `${name} requests and errors per second`,
      [{ key: 'requests', label: 'requests/s', fill: true }, { key: 'errors', label: 'errors/s', fill: true, floor: 0.05 }], 1, perSecond);
    this.latency = new Chart(find('[data-chart=latency]', card), `${name} latency`,
      [{ key: 'p50', label: 'p50' }, { key: 'p95', label: 'p95' }, { key: 'p99', label: 'p99' }], 1, milliseconds);
    this.points = [];
  }

  show(time, told) {
    // Opaque connections count as what they are: one piece of work each.
    const requests = told.requests === null ? null : told.requests + told.opaque;
    this.points.push({ time, requests, errors: told.errors, p50: told.p50, p95: told.p95, p99: told.p99 });
    while (this.points[0].time < time - SECONDS) this.points.shift();
    this.figure('requests', ...rate(requests));
    this.figure('errors', ...rate(told.errors), told.errors > 0);
    this.figure('connections', count(told.connections), '');
    for (const name of ['p50', 'p95', 'p99']) this.figure(name, ...duration(told[name]));
  }

  draw(now) {
    this.rates.draw(this.points, now);
    this.latency.draw(this.points, now);
  }

  figure(name, number, unit, bad = false) {
    const element = this.figures[name];
    if (element.textContent !== number + unit) {
      element.replaceChildren(number, unit ? make('span', { class: 'unit' }, unit) : '');
    }
    element.classList.toggle('none', number === NONE);
    element.classList.toggle('bad', bad);
  }
}

// -- failures --------------------------------------------------------------------------------------------------------

const rows = new Map(); // by what is told of a failure -> its row
let reading = false;

function failureRow(told) {
  const story = told.id
    ? make('a', { href: address(told.id), 'aria-label': `Explain request ${told.id}`, class: 'mono' }, told.id.slice(0, 8))
    : make('span', { title: 'Only requests have a story; this was a connection.' }, NONE);
  const target = told.path ? told.authority + told.path : `from ${told.client}`;
  const row = make('tr', {},
    make('td', { title: new Date(told.time * 1000).toISOString() }, clock(told.time)),
    make('td', {}, make('span', { class: 'method' }, `${SHORT[told.direction]} ${told.method}`), make('span', { class: 'mono' }, target)),
    make('td', { class: 'number' }, told.status === null ? NONE : String(told.status)),
    make('td', {}, make('span', { class: 'flag' }, told.flag === '-' ? '5xx' : told.flag)),
    make('td', { title: told.means }, gist(told.means), make('span', { class: 'word' }, told.word)),
    make('td', {}, story));
  row.addEventListener('click', () => {
    if (told.id && !String(getSelection())) location.hash = address(told.id);
  });
  return row;
}

function showFailures(failures) {
  const body = find('#failure-table tbody');
  const keys = failures.map((told) => `${told.time} ${told.id} ${told.client}`);
  const fresh = keys.filter((key) => !rows.has(key)).length;
  // Who reads or is about to click must not have the rows move under the pointer.
  say(find('#held'), reading && fresh && rows.size ? `held while you read; ${fresh} newer` : 'newest first, times in UTC');
  if (!fresh || (reading && rows.size)) return;
  const shown = failures.map((told, at) => rows.get(keys[at]) ?? failureRow(told));
  rows.clear();
  keys.forEach((key, at) => rows.set(key, shown[at]));
  body.replaceChildren(...shown);
}

function showReasons(reasons) {
  find('#reasons').replaceChildren(...reasons.slice(0, 8).map((told) => make('li', { title: told.means },
    make('span', { class: 'flag' }, told.flag), make('b', {}, told.word.replaceAll('_', ' ')),
    make('span', { class: 'since' }, `${count(told.count)} since the start`))));
}

function watchReading() {
  const table = find('#failure-table');
  const look = () => {
    reading = table.matches(':hover') || table.contains(document.activeElement) || find('#story').open;
  };
  for (const event of ['pointerenter', 'pointerleave', 'focusin']) table.addEventListener(event, look);
  table.addEventListener('focusout', () => setTimeout(look));
  find('#story').addEventListener('close', () => setTimeout(look));
}

// -- who calls whom, and the limits ----------------------------------------------------------------------------------

function showShares(id, shares, total) {
  const table = document.getElementById(id);
  table.tBodies[0].replaceChildren(...shares.map((told) => {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const part = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    bar.setAttribute('aria-hidden', 'true');
    bar.setAttribute('class', 'share');
    part.setAttribute('height', '3');
    part.setAttribute('width', `${(100 * told.requests / total).toFixed(1)}%`);
    bar.append(part);
    return make('tr', {},
      make('td', {}, make('span', { class: 'arrow' }, SHORT[told.direction]), make('span', { class: 'mono' }, told.name || 'not reached'), bar),
      make('td', { class: 'number' }, count(told.requests)),
      make('td', { class: told.failed ? 'number bad' : 'number' }, count(told.failed)));
  }));
  table.hidden = !shares.length;
}

function limit(name, text, used = null, most = null, bad = false) {
  const value = make('dd', {}, make('span', { class: bad ? 'value bad' : 'value' }, text));
  if (most) {
    value.append(make('meter', { min: 0, max: most, low: most * 0.8, high: most * 0.95, optimum: 0, value: used, 'aria-label': name }));
  }
  return make('div', {}, make('dt', {}, name), value);
}

const POOLS = { inbound: 'Connections to the app, in use', inbound_opaque: 'Opaque connections to the app', outbound: 'Connections to others, in use' };

function showLimits(told) {
  const { connections, memory, lag } = told;
  const shown = [limit('Client connections', `${count(connections.used)} of ${count(connections.max)}`, connections.used, connections.max)];
  for (const pool of told.pools) {
    if (pool.name !== 'inbound' && !pool.open && !pool.waiting) continue;
    const waiting = pool.waiting ? `, ${count(pool.waiting)} waiting` : '';
    // The limit is that of one destination, so it says nothing of all of them together.
    shown.push(pool.name === 'outbound'
      ? limit(POOLS.outbound, `${count(pool.used)}${waiting}`, null, null, Boolean(pool.waiting))
      : limit(POOLS[pool.name] ?? pool.name, `${count(pool.used)} of ${count(pool.max)}${waiting}`, pool.used, pool.max, Boolean(pool.waiting)));
  }
  const state = memory.state === 'normal' ? '' : `, ${memory.state.replaceAll('_', ' ')}`;
  shown.push(memory.limit
    ? limit('Memory', `${bytes(memory.used)} of ${bytes(memory.limit)}${state}`, memory.used, memory.limit, Boolean(state))
    : limit('Memory, without a limit', bytes(memory.used)));
  shown.push(limit('Loop lag, now and at most', `${milliseconds(lag.last * 1000)}, ${milliseconds(lag.max * 1000)}`, null, null, lag.last > 0.1));
  shown.push(limit('Requests in progress', count(told.in_progress)));
  shown.push(limit('Retried', count(told.retries)));
  shown.push(limit('Connections refused', count(connections.refused), null, null, connections.refused > 0));
  if (told.log_dropped) shown.push(limit('Access log lines dropped', count(told.log_dropped), null, null, true));
  find('#limits').replaceChildren(...shown);
}

// -- the whole -------------------------------------------------------------------------------------------------------

function show(told) {
  past.push(told);
  while (past[0].time < told.time - SECONDS) past.shift();
  for (const [name, card] of Object.entries(cards)) card.show(told.time, told.directions[name]);
  if (document.hidden) return;
  say(find('#state'), told.state.replaceAll('_', ' '));
  find('#state').dataset.kind = told.state === 'live' ? 'good' : 'warn';
  say(find('#version'), `version ${told.version}`);
  say(find('#uptime'), `up ${span(told.uptime)}`);
  for (const card of Object.values(cards)) card.draw(told.time);
  showVerdict(past);
  showReasons(told.reasons);
  showFailures(told.failures);
  const { records, seconds } = told.window;
  for (const each of document.querySelectorAll('.window')) say(each, records ? `last ${count(records)}, in ${span(seconds)}` : '');
  showShares('sources', told.sources, records);
  showShares('destinations', told.destinations, records);
  showLimits(told.limits);
}

let quiet = 0;
let source = null;

function stream(state, text) {
  const element = find('#stream');
  element.dataset.state = state;
  document.body.dataset.stream = state;
  if (element.textContent === text) return;
  element.textContent = text;
  if (state === 'lost') showVerdict(null);
}

function listen() {
  source = new EventSource('/events');
  const lost = () => stream('lost', 'stream lost, reconnecting …');
  source.onmessage = (event) => {
    clearTimeout(quiet);
    quiet = setTimeout(lost, QUIET);
    stream('live', 'updated every second');
    show(JSON.parse(event.data));
  };
  source.onerror = () => {
    clearTimeout(quiet);
    lost();
    if (source?.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN); // refused: the browser gives up by itself
  };
}

// A browser has six connections per host for all its tabs: a page that nobody sees gives its own back after a while.
let rest = 0;
document.addEventListener('visibilitychange', () => {
  clearTimeout(rest);
  if (document.hidden) {
    rest = setTimeout(() => {
      clearTimeout(quiet);
      source.close();
      source = null;
    }, HIDDEN);
  } else if (source === null) {
    listen();
  }
});

for (const card of document.querySelectorAll('.direction')) cards[card.dataset.direction] = new Direction(card);
watchReading();
tellStories();
listen();
