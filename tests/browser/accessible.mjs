// What axe-core has to say of a page: WCAG 2.2 A and AA, and its best practices.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { task } from './browser.mjs';

const source = readFileSync(createRequire(`${task.modules}/`).resolve('axe-core/axe.min.js'), 'utf8');

/** One line for each finding: rule, place, and what to do. The page's own policy forbids strange scripts; the browser's debugger is let through. */
export async function findings(page) {
  await page.evaluate(source);
  const { violations } = await page.evaluate(() => window.axe.run(document));
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${new URL(page.url()).pathname}: ${id}: ${node.target.join(' ')}: ${node.failureSummary}`));
}
