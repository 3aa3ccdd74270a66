// From an alert to the login that is responsible: `tests/tests/browser.rs` has a node tell of a login, and gives the alert's violation.

import assert from 'node:assert/strict';
import { findings } from './accessible.mjs';
import { overhang, signIn, start, task, visitor } from './browser.mjs';

const words = async (locator) => (await locator.innerText()).replace(/\s+/g, ' ').trim();
const browser = await start();

try {
  const { page, complaints } = await visitor(browser);
  await signIn(page, `/violations/${task.violation}`);
  assert.match(await words(page.locator('h1')), /etc\/motd/);
  // The one click: everything that this login did.
  await page.locator('#who + *').getByRole('link', { name: /session|login/i }).first().click();
  await page.waitForURL('**/sessions/*');
  const session = await words(page.locator('main'));
  for (const part of ['root', '192.0.2.1', 'pts/0', '/usr/bin/bash', '/usr/bin/vi', '/etc/motd']) assert.ok(session.includes(part), `${part}: ${session}`);

  const found = [];
  for (const path of [page.url(), '/sessions', `/nodes/${task.node}`]) {
    await page.goto(path);
    for (const width of [360, 1280]) {
      await page.setViewportSize({ width, height: 900 });
      assert.equal(await overhang(page), 0, `${path} at ${width}`);
    }
    found.push(...await findings(page));
  }
  assert.deepEqual([...new Set(found)], [], 'axe has nothing to say');
  assert.deepEqual(complaints, [], 'the console had nothing to say');
} finally {
  await browser.close();
}
