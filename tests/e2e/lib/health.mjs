// How other tools judge an object: kstatus's rules, and the Argo CD script that the chart ships.

import { readFileSync } from 'node:fs';
import fengari from 'fengari';

const { lua, lauxlib, lualib, to_luastring: bytes, to_jsstring: text } = fengari;
const SCRIPT = readFileSync(new URL('../../../charts/plenum/docs/health.lua', import.meta.url), 'utf8');

/**
 * The status that kstatus gives to an object of a kind it does not know.
 *
 * @param {any} object
 * @returns {'Terminating' | 'InProgress' | 'Failed' | 'Current'}
 */
export function kstatus(object) {
  const { metadata, status = {} } = object;
  if (metadata.deletionTimestamp) return 'Terminating';
  if (status.observedGeneration !== undefined && status.observedGeneration !== metadata.generation) {
    return 'InProgress';
  }
  const conditions = status.conditions ?? [];
  for (const { type, status: value } of conditions) {
    if (type === 'Reconciling' && value === 'True') return 'InProgress';
    if (type === 'Stalled' && value === 'True') return 'Failed';
  }
  const ready = conditions.find((c) => c.type === 'Ready');
  return !ready || ready.status === 'True' ? 'Current' : 'InProgress';
}

/** A JSON value as a Lua expression. */
function literal(value) {
  if (value === null || value === undefined) return 'nil';
  if (Array.isArray(value)) return `{${value.map(literal).join(',')}}`;
  if (typeof value === 'object') {
    const fields = Object.entries(value).map(([key, field]) => `[${literal(key)}]=${literal(field)}`);
    return `{${fields.join(',')}}`;
  }
  if (typeof value !== 'string') return String(value);
  return `"${[...Buffer.from(value)].map((byte) => `\\${String(byte).padStart(3, '0')}`).join('')}"`;
}

/**
 * What Argo CD shows for an object, by the script that the chart ships.
 *
 * @param {any} object
 * @returns {{status: string, message: string}}
 */
export function argoHealth(object) {
  const state = lauxlib.luaL_newstate();
  lualib.luaL_openlibs(state);
  const program = `obj = ${literal(object)}
local function judge()
${SCRIPT}
end
local hs = judge()
return hs.status, hs.message`;
  const failed = lauxlib.luaL_dostring(state, bytes(program)) !== lua.LUA_OK;
  const values = [-2, -1].map((index) => lua.lua_tostring(state, index)).map((v) => (v ? text(v) : ''));
  if (failed) throw new Error(`health.lua: ${values[1]}`);
  return { status: values[0], message: values[1] };
}
