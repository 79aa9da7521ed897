import { WaggleConnectionError } from "./error.ts";

/** `https://host/v1/` → `https://host`. @throws WaggleConnectionError when it is no http(s) address */
export function normalUrl(url: string): string {
  let parsed: URL | undefined;
  try {
    parsed = new URL(url);
  } catch {
    // told below
  }
  if (!parsed || (parsed.protocol !== "http:" && parsed.protocol !== "https:")) {
    throw new WaggleConnectionError(
      "client.bad_address",
      `"${url}" is not a server address; expected http://… or https://…`,
    );
  }
  return (parsed.origin + parsed.pathname).replace(/\/+$/, "").replace(/\/v1$/, "");
}
