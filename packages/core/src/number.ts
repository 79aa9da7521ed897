import * as z from "zod";
import { isStorable } from "./port/size.ts";

/** A number that a row can hold, whatever the engine. */
export const number = () =>
  z.number().refine(isStorable, "expected 0, or a number from 1e-130 to below 1e126 or its negative");
