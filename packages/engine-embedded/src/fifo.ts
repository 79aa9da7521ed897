export type Fifo<Item> = ReturnType<typeof createFifo<Item>>;

/** First in, first out; taking costs no shift of what is behind. */
export function createFifo<Item>() {
  let items: Item[] = [];
  let head = 0;
  return {
    push(item: Item): void {
      items.push(item);
    },
    shift(): Item | undefined {
      if (head === items.length) return undefined;
      const item = items[head++] as Item;
      if (head === items.length) {
        items = [];
        head = 0;
      } else if (head > 1024 && head * 2 > items.length) {
        items = items.slice(head);
        head = 0;
      }
      return item;
    },
    clear(): void {
      items = [];
      head = 0;
    },
  };
}
