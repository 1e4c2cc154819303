import { devTarget } from './lib/dev-target.mjs';
import { Stage } from './lib/call.mjs';
const target = await devTarget();
const stage = await Stage.open(target);
const room = 'dbg';
const roomOptions = { singlePeerConnection: true };
const mk = async (id) => {
  const peer = await stage.peer(id);
  await peer.page.evaluate(() => {
    globalThis.sdps = [];
    for (const n of ['setLocalDescription', 'setRemoteDescription']) {
      const o = RTCPeerConnection.prototype[n];
      RTCPeerConnection.prototype[n] = async function (d) {
        const r = { n, type: d?.type, sdp: d?.sdp };
        globalThis.sdps.push(r);
        try {
          return await o.apply(this, arguments);
        } catch (e) {
          r.err = String(e);
          throw e;
        }
      };
    }
  });
  const t = await target.invite({ identity: id, room });
  return peer.join({ ...t, roomOptions });
};
try {
  const [a, b] = [await mk('alice'), await mk('bob')];
  try {
    await a.publishCamera({ simulcast: true });
    console.log('published');
    await b.waitDecoded('alice');
    console.log('decoded');
  } catch (e) {
    console.log('ERR', e.message.slice(0, 300));
  }
  const s = await a.page.evaluate(() => globalThis.sdps);
  for (const x of s) {
    console.log('=====', x.n, x.type, x.err ?? '');
    console.log(
      x.sdp
        .split('\r\n')
        .filter((l) => /^m=|extmap:|a=mid|a=(sendrecv|sendonly|recvonly|inactive)|rid|simulcast/.test(l))
        .join('\n'),
    );
  }
} finally {
  await stage.close();
  await target.close();
}
