export type Heap<Item> = ReturnType<typeof createHeap<Item>>;

/** Binary heap by time: the least comes first. */
export function createHeap<Item>() {
  const times: number[] = [];
  const items: Item[] = [];
  function swap(a: number, b: number): void {
    const time = times[a] as number;
    const item = items[a] as Item;
    times[a] = times[b] as number;
    items[a] = items[b] as Item;
    times[b] = time;
    items[b] = item;
  }
  return {
    least: (): number | undefined => times[0],
    push(item: Item, at: number): void {
      let i = times.push(at) - 1;
      items.push(item);
      while (i > 0) {
        const parent = (i - 1) >> 1;
        if ((times[parent] as number) <= (times[i] as number)) break;
        swap(i, parent);
        i = parent;
      }
    },
    pop(): Item {
      const top = items[0] as Item;
      const last = times.length - 1;
      swap(0, last);
      times.pop();
      items.pop();
      for (let i = 0; ; ) {
        const left = 2 * i + 1;
        if (left >= last) break;
        const right = left + 1;
        const least = right < last && (times[right] as number) < (times[left] as number) ? right : left;
        if ((times[i] as number) <= (times[least] as number)) break;
        swap(i, least);
        i = least;
      }
      return top;
    },
    clear(): void {
      times.length = 0;
      items.length = 0;
    },
  };
}
