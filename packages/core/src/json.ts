import { z } from "zod";

/**
 * The exact text of one JSON value, as the caller wrote it. Payloads (`input`, `result`, `metadata`, `details`) are
 * stored and answered as this text, never re-made from a parsed value, so nothing in them is lost or renamed.
 */
export type JsonText = string & { readonly __json: true };

/** In a schema: any JSON value. The edge hands over its exact text (`readJson`); OpenAPI shows `{}`. */
export const jsonText = () => z.custom<JsonText>((value) => typeof value === "string").meta({ payload: true });

export const jsonLimits = { bodyBytes: 1024 * 1024, depth: 64, inlineBytes: 64 * 1024 } as const;
