/*
 * Where a task waits, in a lane or at a limit: a sort key by priority, of which 9 comes first, then by the fair-share pass, then by id.
 */

export const parkedKey = (priority: number, pass: number, id: string): string =>
  `${9 - priority}#${String(Math.round(pass)).padStart(15, "0")}#${id}`;
export const passOf = (key: string): number => Number(key.slice(2, 17));
export const idOfParked = (key: string): string => key.slice(key.lastIndexOf("#") + 1);
