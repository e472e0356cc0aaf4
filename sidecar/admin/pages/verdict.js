// One sentence at the top: is it well, and if not, what is it and what is to be done? It looks at the last minute.

import { count, gist, percent, rate, say } from './words.js';

const WINDOW = 60; // seconds
const ENOUGH = 10; // seconds of figures that a share can be told from
const MANY = 0.01; // of the requests: from here on it is bad
const QUIET = 10000; // ms between two announcements: whoever listens has a page to read
let announced = '';
let announcedAt = -QUIET;
let lost = false;

function sum(past, name) {
  const directions = past.flatMap((told) => Object.values(told.directions));
  return directions.reduce((total, told) => total + (told[name] ?? 0), 0);
}

/** The reason that most failures of the last minute had, with its number: from the counters, or from what is kept. */
function worst(last, first) {
  const before = Object.fromEntries(first.reasons.map((told) => [told.word, told.count]));
  const grown = last.reasons.map((told) => ({ ...told, recent: Math.max(told.count - (before[told.word] ?? 0), last.recent[told.word] ?? 0) }));
  const failed = grown.filter((told) => told.recent > 0).sort((one, other) => other.recent - one.recent);
  return { top: failed[0], failed: failed.reduce((total, told) => total + told.recent, 0) };
}

function limits(told) {
  const { connections, memory } = told.limits;
  if (memory.state === 'refusing') return ['bad', 'Near its memory limit: new work is refused.', 'Raise --memory-limit or the container\'s limit; /memory shows what is used.'];
  if (connections.max && connections.used >= connections.max) return ['bad', `All ${count(connections.max)} connections are in use: new ones are refused.`, 'Raise --max-connections, or look for clients that open connections and leave them.'];
  if (memory.state === 'keepalive_off') return ['warn', 'Memory is short: connections close after each reply.', 'Raise --memory-limit or the container\'s limit.'];
  const waiting = told.limits.pools.reduce((total, pool) => total + (pool.waiting ?? 0), 0);
  if (waiting) return ['warn', `${count(waiting)} requests wait for a connection to their upstream.`, 'The upstream is slower than its load: scale it, or raise --max-app-connections if it can take more at once.'];
  return null;
}

function failures(past, last) {
  const minute = past.filter((told) => told.time > last.time - WINDOW);
  const { top, failed } = worst(last, minute[0]);
  if (!top) return null;
  const seconds = last.time - minute[0].time;
  const requests = sum(minute, 'requests') + sum(minute, 'opaque');
  const share = seconds >= ENOUGH && requests ? Math.min(sum(minute, 'errors') / requests, 1) : null;
  const bad = share === null ? failed >= ENOUGH : share >= MANY;
  const much = share === null || share === 0 ? `${count(failed)} failures` : `${percent(share)} of requests failed`;
  const whose = top.fault === 'client' ? ' (the client\'s doing)' : '';
  const headline = `${much} in the last minute, mostly ${top.flag} ${top.word.replaceAll('_', ' ')}${whose}.`;
  return [bad ? 'bad' : 'warn', headline, `${gist(top.means)} ${top.cure}`];
}

function judge(past) {
  const last = past[past.length - 1];
  const now = Object.values(last.directions).reduce((total, told) => total + (told.requests ?? 0), 0);
  if (last.state === 'draining') return ['warn', 'Draining: it ends when its connections have ended.', `${count(last.limits.connections.used)} client connections are still open.`];
  if (last.state === 'healthcheck_failed') return ['warn', 'Its health check was failed by hand, so it is sent no new traffic.', 'POST /healthcheck/ok takes that back.'];
  if (last.state === 'listeners_drained') return ['warn', 'Its listeners were drained by hand: nobody can connect any more.', 'What is connected is still served. Only a restart takes that back.'];
  if (last.state === 'not_intercepting') return ['bad', 'The rules that lead connections here are gone or changed.', 'What the app sends goes past this proxy. Run sidecar-init again; sidecar-init --verify tells what differs.'];
  if (last.state === 'no_certificate') return ['bad', 'It has no certificate that is good now, and serves nothing that needs one.', '/certs and the application log say why.'];
  if (last.state !== 'live') return ['waiting', 'Starting.', ''];
  const found = limits(last) ?? failures(past, last);
  if (found) return found;
  const earlier = last.failures.length ? 'Earlier failures are below.' : '';
  if (past.length > 1 && !now && !sum(past, 'requests') && !sum(past, 'opaque')) return ['good', 'All is well, and nobody calls.', earlier];
  const rates = past.length > 1 ? `${rate(now).join('')} requests, ` : '';
  return ['good', `All is well: ${rates}no failure in the last minute.`, earlier];
}

/** Shows how it is; null: nobody knows, since the stream is lost. A change is read out, figures are not. */
export function showVerdict(past) {
  const [kind, headline, advice] = past === null
    ? ['bad', 'The stream is lost: the figures below are old.', 'Trying again every second. Is the sidecar still running, and reachable here?']
    : judge(past);
  const element = document.getElementById('verdict');
  element.dataset.kind = kind;
  say(element.querySelector('.headline'), headline);
  say(element.querySelector('.advice'), advice);
  document.title = kind === 'bad' ? '(!) sidecar' : 'sidecar';
  const told = kind + advice.replace(/\d+/g, '');
  const news = (past === null) !== lost; // the stream went, or came back
  if (told !== announced && (news || performance.now() - announcedAt >= QUIET)) {
    document.getElementById('announce').textContent = `${headline} ${advice}`;
    announced = told;
    announcedAt = performance.now();
    lost = past === null;
  }
}
