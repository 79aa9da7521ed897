import { type Metered, prices } from "../prices.ts";

/** Counted units of one thing: of one task, of one message, of one month. `storeCalls` cost nothing by themselves. */
export type Units = Readonly<Record<Metered | "storeCalls", number>>;

export const unitNames = [...(Object.keys(prices) as Metered[]), "storeCalls"] as const;
export const noUnits = (): Record<keyof Units, number> =>
  Object.fromEntries(unitNames.map((name) => [name, 0])) as Record<keyof Units, number>;

/** Counts are exact, what is left of a division is not. */
const exact = (value: number): number => Number(value.toPrecision(9));
const mapped = (of: (name: keyof Units) => number): Units =>
  Object.fromEntries(unitNames.map((name) => [name, exact(of(name))])) as unknown as Units;

export const times = (units: Units, factor: number): Units => mapped((name) => units[name] * factor);
export const sum = (...all: readonly Units[]): Units =>
  mapped((name) => all.reduce((total, units) => total + units[name], 0));
export const mean = (all: readonly Units[]): Units => times(sum(...all), 1 / all.length);
export const difference = (after: Units, before: Units): Units => mapped((name) => after[name] - before[name]);

export const dollarsOf = (units: Units): number =>
  (Object.keys(prices) as Metered[]).reduce(
    (total, name) => total + (units[name] * prices[name].dollars) / prices[name].units,
    0,
  );
