// Pictures of the pages as they are on the fleet that `tests/browser/screenshots` starts.

import { join } from 'node:path';
import { signIn, start, task, visitor } from './browser.mjs';

const browser = await start();
try {
  const take = async (page, path, file, fullPage) => {
    await page.goto(path);
    await page.locator('h1').waitFor();
    await page.evaluate(() => document.fonts.ready);
    await page.screenshot({ path: join(task.folder, file), fullPage });
  };
  const { page } = await visitor(browser, { height: 960 });
  await signIn(page);
  await take(page, '/', 'overview.png', false);
  await take(page, `/violations/${task.violation}`, 'violation.png', true);
  await take(page, `/nodes/${task.node}`, 'node.png', false);
  await take(page, '/activity', 'activity.png', false);

  // Every page in every way that it is read, for whoever works on them.
  for (const look of task.all ? [{ name: 'light' }, { name: 'dark', dark: true }, { name: 'narrow', width: 360 }] : []) {
    const { page: one } = await visitor(browser, look);
    await take(one, '/sign-in', `all-${look.name}-sign-in.png`, true);
    await signIn(one);
    const paths = { overview: '/', nodes: '/nodes', node: `/nodes/${task.node}`, violations: '/violations', images: '/images', sessions: '/sessions', changes: '/changes', exceptions: '/exceptions', activity: '/activity', alerts: '/alerts', settings: '/settings', nothing: '/nothing', ...task.all };
    for (const [name, path] of Object.entries(paths)) await take(one, path, `all-${look.name}-${name}.png`, true);
  }
} finally {
  await browser.close();
}
