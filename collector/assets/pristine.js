// Comfort only: every page reads without it. Ages tick, digests copy, rows that arrive are announced and fade in.
(() => {
  'use strict';
  const root = document.documentElement;
  root.classList.add('js');

  const ago = (then) => {
    const s = Math.max(0, Math.floor((Date.now() - then) / 1000));
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 172800) return `${Math.floor(s / 3600)} h ago`;
    return `${Math.floor(s / 86400)} days ago`;
  };
  const zone = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
  const tick = () => {
    for (const t of document.querySelectorAll('time[datetime]')) {
      const then = Date.parse(t.getAttribute('datetime'));
      if (Number.isNaN(then)) continue;
      if (t.classList.contains('age')) {
        const text = ago(then);
        if (t.textContent !== text) t.textContent = text;
      }
      if (!t.dataset.utc) {
        t.dataset.utc = t.title;
        t.title = `${t.title}\n${zone.format(then)} here`;
      }
    }
  };
  tick();
  setInterval(tick, 5000);

  document.addEventListener('click', (event) => {
    const button = event.target.closest('button.copy');
    if (!button || !navigator.clipboard) return;
    navigator.clipboard.writeText(button.dataset.copy).then(() => {
      button.classList.add('done');
      setTimeout(() => button.classList.remove('done'), 1200);
    });
  });

  // A part is not swapped under somebody's hand: while the pointer moves over a row or a link, while a field is being filled in or
  // text is selected, it waits. A pointer that only rests there stops nothing.
  const announce = document.getElementById('announce');
  const STILL = 2000;
  let moved = 0;
  addEventListener('pointermove', () => { moved = performance.now(); }, { passive: true });
  const filled = (field) => field.value !== field.defaultValue;
  const busy = (part) => {
    const holds = document.activeElement;
    if (part.contains(holds) && holds.matches('input, select, textarea')) return true;
    if ([...part.querySelectorAll('textarea, input:not([type=hidden])')].some(filled)) return true;
    const chosen = getSelection();
    if (chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode)) return true;
    return performance.now() - moved < STILL && part.querySelector(':is(a, button, summary, [data-row]):hover') !== null;
  };
  const later = (part) => {
    if (!part.isConnected) return;
    if (busy(part)) setTimeout(later, 500, part);
    else {
      delete part.dataset.waiting;
      window.htmx.trigger(part, 'refresh');
    }
  };
  let before = { rows: new Set(), open: [], link: null };
  const rows = (part) => new Set([...part.querySelectorAll('[data-row]')].map((row) => row.dataset.row));
  document.addEventListener('htmx:beforeSwap', (event) => {
    const part = event.detail.target;
    if (!part.matches('[data-live]')) return;
    if (busy(part)) {
      event.detail.shouldSwap = false;
      if (part.dataset.waiting) return;
      part.dataset.waiting = '1';
      setTimeout(later, 500, part);
      return;
    }
    const holds = part.contains(document.activeElement) ? document.activeElement : null;
    before = {
      rows: rows(part),
      open: [...part.querySelectorAll('details')].map((one) => one.open),
      link: holds && holds.getAttribute('href'),
    };
  });
  // Every message is followed by a request that began after it. Else one that comes while a part is being fetched, or before the
  // stream is open, would be lost with the part that is replaced.
  const asked = new Map();
  let heard = 0;
  document.addEventListener('htmx:beforeRequest', (event) => {
    if (event.detail.elt.matches('[data-live]')) asked.set(event.detail.elt.id, performance.now());
  });
  let checking = 0;
  const catchUp = () => {
    checking = 0;
    const behind = [...document.querySelectorAll('[data-live]')].filter((part) => (asked.get(part.id) ?? 0) < heard);
    for (const part of behind) if (!busy(part)) window.htmx.trigger(part, 'refresh');
    if (behind.length) checking = setTimeout(catchUp, 1500);
  };
  for (const told of ['htmx:sseOpen', 'htmx:sseMessage']) {
    document.addEventListener(told, () => {
      heard = performance.now();
      checking ||= setTimeout(catchUp, 1500);
    });
  }
  document.addEventListener('htmx:afterSettle', (event) => {
    const part = document.getElementById(event.detail.target.id);
    tick();
    if (!part || !part.matches('[data-live]')) return;
    [...part.querySelectorAll('details')].forEach((one, at) => { one.open = one.open || Boolean(before.open[at]); });
    if (before.link) part.querySelector(`a[href="${CSS.escape(before.link)}"]`)?.focus({ preventScroll: true });
    let fresh = 0;
    for (const row of part.querySelectorAll('[data-row]')) {
      if (before.rows.has(row.dataset.row)) continue;
      row.classList.add('arrived');
      fresh += 1;
    }
    if (fresh && announce) announce.textContent = `${fresh} new`;
  });
})();
