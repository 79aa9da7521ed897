import { bearerOf } from "../key/bearer.ts";

/** The subprotocol in which an agent's WebSocket speaks `frame.ts`. */
export const protocol = "waggle.v1";
const ofToken = "bearer.";

/** What the handshake of an agent's WebSocket says. A browser can send no Authorization header: it gives the token as a subprotocol. */
export function readHandshake(header: (name: string) => string | undefined): {
  readonly bearer: string | undefined;
  /** It offers to speak `protocol`. */
  readonly speaks: boolean;
} {
  const offered = (header("sec-websocket-protocol") ?? "").split(",").map((name) => name.trim());
  const token = offered.find((name) => name.startsWith(ofToken))?.slice(ofToken.length);
  return { bearer: bearerOf(header("authorization")) ?? token, speaks: offered.includes(protocol) };
}
