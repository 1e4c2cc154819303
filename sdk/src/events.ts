/** Callbacks by the name of what they wait for. */
export class Events<Map extends object> {
  private readonly callbacks = new Map<keyof Map, Set<(event: never) => void>>();

  /** Calls back on every such event, until the returned function is called. */
  on<K extends keyof Map>(name: K, callback: (event: Map[K]) => void): () => void {
    const entry = callback as (event: never) => void;
    const set = this.callbacks.get(name) ?? new Set();
    this.callbacks.set(name, set.add(entry));
    return () => set.delete(entry);
  }

  /** A callback that throws keeps no other from being called. */
  emit<K extends keyof Map>(name: K, event: Map[K]): void {
    for (const callback of [...(this.callbacks.get(name) ?? [])]) {
      try {
        (callback as (event: Map[K]) => void)(event);
      } catch (error) {
        console.error(`plenum: a callback for ${String(name)} failed`, error);
      }
    }
  }

  clear(): void {
    this.callbacks.clear();
  }
}
