// A bad network between this network namespace (near) and one behind it (far), and programs at its far end.
// To be used in a namespace of its own: see tests/e2e/net/isolated.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

const run = promisify(execFile);
/**
 * Addresses of both ends, kept for documentation by RFC 5737: nobody else is in these namespaces, and browsers
 * ask before a page may speak to private ones.
 */
export const NEAR = '198.51.100.1';
export const FAR = '198.51.100.2';

/** Whether this process is in namespaces of its own, so that nothing it makes outlives it or meets others. */
export const isolated = process.env.PLENUM_NET_ISOLATED === '1';

function program() {
  const target = process.env.CARGO_TARGET_DIR ?? join(homedir(), '.cache/plenum/target');
  const candidates = [
    process.env.PLENUM_BENCH_NET_BIN,
    join(target, 'release/plenum-bench-net'),
    join(target, 'debug/plenum-bench-net'),
  ];
  const found = candidates.find((path) => path && existsSync(path));
  if (!found) {
    throw new Error('no plenum-bench-net: run `cargo build -p plenum-bench-net` or set PLENUM_BENCH_NET_BIN');
  }
  return found;
}

const quote = (word) => `'${word.replaceAll("'", `'\\''`)}'`;

/** One child that ends with this process, since its standard input does. */
function child(command, args) {
  const process_ = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  // Told by whoever waits for it.
  process_.on('error', () => {});
  process_.stdin.on('error', () => {});
  return process_;
}

async function stop(process_) {
  if (process_.exitCode !== null || process_.signalCode !== null || process_.pid === undefined) return;
  const exited = once(process_, 'exit');
  process_.stdin.end();
  const stubborn = setTimeout(() => process_.kill('SIGKILL'), 5_000);
  await exited;
  clearTimeout(stubborn);
}

/** Answers one line for each, in order, and fails when its program has ended. */
class Lines {
  constructor(process_, name) {
    this.waiting = [];
    this.process = process_;
    this.ended = null;
    const fail = (why) => {
      this.ended = new Error(`${name} ${why}`);
      for (const { reject } of this.waiting.splice(0)) reject(this.ended);
    };
    process_.on('exit', (code, signal) => fail(`ended with ${code ?? signal}`));
    process_.on('error', (error) => fail(`did not start: ${error.message}`));
    createInterface({ input: process_.stdout }).on('line', (line) => this.waiting.shift()?.resolve(line));
  }

  next() {
    if (this.ended) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  ask(line) {
    const answer = this.next();
    this.process.stdin.write(`${line}\n`);
    return answer;
  }
}

/** The link. `close` ends it, its namespace and what runs in there must be closed before. */
export class BadLink {
  static async open() {
    if (!isolated)
      throw new Error('a bad link needs namespaces of its own: start this by tests/e2e/net/isolated');
    const link = new BadLink();
    try {
      await link.#make();
      return link;
    } catch (error) {
      await link.close();
      throw error;
    }
  }

  async #make() {
    // A namespace lives as long as a process in it.
    this.holder = child('unshare', ['--net', 'sh', '-c', 'echo in && exec cat']);
    await new Lines(this.holder, 'the far namespace').next();
    const far = ['nsenter', `--net=/proc/${this.holder.pid}/ns/net`];
    this.emulator = child(program(), ['--near=near0', '--far=far0']);
    this.lines = new Lines(this.emulator, 'the link');
    await this.lines.next();
    const ip = (...args) => run('ip', args);
    const farIp = (...args) => run(far[0], [...far.slice(1), 'ip', ...args]);
    await ip('link', 'set', 'lo', 'up');
    await ip('link', 'set', 'far0', 'netns', String(this.holder.pid));
    await farIp('link', 'set', 'lo', 'up');
    for (const [side, device, own, other] of [
      [ip, 'near0', NEAR, FAR],
      [farIp, 'far0', FAR, NEAR],
    ]) {
      await side('addr', 'add', own, 'peer', other, 'dev', device);
      await side('link', 'set', device, 'up');
      // Browsers look for their own address by the route to anywhere.
      await side('route', 'add', 'default', 'dev', device);
    }
    this.folder = await mkdtemp(join(tmpdir(), 'plenum-net-'));
    this.far = far;
  }

  /** A program that is `command` at the far end, for those who start programs by their path. */
  async atFarEnd(command) {
    const path = join(this.folder, `far-${command.replaceAll(/[^a-z0-9]+/gi, '-')}`);
    await writeFile(path, `#!/bin/sh\nexec ${this.far.map(quote).join(' ')} ${quote(command)} "$@"\n`);
    await chmod(path, 0o755);
    return path;
  }

  /**
   * Changes the link: a control line without its direction, such as `rate=500k loss=5%`.
   *
   * @param {'down' | 'up' | 'both'} direction `down` is towards the far end.
   * @param {string} settings
   */
  async set(direction, settings) {
    const answer = JSON.parse(await this.lines.ask(`${direction} ${settings}`));
    if (answer.error) throw new Error(`the link: ${answer.error}`);
  }

  /** What became of packets since the link began, by direction. */
  async stats() {
    return JSON.parse(await this.lines.ask('stats'));
  }

  async close() {
    if (this.emulator) await stop(this.emulator);
    if (this.holder) await stop(this.holder);
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
  }
}
