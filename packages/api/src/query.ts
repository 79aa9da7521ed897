import { parse, requestErrors } from "@waggle/core";
import type { z } from "zod/mini";

export type QueryReader = (search: string) => unknown;

/** Reads a query string strictly: what is unknown, repeated, empty or of the wrong type is refused. */
export function queryReader(schema: z.ZodMiniType | undefined): QueryReader {
  const fields = schema === undefined ? {} : (schema as z.ZodMiniObject).shape;
  const numbers = new Set(Object.keys(fields).filter((name) => isNumber(fields[name] as z.ZodMiniType)));
  let empty: unknown;
  return (search) => {
    if (search === "") {
      if (schema === undefined) return undefined;
      // Defaults are values, not functions: one parse serves every call.
      empty ??= parse(schema, {});
      return empty;
    }
    const values: Record<string, string> = Object.create(null);
    const wrong = (path: string, message: string) =>
      requestErrors.invalid(`query parameter ${path} ${message}`, { errors: [{ path, message }] });
    for (const part of search.split("&")) {
      if (part === "") continue;
      const equals = part.indexOf("=");
      const name = decode(equals < 0 ? part : part.slice(0, equals));
      const value = equals < 0 ? "" : decode(part.slice(equals + 1));
      if (!Object.hasOwn(fields, name)) throw wrong(name, "is unknown here");
      if (name in values) throw wrong(name, "is given twice");
      if (value === "") throw wrong(name, "is empty");
      if (numbers.has(name) && !isNumberText(value)) throw wrong(name, "is not a number");
      values[name] = value;
    }
    return schema === undefined ? undefined : parse(schema, { ...values });
  };
}

/** As in JSON, leading zeros aside: what a program prints of a number is one. */
const isNumberText = (text: string): boolean =>
  /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(text) && Number.isFinite(Number(text));

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw requestErrors.invalid("the query string is not percent-encoded UTF-8", {
      errors: [{ path: "", message: "expected percent-encoded UTF-8" }],
    });
  }
}

function isNumber(schema: z.ZodMiniType): boolean {
  const { def } = schema as unknown as { def: { type: string; innerType?: z.ZodMiniType } };
  return def.innerType === undefined ? def.type === "number" : isNumber(def.innerType);
}
