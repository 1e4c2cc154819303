// Elements without markup: whatever people type ends in a text node.

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined>;

/** An element with attributes and children. `true` is an attribute without a value. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  set(element, attributes);
  for (const child of children) {
    if (child) element.append(child);
  }
  return element;
}

/** Sets attributes; false, null and undefined remove them. */
export function set(element: Element, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
}

const ICONS = {
  mic: 'M12 15a3.5 3.5 0 0 0 3.5-3.5v-5a3.5 3.5 0 0 0-7 0v5A3.5 3.5 0 0 0 12 15zm6-3.5a6 6 0 0 1-12 0H4a8 8 0 0 0 7 7.9V22h2v-2.6a8 8 0 0 0 7-7.9z',
  micOff:
    'M15.5 11.5v-5a3.5 3.5 0 0 0-6.9-.8l6.8 6.8zM3.3 2 2 3.3l6.5 6.5v1.7a3.5 3.5 0 0 0 5 3.2l1.5 1.5a6 6 0 0 1-9-4.7H4a8 8 0 0 0 7 7.9V22h2v-2.6a8 8 0 0 0 3.4-1.2l4.3 4.3 1.3-1.3zM18 11.500a6 6 0 0 1-.5 2.400l1.500 1.500a8 8 0 0 0 1-3.900z',
  camera: 'M4 6h11a2 2 0 0 1 2 2v2.500l4-2.500v8l-4-2.500V16a2 2 0 0 1-2 2H4a2 2 0 0 1-2-2V8a2 2 0 0 1 2-2z',
  cameraOff:
    'M3.300 2 2 3.300 4.700 6H4a2 2 0 0 0-2 2v8a2 2 0 0 0 2 2h11c.500 0 1-.200 1.300-.500l4.400 4.400 1.300-1.300zM21 8l-4 2.500V8a2 2 0 0 0-2-2H9.400L21 17.600z',
  screen:
    'M4 4h16a2 2 0 0 1 2 2v10a2 2 0 0 1-2 2h-6v2h3v2H7v-2h3v-2H4a2 2 0 0 1-2-2V6a2 2 0 0 1 2-2zm8 3-4 4h2.700v4h2.600v-4H16z',
  chat: 'M4 4h16a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2H9l-5 4v-4a2 2 0 0 1-2-2V6a2 2 0 0 1 2-2z',
  hand: 'M8 13V5a1.500 1.500 0 0 1 3 0v6h1V3.500a1.500 1.500 0 0 1 3 0V11h1V5.500a1.500 1.500 0 0 1 3 0V16a6 6 0 0 1-6 6h-1.500a6 6 0 0 1-4.700-2.300L3.500 14.200a1.500 1.500 0 0 1 2.300-1.900z',
  rooms: 'M4 4h7v7H4zm9 0h7v7h-7zM4 13h7v7H4zm9 0h7v7h-7z',
  leave:
    'M12 9c-1.600 0-3.200.300-4.600.700v3.100c0 .400-.200.700-.600.900-1 .500-1.900 1.100-2.700 1.800a1 1 0 0 1-1.400 0L.300 13.100a1 1 0 0 1 0-1.400A16.800 16.800 0 0 1 12 7c4.600 0 8.700 1.800 11.700 4.700a1 1 0 0 1 0 1.400l-2.400 2.400a1 1 0 0 1-1.400 0c-.800-.700-1.700-1.300-2.700-1.800a1 1 0 0 1-.600-.900V9.700A15 15 0 0 0 12 9z',
} as const;

export type Icon = keyof typeof ICONS;

/** A decorative picture; what it means is said by the label of the control around it. */
export function icon(name: Icon): SVGSVGElement {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  set(svg, { viewBox: '0 0 24 24', 'aria-hidden': 'true', class: 'icon' });
  const path = document.createElementNS(space, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/** Shows or hides a text. */
export function say(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
  set(element, { hidden: !text });
}

/** A choice; what somebody is just choosing is left alone. */
export function choices(
  select: HTMLSelectElement,
  options: [value: string, label: string][],
  value: string,
): void {
  const signature = JSON.stringify(options);
  if (select.dataset.options !== signature) {
    const before = select.value;
    select.replaceChildren(...options.map(([of, label]) => h('option', { value: of }, label)));
    select.dataset.options = signature;
    select.value = before;
  }
  if (document.activeElement !== select || select.selectedIndex < 0) select.value = value;
}

interface Kept<T> {
  element: HTMLElement;
  update(item: T): void;
}

/**
 * Elements for items, in their order. Each is made once and then updated, so that what somebody types or
 * has in focus stays, and moved only where the order changes.
 */
export class Keyed<T> {
  private readonly kept = new Map<string, Kept<T>>();

  constructor(
    private readonly parent: HTMLElement,
    private readonly key: (item: T) => string,
    private readonly make: (item: T) => Kept<T>,
  ) {}

  show(items: readonly T[]): void {
    const wanted = new Set(items.map(this.key));
    for (const [key, { element }] of this.kept) {
      if (wanted.has(key)) continue;
      element.remove();
      this.kept.delete(key);
    }
    let next = this.parent.firstElementChild;
    for (const item of items) {
      const key = this.key(item);
      let kept = this.kept.get(key);
      if (!kept) {
        kept = this.make(item);
        this.kept.set(key, kept);
      }
      kept.update(item);
      if (kept.element === next) next = next.nextElementSibling;
      else this.parent.insertBefore(kept.element, next);
    }
  }
}

/** Says something to people who do not look at the screen. */
export function announce(text: string): void {
  const announcer = document.getElementById('announcer');
  if (announcer) announcer.textContent = text;
}
