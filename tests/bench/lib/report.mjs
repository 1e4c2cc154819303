// From what was measured to what is printed.

const ROWS = [
  ['cpu_ns_per_forwarded_packet', 0],
  ['cpu_ns_per_received_packet', 0],
  ['packets_per_second', 0],
  ['received_per_second', 0],
  ['lost_per_second', 1],
  ['cpu_percent_of_a_core', 1],
  ['rss_mib', 1],
  ['rss_per_subscriber_kib', 0],
  ['cpu_ms_per_join', 1],
];
/** Counted the same way on both servers, and more is worse. */
const COMPARED = ['cpu_ns_per_received_packet', 'rss_mib', 'rss_per_subscriber_kib', 'cpu_ms_per_join'];

/** The numbers of one server; `sent` is null where it does not count. */
export function figures({ subscribers, seconds, cpu, sent, received, lost, rss, rssBefore, joinCpu }) {
  const all = {
    cpu_ns_per_forwarded_packet: sent === null ? null : (cpu * 1e9) / sent,
    cpu_ns_per_received_packet: (cpu * 1e9) / received,
    packets_per_second: sent === null ? null : sent / seconds,
    received_per_second: received / seconds,
    lost_per_second: lost / seconds,
    cpu_percent_of_a_core: (cpu * 100) / seconds,
    rss_mib: rss / 1024,
    rss_per_subscriber_kib: (rss - rssBefore) / subscribers,
    cpu_ms_per_join: (joinCpu * 1000) / subscribers,
    window_seconds: seconds,
  };
  return Object.fromEntries(
    Object.entries(all).map(([name, value]) => [name, value === null ? null : Number(value.toFixed(2))]),
  );
}

/** Of the first server to the second: below 1, the first does it with less. */
export function ratios(first, second) {
  return Object.fromEntries(COMPARED.map((name) => [name, Number((first[name] / second[name]).toFixed(3))]));
}

export function table(servers, ratio) {
  const columns = [...Object.keys(servers), ...(ratio ? ['ratio'] : [])];
  const cell = (text) => String(text).padStart(12);
  const lines = [''.padEnd(30) + columns.map(cell).join('')];
  for (const [name, digits] of ROWS) {
    const values = Object.values(servers).map((server) => server[name]?.toFixed(digits) ?? '-');
    if (ratio) values.push(ratio[name]?.toFixed(2) ?? '');
    lines.push(name.padEnd(30) + values.map(cell).join(''));
  }
  return lines.join('\n');
}
