// The page's course: read the link, get ready, join, and say in words how it ended.
import { guestToken, meetingInfo, Refused } from './api.ts';
import { showCall } from './call.ts';
import { h } from './dom.ts';
import { readLink, readToken, type Link } from './link.ts';
import { showPrejoin, type Ready } from './prejoin.ts';
import { ofConnectError, ofEnd, PASSING, type Words } from './words.ts';

/** How long a meeting that is getting ready is waited for. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 2000;

async function main(app: HTMLElement): Promise<void> {
  const link = readLink(location.pathname, location.hash);
  if (!link) {
    return showWords(app, {
      code: 'RequestMalformed',
      title: 'This link is not complete',
      text: 'A link to a meeting ends in /m/NAMESPACE/MEETING.',
      again: false,
    });
  }
  keepToken(link);
  const info = await meetingInfo(link.namespace, link.meeting);
  const token = link.token ? readToken(link.token) : null;
  if (!link.token && !info.guests) {
    return showWords(app, {
      code: 'GuestsNotAllowed',
      title: 'This meeting needs an invitation',
      text: 'Open the link that a host sent you, or ask one for it. If you are signed in to the cluster, mint one for yourself:',
      again: false,
      command: mintCommand(link),
    });
  }
  const title = info.title ?? link.meeting;
  document.title = `${title} – Plenum`;
  const canPublish = token?.canPublish ?? true;
  showPrejoin(app, {
    title,
    fixedName: link.token ? (token?.name ?? 'you') : null,
    canPublish,
    onJoin: (ready) => void join(app, link, title, canPublish, ready),
  });
}

async function join(
  app: HTMLElement,
  link: Link,
  title: string,
  canPublish: boolean,
  ready: Ready,
): Promise<void> {
  showWaiting(app, 'Joining…');
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    let token = link.token;
    let words: Words;
    try {
      token ??= (await guestToken(link.namespace, link.meeting, ready.name)).token;
      await showCall(app, {
        title,
        token,
        ready,
        canPublish,
        onEnd: (reason) => {
          stop(ready);
          const end = ofEnd(reason);
          if (end?.code === 'ParticipantRemoved') dropToken(link);
          showWords(
            app,
            end ?? {
              code: 'Left',
              title: 'You left the meeting',
              text: 'You can close this window.',
              again: true,
            },
          );
        },
      });
      return;
    } catch (error) {
      words = error instanceof Refused ? error.words : await ofConnectError(error, token ?? '');
    }
    if (!PASSING.has(words.code) || Date.now() > until) {
      stop(ready);
      return showWords(app, words);
    }
    showWaiting(app, words.title);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function stop(ready: Ready): void {
  ready.audio?.stop();
  ready.video?.stop();
}

function showWaiting(app: HTMLElement, text: string): void {
  app.replaceChildren(
    h(
      'section',
      { class: 'message', 'data-testid': 'waiting' },
      h('div', { class: 'spinner', 'aria-hidden': 'true' }),
      h('h1', { role: 'status' }, text),
    ),
  );
}

function showWords(app: HTMLElement, words: Words & { command?: string }): void {
  const again = h(
    'button',
    { type: 'button', class: 'primary', 'data-testid': 'again-button' },
    words.code === 'Left' ? 'Join again' : 'Try again',
  );
  again.addEventListener('click', () => void main(app));
  app.replaceChildren(
    h(
      'section',
      { class: 'message', role: 'alert', 'data-testid': 'message', 'data-code': words.code },
      h('h1', { 'data-testid': 'message-title' }, words.title),
      h('p', { 'data-testid': 'message-text' }, words.text),
      words.command ? h('pre', { tabindex: 0, 'data-testid': 'message-command' }, words.command) : null,
      words.again && again,
    ),
  );
}

/** What somebody with access to the cluster types for a link of their own. */
function mintCommand(link: Link): string {
  const request =
    '{"apiVersion":"live.plenum.dev/v1alpha1","kind":"TokenRequest","spec":{"identity":"me","role":"host"}}';
  const path = `/apis/live.plenum.dev/v1alpha1/namespaces/${link.namespace}/meetings/${link.meeting}/token`;
  return `echo '${request}' |\n  kubectl create --raw ${path} -f - |\n  jq -r .status.joinURL`;
}

// A token in the address bar is a token in screenshots and shared links: it is kept for this tab
// alone, so that reloading works.
const storageKey = (link: Link) => `plenum.token/${link.namespace}/${link.meeting}`;

function keepToken(link: Link): void {
  try {
    if (link.token) {
      sessionStorage.setItem(storageKey(link), link.token);
      history.replaceState(null, '', location.pathname);
    } else {
      link.token = sessionStorage.getItem(storageKey(link));
    }
  } catch {
    // Without storage the token stays in the address.
  }
}

function dropToken(link: Link): void {
  try {
    sessionStorage.removeItem(storageKey(link));
  } catch {
    // Then there was none.
  }
}

const app = document.getElementById('app');
if (app) {
  void main(app);
  // A link with a new token may be opened in the same tab.
  window.addEventListener('hashchange', () => {
    if (location.hash.includes('token=')) location.reload();
  });
}
