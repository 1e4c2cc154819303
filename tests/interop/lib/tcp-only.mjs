// A network that lets no UDP through, as far as a client can tell: a relay of the signalling that takes
// the UDP candidates out of every description. What is left is ICE-TCP on the same port.

import { SignalResponse } from '@livekit/protocol';
import { createServer, request } from 'node:http';
import { once } from 'node:events';
import WebSocket, { WebSocketServer } from 'ws';

/** A description without candidates over UDP. */
export function withoutUdp(sdp) {
  const left = sdp.split('\r\n').filter((line) => !/^a=candidate:\S+ \d+ udp /i.test(line));
  if (!left.some((line) => /^a=candidate:\S+ \d+ tcp /i.test(line))) {
    throw new Error(`no candidate over TCP in\n${sdp}`);
  }
  return left.join('\r\n');
}

function changed(bytes) {
  const response = SignalResponse.fromBinary(bytes);
  const { case: kind, value } = response.message;
  if (kind !== 'answer' && kind !== 'offer') return bytes;
  value.sdp = withoutUdp(value.sdp);
  return response.toBinary();
}

/**
 * @param {import('../../e2e/lib/call.mjs').Target} target
 * @returns {Promise<import('../../e2e/lib/call.mjs').Target & {close: () => Promise<void>}>} The same
 *   server without UDP. Closing it leaves the other open.
 */
export async function tcpOnly(target) {
  /** Where each token is meant for. */
  let upstream;
  const relay = createServer((incoming, outgoing) => {
    const { pathname, search } = new URL(incoming.url, 'http://localhost');
    const url = new URL(upstream.replace(/^ws/, 'http'));
    const { method, headers } = incoming;
    const through = request(
      { host: url.hostname, port: url.port, path: pathname + search, method, headers },
      (response) => {
        outgoing.writeHead(response.statusCode, response.headers);
        response.pipe(outgoing);
      },
    );
    through.on('error', () => outgoing.destroy());
    incoming.pipe(through);
  });
  const sockets = new WebSocketServer({ noServer: true });
  relay.on('upgrade', (incoming, raw, head) => {
    const { authorization } = incoming.headers;
    const server = new WebSocket(upstream + incoming.url, {
      headers: authorization ? { authorization } : {},
    });
    server.on('error', () => raw.destroy());
    // A refusal goes back as it is.
    server.on('unexpected-response', (_, response) => {
      raw.write(`HTTP/1.1 ${response.statusCode} ${response.statusMessage}\r\n\r\n`);
      response.pipe(raw);
    });
    server.once('open', () =>
      sockets.handleUpgrade(incoming, raw, head, (client) => {
        client.on('message', (bytes) => server.send(bytes));
        client.on('close', () => server.close());
        client.on('error', () => server.close());
        for (const bytes of waiting.splice(0)) client.send(changed(bytes));
        server.removeListener('message', wait);
        server.on('message', (bytes) => client.send(changed(bytes)));
        server.on('close', () => client.close());
      }),
    );
    const waiting = [];
    const wait = (bytes) => waiting.push(bytes);
    server.on('message', wait);
  });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  return {
    name: `${target.name}, TCP only`,
    async invite(spec) {
      const { url, token } = await target.invite(spec);
      upstream = url;
      return { url: `ws://127.0.0.1:${relay.address().port}`, token };
    },
    log: () => target.log(),
    async close() {
      for (const client of sockets.clients) client.terminate();
      await new Promise((resolve) => relay.close(resolve).closeAllConnections());
    },
  };
}
