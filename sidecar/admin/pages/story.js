// The panel that tells what happened to one request, step by step, as /explain has it. Its address is #explain/ID.

import { bytes, count, make, milliseconds, say } from './words.js';

const PREFIX = '#explain/';

export function address(id) {
  return PREFIX + encodeURIComponent(id);
}

function facts(rows) {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return make('dl', {}, ...shown.flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)]));
}

function mono(text) {
  return text ? make('span', { class: 'mono' }, text) : null;
}

function step(title, ...content) {
  return make('li', {}, make('h3', {}, title), ...content);
}

function connection(told) {
  return step('The client connected', facts([
    ['from', mono(told.client)],
    ['has shown to be', mono(told.peer)],
    ['speaks', told.detected ?? told.protocol],
    ['found out after', told.detected_after_ms ? milliseconds(told.detected_after_ms) : null],
    ['opened', told.opened_before_ms === undefined ? null : `${milliseconds(told.opened_before_ms)} before this`],
    ['server name', mono(told.requested_server_name)],
  ]));
}

function request(told) {
  if (!told.method) return step('No request could be read', make('p', { class: 'note' }, 'Its head was refused, or these are opaque bytes.'));
  const forwarded = told.path_forwarded === told.path_as_sent ? 'as it came' : mono(told.path_forwarded);
  const judged = (told.path_judged ?? []).filter((path) => path !== told.path_forwarded);
  return step('It asked', facts([
    ['method', told.method],
    ['authority', mono(told.authority)],
    ['path', mono(told.path_as_sent)],
    ['forwarded', told.path_forwarded ? forwarded : null],
    ['judged also as', judged.length ? mono(judged.join('  ')) : null],
    ['body received', bytes(told.body_bytes ?? 0)],
  ]));
}

function stripped(names) {
  if (!names.length) return step('Headers stripped', make('p', { class: 'note' }, 'None: it sent nothing that is for one hop alone, or that only a mesh may set.'));
  return step('Headers stripped', make('p', {}, mono(names.join(', '))),
    make('p', { class: 'note' }, 'These are for one hop alone, or only a mesh may set them: what the client sent did not go on.'));
}

function attempts(tries) {
  if (!tries.length) return step('Upstream', make('p', { class: 'note' }, 'Not asked: it ended before.'));
  const title = tries.length === 1 ? 'Upstream, one try' : `Upstream, ${tries.length} tries`;
  return step(title, ...tries.map((each, at) => make('div', { class: 'try' }, facts([
    ['try', tries.length > 1 ? count(at + 1) : null],
    ['to', mono(each.upstream)],
    ['which has shown to be', mono(each.peer)],
    ['connection', each.connection === 'none' ? 'none: it could not be had' : each.connection],
    ['began after', tries.length > 1 && each.began_after_ms !== undefined ? milliseconds(each.began_after_ms) : null],
    ['first byte after', each.first_byte_after_ms ? milliseconds(each.first_byte_after_ms)
      : each.connection === 'none' || each.outcome === 'answered' ? null : 'none came'],
    ['ended after', milliseconds(each.ended_after_ms)],
    ['outcome', each.outcome.replaceAll('_', ' ')],
    ['status', each.status ? count(each.status) : null],
    ['detail', each.detail],
  ]))));
}

function reply(told) {
  return step('The client was told', facts([
    ['status', told.status === null ? 'nothing: the connection ended' : count(told.status)],
    ['flag', told.flag],
    ['body sent', bytes(told.body_bytes_sent ?? 0)],
    ['after', milliseconds(told.duration_ms)],
  ]));
}

function outcome(told) {
  const bad = told.flag !== '-' || told.status >= 500;
  const words = [told.status, told.flag === '-' ? null : told.flag, told.reason?.replaceAll('_', ' ')].filter(Boolean);
  const whose = told.fault ? `: ${{ ours: 'a fault of the proxy', overload: 'overload', drain: 'drain' }[told.fault] ?? `a matter of the ${told.fault}`}` : '';
  return make('div', { class: 'outcome', 'data-kind': bad ? 'bad' : 'good' },
    make('p', { class: 'headline' }, words.join(' · ') + whose),
    make('p', {}, told.means ?? ''),
    told.detail ? make('p', {}, make('strong', {}, 'Detail: '), told.detail) : null,
    told.what_to_do ? make('p', {}, make('strong', {}, 'What to do: '), told.what_to_do) : null);
}

function story(told) {
  return [
    make('p', { class: 'mono' }, `${told.request_id}  ${told.direction}`),
    outcome(told.outcome),
    make('ol', { class: 'steps' },
      connection(told.connection), request(told.request), stripped(told.headers_stripped),
      attempts(told.upstream.tries), reply(told.outcome)),
  ];
}

/** Follows the address: #explain/ID opens the panel, closing it takes the address back. */
export function tellStories() {
  const panel = document.getElementById('story');
  const body = document.getElementById('story-body');
  let asked = 0;
  let shown = '';

  async function follow() {
    const number = ++asked;
    if (!location.hash.startsWith(PREFIX)) {
      if (panel.open) panel.close();
      return;
    }
    shown = location.hash;
    body.replaceChildren(make('p', { class: 'empty' }, 'Asking …'));
    if (!panel.open) panel.showModal();
    let content;
    try {
      const id = decodeURIComponent(location.hash.slice(PREFIX.length));
      const answer = await fetch(`/explain/${encodeURIComponent(id)}?format=json`);
      content = answer.ok ? story(await answer.json()) : [make('p', { class: 'empty' }, await answer.text())];
    } catch (error) {
      content = [make('p', { class: 'empty' }, `The story could not be fetched (${error.message}). Is the sidecar running?`)];
    }
    if (number === asked) body.replaceChildren(...content);
  }

  panel.addEventListener('close', () => {
    if (location.hash === shown) history.replaceState(null, '', location.pathname); // else the next one is asked for
  });
  panel.addEventListener('click', (event) => {
    if (event.target === panel) panel.close(); // beside it
  });
  document.getElementById('story-close').addEventListener('click', () => panel.close());
  document.getElementById('ask').addEventListener('submit', (event) => {
    event.preventDefault();
    const id = document.getElementById('ask-id').value.trim();
    if (id) location.hash = address(id);
  });
  window.addEventListener('hashchange', follow);
  say(body, '');
  follow();
}
