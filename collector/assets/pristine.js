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

  // What is under the pointer, or holds the focus, does not move: the swap waits until it is left.
  const announce = document.getElementById('announce');
  let before = new Set();
  const ids = (part) => new Set([...part.querySelectorAll('[data-row]')].map((row) => row.dataset.row));
  document.addEventListener('htmx:beforeSwap', (event) => {
    const part = event.detail.target;
    if (!part.matches('[data-live]')) return;
    before = ids(part);
    if (part.matches(':hover') || part.contains(document.activeElement)) {
      event.detail.shouldSwap = false;
      if (part.dataset.waiting) return;
      part.dataset.waiting = '1';
      part.addEventListener('mouseleave', () => {
        delete part.dataset.waiting;
        window.htmx.trigger(part, 'refresh');
      }, { once: true });
    }
  });
  document.addEventListener('htmx:afterSettle', (event) => {
    const part = document.getElementById(event.detail.target.id);
    tick();
    if (!part || !part.matches('[data-live]')) return;
    let fresh = 0;
    for (const row of part.querySelectorAll('[data-row]')) {
      if (before.has(row.dataset.row)) continue;
      row.classList.add('arrived');
      fresh += 1;
    }
    if (fresh && announce) announce.textContent = `${fresh} new`;
  });
})();
