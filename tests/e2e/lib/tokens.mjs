// Tokens as the LiveKit server SDKs mint them, good ones and bad ones.

import { createHmac } from 'node:crypto';
import { AccessToken } from 'livekit-server-sdk';

/**
 * @typedef {{apiKey: string, apiSecret: string}} Keys
 * @typedef {{identity: string, room: string, name?: string, metadata?: string, ttlSeconds?: number,
 *   attributes?: Record<string, string>, grant?: object}} TokenSpec
 */

/**
 * @param {Keys} keys
 * @param {TokenSpec} spec
 */
export function mint(
  { apiKey, apiSecret },
  { identity, room, name, metadata, attributes, ttlSeconds = 600, grant },
) {
  const token = new AccessToken(apiKey, apiSecret, { identity, name, metadata, attributes, ttl: ttlSeconds });
  token.addGrant({
    roomJoin: true,
    room,
    canPublish: true,
    canSubscribe: true,
    canPublishData: true,
    ...grant,
  });
  return token.toJwt();
}

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A JWT with any header and claims, signed with HS256 whatever its header says. */
export function forge(header, claims, secret) {
  const body = `${part(header)}.${part(claims)}`;
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}

/**
 * Tokens that every server must refuse, each with the codes of the error catalogue that fit.
 *
 * @param {Keys} keys
 * @param {string} room
 * @param {string} otherRoom
 */
export async function badTokens(keys, room, otherRoom) {
  const now = Math.floor(Date.now() / 1000);
  const video = { roomJoin: true, room };
  const claims = { iss: keys.apiKey, sub: 'mallory', nbf: now - 60, exp: now + 600, video };
  const header = { alg: 'HS256', typ: 'JWT' };
  return [
    { name: 'no token', token: '', codes: ['TokenMissing', 'TokenMalformed'], status: 401 },
    { name: 'not a JWT', token: 'not-a-token', codes: ['TokenMalformed'], status: 401 },
    {
      name: 'expired',
      token: forge(header, { ...claims, nbf: now - 7200, exp: now - 3600 }, keys.apiSecret),
      codes: ['TokenExpired'],
      status: 401,
    },
    {
      name: 'not valid yet',
      token: forge(header, { ...claims, nbf: now + 3600, exp: now + 7200 }, keys.apiSecret),
      codes: ['TokenNotYetValid'],
      status: 401,
    },
    {
      name: 'signed with another secret',
      token: forge(header, claims, 'another-secret-another-secret-000000'),
      codes: ['TokenSignature'],
      status: 401,
    },
    {
      name: 'from an unknown key',
      token: forge(header, { ...claims, iss: 'nobody' }, keys.apiSecret),
      codes: ['TokenUnknownKey'],
      status: 401,
    },
    {
      name: 'algorithm none',
      token: `${part({ alg: 'none', typ: 'JWT' })}.${part(claims)}.`,
      codes: ['TokenMalformed'],
      status: 401,
    },
    {
      name: 'another algorithm',
      token: forge({ alg: 'HS512', typ: 'JWT' }, claims, keys.apiSecret),
      codes: ['TokenMalformed', 'TokenSignature'],
      status: 401,
    },
    {
      name: 'without an expiry',
      // LiveKit's own server lets it in.
      strict: true,
      token: forge(header, { ...claims, exp: undefined }, keys.apiSecret),
      codes: ['TokenMalformed'],
      status: 401,
    },
    {
      name: 'without an identity',
      strict: true,
      token: forge(header, { ...claims, sub: '' }, keys.apiSecret),
      codes: ['IdentityMissing'],
      // 400 by the catalogue; on these endpoints a status whose words the stock client passes on.
      status: [400, 401, 403],
    },
    {
      name: 'without the right to join',
      token: forge(header, { ...claims, video: { room } }, keys.apiSecret),
      codes: ['NotPermitted'],
      status: 403,
    },
    {
      name: 'for another meeting',
      // Where rooms are made by joining, no room is the wrong one.
      anyRoom: true,
      token: forge(header, { ...claims, video: { roomJoin: true, room: otherRoom } }, keys.apiSecret),
      codes: ['TokenWrongMeeting', 'MeetingNotFound', 'RoomNotFound'],
      status: [403, 404],
    },
  ];
}
