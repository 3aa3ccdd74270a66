// What an operator does in the first minutes, checked in a browser. `tests/tests/browser.rs` starts the fleet and then this.

import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findings } from './accessible.mjs';
import { overhang, signIn, start, task, visitor } from './browser.mjs';

const CONFIG = 'etc/app/app.conf';
const HOSTILE = '<script>alert(1)</script>\n<b onclick=alert(2)>';

const step = (name) => console.error(`- ${name}`);
const words = async (locator) => (await locator.innerText()).replace(/\s+/g, ' ').trim();
const browser = await start();

try {
  const { page, complaints, context } = await visitor(browser);

  step('nobody sees a page before signing in, and the way leads back');
  await page.goto('/nodes?q=web');
  assert.equal(new URL(page.url()).pathname, '/sign-in');
  await page.getByLabel('User').fill(task.user);
  await page.getByLabel('Password').fill('not the password');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').waitFor();
  // A refused sign-in is the one answer of which the console may complain: it names every status above 399.
  const refused = complaints.splice(0);
  assert.ok(refused.every((line) => line.includes('401')), refused.join('\n'));
  assert.equal(await page.getByLabel('User').inputValue(), task.user, 'the name is still there');
  assert.equal(await page.getByLabel('Password').inputValue(), '', 'the password is not');
  await page.getByLabel('Password').fill(task.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL('**/nodes?q=web');
  const cookies = await context.cookies();
  assert.ok(cookies.length > 0 && cookies.every((one) => one.httpOnly && one.sameSite !== 'None'), JSON.stringify(cookies));

  step('the overview says in its first line that all is well');
  await page.getByRole('navigation').getByRole('link', { name: 'Overview' }).click();
  assert.equal(await words(page.locator('h1')), 'All 2 nodes are pristine.');
  assert.match(await words(page.locator('#overview')), /entries attested/);

  step('a change arrives without a reload, in the overview and in the list');
  await page.evaluate(() => { window.never = 'reloaded'; });
  const list = await context.newPage();
  list.on('pageerror', (error) => complaints.push(`uncaught: ${error.message}`));
  await list.goto('/violations');
  assert.equal(await words(list.locator('h1')), 'No open violations.');
  await list.evaluate(() => { window.never = 'reloaded'; });
  await page.bringToFront();
  writeFileSync(join(task.root, CONFIG), 'listen = 8080\n');
  const row = page.locator('ol.causes > li', { hasText: `/${CONFIG}` });
  await row.waitFor();
  assert.match(await words(row), /\/etc\/app\/app\.conf on web-1 is not what the image says: size, content/);
  await page.locator('h1', { hasText: '1 of 2 nodes is pristine.' }).waitFor();
  assert.equal(await page.evaluate(() => window.never), 'reloaded');
  await list.bringToFront();
  await list.locator('tbody tr', { hasText: CONFIG }).waitFor();
  assert.equal(await list.evaluate(() => window.never), 'reloaded');
  await list.close();

  step('two clicks from the first page to what changed');
  await page.bringToFront();
  await page.locator('ul.legend').getByRole('link', { name: /drifted/ }).click();
  await page.getByRole('link', { name: 'web-1' }).click();
  await page.waitForURL('**/nodes/*');
  assert.match(await words(page.locator('h1')), /^web-1 is drifted: 1 path differs\.$/);
  await page.goto('/');
  await page.locator('ol.causes').getByRole('link', { name: /app\.conf/ }).first().click();
  await page.waitForURL('**/violations/*');

  step('the violation tells what, who, when and from where it should have come');
  const violation = page.url();
  assert.match(await words(page.locator('h1')), /^\/etc\/app\/app\.conf on web-1 is not what the image says: size, content\.$/);
  const field = (name) => page.locator('table.compare tr', { has: page.getByRole('rowheader', { name }) }).locator('td');
  assert.deepEqual(await field('size').allInnerTexts(), ['12 bytes', '14 bytes']);
  const size = await field('size').locator('mark').allInnerTexts();
  assert.deepEqual(size, ['2', '4'], 'only what differs is marked');
  const digests = await field(/content/).allInnerTexts();
  assert.ok(digests.every((text) => /^[0-9a-f]{12}/.test(text)) && digests[0] !== digests[1], digests.join(' '));
  assert.equal(await field(/content/).locator('mark').count(), 2);
  const after = async (id) => words(page.locator(`${id} + *`));
  if (task.knows_who) assert.match(await after('#who'), /node.* User root/, 'the process that wrote');
  assert.match(await after('#when'), /Seen by the agent .* Reported .* Alerted/);
  const from = await after('#from');
  for (const part of ['base 1.0', 'https://git.example/base.git', task.commit.slice(0, 12), task.author]) assert.ok(from.includes(part), `${part}: ${from}`);
  assert.match(await after('#history'), /Opened/);
  const title = await page.locator('#when + * time').first().getAttribute('title');
  assert.match(title, /UTC\n.* here$/, 'the exact time, and the reader’s');

  step('a hostile name stays text, on every page that shows it');
  mkdirSync(join(task.root, 'srv/www', HOSTILE.split('/')[0]), { recursive: true });
  writeFileSync(join(task.root, 'srv/www', HOSTILE), 'x');
  await page.goto('/');
  await page.locator('ol.causes > li', { hasText: 'alert(2)' }).waitFor();
  await page.locator('ol.causes').getByRole('link', { name: /alert\(2\)/ }).first().click();
  await page.waitForURL('**/violations/*');
  const shown = page.locator('h1');
  assert.ok((await shown.innerText()).includes('<script>alert(1)</script>'), await shown.innerText());
  assert.ok((await shown.locator('.esc').allInnerTexts()).includes('\\012'), 'the newline is written out, and apart');
  assert.match(await page.title(), /script/);
  for (const path of ['/', '/violations', '/nodes']) {
    await page.goto(path);
    assert.equal(await page.locator('main script, main img').count(), 0, path);
  }

  step('nothing is wider than a telephone, and everybody can use every page: by keyboard, by ear, in the dark');
  await page.goto('/nodes');
  const node = await page.getByRole('link', { name: 'web-1' }).getAttribute('href');
  const places = await page.getByRole('navigation').getByRole('link').evaluateAll((links) => links.map((link) => link.getAttribute('href')));
  const found = [];
  for (const path of [...places, node, `${node}?span=month`, violation]) {
    await page.setViewportSize({ width: 360, height: 740 });
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.goto(path);
    assert.equal(await overhang(page), 0, path);
    found.push(...await findings(page));
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.emulateMedia({ colorScheme: 'light' });
    found.push(...await findings(page));
  }
  assert.deepEqual([...new Set(found)], [], 'axe has nothing to say');

  step('a pointer that only rests on a row stops nothing');
  await page.goto('/violations');
  await page.locator('tbody tr', { hasText: CONFIG }).hover();
  writeFileSync(join(task.root, 'srv/www/empty'), 'no more\n');
  // Opening it for writing emptied it first, which an empty file survives: that is told as well, as changed and put back.
  const written = page.locator('tbody tr', { hasText: '/srv/www/empty' }).filter({ hasText: 'size' });
  await written.waitFor();

  step('what is being typed is left alone, and what was said stands in the history');
  await written.getByRole('link').first().click();
  await page.locator('form[action$="/acknowledge"]').getByLabel('Reason').fill('see <b>ticket</b> 17');
  // Added to, not written anew: emptied, the file would be for a moment what its image says, and this violation over.
  appendFileSync(join(task.root, 'srv/www/empty'), 'and more\n');
  await page.waitForResponse((response) => response.url() === page.url());
  await page.waitForTimeout(500);
  assert.equal(await page.locator('form[action$="/acknowledge"]').getByLabel('Reason').inputValue(), 'see <b>ticket</b> 17');
  assert.equal(await page.getByRole('button', { name: 'Resolve' }).count(), 0, 'it still is so: nobody may say that it is not');
  await page.getByRole('button', { name: 'Acknowledge' }).click();
  await page.locator('main', { hasText: 'Acknowledged by admin' }).waitFor();
  assert.match(await after('#now'), /^Acknowledged by admin .* ago: see <b>ticket<\/b> 17$/);

  step('what was undone is told as resolved, without a reload');
  await page.goto(violation);
  writeFileSync(join(task.root, CONFIG), 'listen = 80\n');
  await page.locator('.lead .state', { hasText: 'resolved' }).waitFor();
  await page.locator('ol.steps', { hasText: 'Resolved' }).waitFor();

  step('what was changed and put back waits for a person, who resolves it');
  await page.goto('/violations?kind=touched');
  await page.locator('tbody tr', { hasText: CONFIG }).getByRole('link').first().click();
  await page.locator('form[action$="/acknowledge"]').getByLabel('Reason').fill('a test of the deployment');
  await page.getByRole('button', { name: 'Resolve' }).click();
  await page.locator('.lead .state', { hasText: 'resolved' }).waitFor();
  assert.match(await words(page.locator('ol.steps')), /Resolved: reviewed by admin: a test of the deployment/);

  step('every page reads without script');
  const plain = await visitor(browser, { script: false });
  await signIn(plain.page);
  assert.match(await words(plain.page.locator('h1')), /1 of 2 nodes is pristine\./);
  await plain.page.locator('ol.causes').getByRole('link', { name: /empty on web-1 is not/ }).first().click();
  assert.match(await words(plain.page.locator('h1')), /^\/srv\/www\/empty on web-1/);
  assert.equal(await plain.page.locator('button.copy:visible').count(), 0, 'no button that does nothing');
  await plain.page.goto('/violations?status=resolved');
  assert.ok(await plain.page.locator('tbody tr', { hasText: CONFIG }).count() > 0);
  await plain.page.getByRole('button', { name: 'Sign out' }).click();
  assert.equal(new URL(plain.page.url()).pathname, '/sign-in');

  step('signing out ends it');
  await page.goto('/');
  await page.getByRole('button', { name: 'Sign out' }).click();
  assert.equal(new URL(page.url()).pathname, '/sign-in');
  await page.goto(violation);
  assert.equal(new URL(page.url()).pathname, '/sign-in');

  assert.deepEqual([...complaints, ...plain.complaints], [], 'the console had nothing to say');
} finally {
  await browser.close();
}
