// A real browser at a real collector: how it is started, how it signs in, and what it must never have to say.
// The task is one JSON object on standard input; the package comes from the folder that it names.

import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

export const task = JSON.parse(await text(process.stdin));
const { chromium } = createRequire(`${task.modules}/`)('playwright-core');

// Quiet towards everything but the collector: no update, no sync, no telemetry.
const QUIET = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--disable-default-apps', '--disable-domain-reliability', '--disable-client-side-phishing-detection',
];

// Crash reports go below the home directory, whatever the profile: a test leaves nothing in the caller's.
const home = mkdtempSync(join(tmpdir(), 'pristine-browser-'));
process.on('exit', () => rmSync(home, { recursive: true, force: true }));

/** Starts the browser with a profile of its own, which is gone with it. */
export const start = () =>
  chromium.launch({
    executablePath: task.chromium,
    headless: true,
    args: QUIET,
    env: { ...process.env, HOME: home, XDG_CONFIG_HOME: join(home, 'config'), XDG_CACHE_HOME: join(home, 'cache') },
  });

/** A fresh visitor. What the console or the content security policy complains about is kept in `complaints`. */
export async function visitor(browser, { width = 1280, height = 900, dark = false, script = true } = {}) {
  const context = await browser.newContext({
    baseURL: task.url,
    viewport: { width, height },
    deviceScaleFactor: 1,
    colorScheme: dark ? 'dark' : 'light',
    javaScriptEnabled: script,
    locale: 'en-GB',
    timezoneId: 'Europe/Berlin',
  });
  context.setDefaultTimeout(30_000);
  const complaints = [];
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      console.error(`content security policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
    });
  });
  const page = await context.newPage();
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(`${message.type()}: ${message.text()} (${page.url()})`);
  });
  page.on('pageerror', (error) => complaints.push(`uncaught: ${error.message} (${page.url()})`));
  page.on('dialog', (dialog) => {
    complaints.push(`a dialog: ${dialog.message()} (${page.url()})`);
    dialog.dismiss();
  });
  page.on('requestfailed', (request) => {
    const why = request.failure()?.errorText;
    // Leaving a page ends its stream of events and what it was fetching.
    if (why !== 'net::ERR_ABORTED') complaints.push(`${request.url()}: ${why}`);
  });
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== task.url) complaints.push(`a request to somebody else: ${request.url()}`);
  });
  return { context, page, complaints };
}

/** Signs in by the form, from wherever the page was asked for. */
export async function signIn(page, path = '/', { user, password } = task) {
  await page.goto(path);
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL((url) => url.pathname !== '/sign-in');
}

/** How many pixels the page is wider than the window; 0 where nothing scrolls sideways. */
export const overhang = (page) => page.evaluate(() => document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth);
