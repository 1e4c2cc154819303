// The bad networks, as control lines of the link. Media flows `with` the series' direction; what comes back
// (feedback, signalling) flows against it.

/** Somewhere in the same country, on a good line: the network before and after. */
const GOOD = 'clear delay=20ms';

/**
 * @typedef {object} Cell
 * @property {string} name
 * @property {string} before Media's direction until the window begins, and the other unless told.
 * @property {string} during Media's direction in the window.
 * @property {string} back The other direction in the window.
 * @property {string} after Both directions after the window.
 * @property {number | null} kbps The line's rate in the window.
 * @property {boolean} fixed Whether the call begins on the bad network.
 */

/** @returns {Cell} */
function cell(name, { before = GOOD, during, back = during, after = GOOD, kbps = null, fixed = false }) {
  return { name, before, during, back, after, kbps, fixed };
}

const loss = (percent) => cell(`loss ${percent} %`, { during: `${GOOD} loss=${percent}%` });
const delay = (rtt) => cell(`delay ${rtt} ms`, { during: `clear delay=${rtt / 2}ms` });
/** Narrow in media's direction alone. */
const rate = (kbps) =>
  cell(`rate ${kbps} k`, {
    before: `${GOOD} rate=${kbps}k`,
    during: `${GOOD} rate=${kbps}k`,
    back: GOOD,
    kbps,
    fixed: true,
  });

/** @type {Cell[]} */
export const CELLS = [
  cell('clear', { during: GOOD }),
  loss(1),
  loss(5),
  loss(10),
  cell('bursts 5 %', { during: `${GOOD} loss=5% burst=4` }),
  delay(50),
  delay(200),
  delay(400),
  cell('jitter 30 ms', { during: 'clear delay=40ms jitter=30ms' }),
  cell('step 3 M to 300 k', {
    before: `${GOOD} rate=3M`,
    during: `${GOOD} rate=300k`,
    back: GOOD,
    after: `${GOOD} rate=3M`,
    kbps: 300,
  }),
  rate(300),
  rate(500),
  rate(1000),
  rate(3000),
];

/** What a smoke run looks at. */
export const QUICK = ['loss 5 %', 'step 3 M to 300 k'];
