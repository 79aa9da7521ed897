import { lookup } from "node:dns/promises";
import { isIP, isIPv4 } from "node:net";
import { deliveryErrors } from "@waggle/core";

export interface TargetRules {
  /** Addresses of private networks and of this machine may be called, and there http is enough. */
  readonly allowPrivate: boolean;
  /** Those of this machine may be. */
  readonly allowLoopback: boolean;
}
export interface Address {
  readonly address: string;
  readonly family: 4 | 6;
}
export type Resolve = (host: string) => Promise<readonly { readonly address: string }[]>;

/** `never`: where clouds keep credentials (link-local, and some addresses of their own), multicast, and what routes nowhere; no setting allows it. */
export type Reach = "public" | "private" | "loopback" | "never";

/** Source: https://www.iana.org/assignments/iana-ipv4-special-registry */
const special: readonly (readonly [string, number, Reach])[] = [
  // The hosts of Alibaba Cloud and of Azure tell their machines' credentials and settings there.
  ["100.100.100.200", 32, "never"],
  ["168.63.129.16", 32, "never"],
  ["0.0.0.0", 8, "never"],
  ["10.0.0.0", 8, "private"],
  ["100.64.0.0", 10, "private"],
  ["127.0.0.0", 8, "loopback"],
  ["169.254.0.0", 16, "never"],
  ["172.16.0.0", 12, "private"],
  ["192.0.0.0", 24, "never"],
  ["192.0.2.0", 24, "never"],
  ["192.88.99.0", 24, "never"],
  ["192.168.0.0", 16, "private"],
  ["198.18.0.0", 15, "private"],
  ["198.51.100.0", 24, "never"],
  ["203.0.113.0", 24, "never"],
  ["224.0.0.0", 3, "never"],
];
const numberOf = (v4: string): number => v4.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);

function reachOf4(address: number): Reach {
  const found = special.find(
    ([base, bits]) => Math.floor(address / 2 ** (32 - bits)) * 2 ** (32 - bits) === numberOf(base),
  );
  return found?.[2] ?? "public";
}

/** The eight parts of an IPv6 address; undefined for what is none, or names an interface (`fe80::1%eth0`). */
function partsOf6(address: string): number[] | undefined {
  let text: string;
  try {
    text = new URL(`http://[${address}]`).hostname.slice(1, -1);
  } catch {
    return undefined;
  }
  const [head = "", tail] = text.split("::");
  const parts = (half: string) => (half === "" ? [] : half.split(":").map((part) => Number.parseInt(part, 16)));
  if (tail === undefined) return parts(head);
  const [before, after] = [parts(head), parts(tail)];
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
}

/** Source: https://www.iana.org/assignments/iana-ipv6-special-registry */
function reachOf6(parts: readonly number[]): Reach {
  const [a = 0, b = 0, c = 0, , , f = 0, g = 0, h = 0] = parts;
  const begins = (...these: readonly number[]) => these.every((part, index) => parts[index] === part);
  // Mapped, and translated by NAT64 and by 6to4: what counts is the IPv4 address inside.
  if (begins(0, 0, 0, 0, 0) && f === 0xffff) return reachOf4(g * 65_536 + h);
  if (begins(0x64, 0xff9b, 0, 0, 0, 0)) return reachOf4(g * 65_536 + h);
  if (a === 0x2002) return reachOf4(b * 65_536 + c);
  if (begins(0, 0, 0, 0, 0, 0, 0, 1)) return "loopback";
  // AWS tells a machine's credentials at fd00:ec2::254, and a container's at fd00:ec2::23.
  if (begins(0xfd00, 0xec2)) return "never";
  if ((a & 0xfe00) === 0xfc00) return "private";
  const reserved = (a === 0x2001 && (b < 0x200 || b === 0xdb8)) || (a === 0x3fff && b < 0x1000);
  return (a & 0xe000) === 0x2000 && !reserved ? "public" : "never";
}

/** Where an address lies. What cannot be read is `never`. */
export function reachOf(address: string): Reach {
  if (isIPv4(address)) return reachOf4(numberOf(address));
  const parts = partsOf6(address);
  return parts === undefined ? "never" : reachOf6(parts);
}

const said: Readonly<Record<Exclude<Reach, "public">, string>> = {
  private: "is in a private network, which this server may not call",
  loopback: "is this machine, which this server may not call",
  never: "is no address that may be called",
};

/** Why this address may not be called by that protocol. */
function refusal(address: string, protocol: string, rules: TargetRules): string | undefined {
  const reach = reachOf(address);
  const may =
    reach === "public" || (reach !== "never" && rules.allowPrivate) || (reach === "loopback" && rules.allowLoopback);
  if (!may) return said[reach as Exclude<Reach, "public">];
  return reach === "public" && protocol !== "https:" ? "must be called by https" : undefined;
}

const hostOf = (url: URL): string => url.hostname.replace(/^\[|\]$/g, "");
const isLocalName = (host: string) => /(^|\.)localhost\.?$/.test(host);

/**
 * Why this URL will not be called, as far as it can be told without asking for its address.
 * `new URL` has made dotted decimals of the octal, hexadecimal and short ways to write an IPv4 address.
 */
export function refusalOf(text: string, rules: TargetRules): string | undefined {
  const url = new URL(text);
  const host = hostOf(url);
  if (url.username !== "" || url.password !== "") return "a URL with a user name or password is not called";
  if (isIP(host) !== 0) {
    const why = refusal(host, url.protocol, rules);
    return why && `${host} ${why}`;
  }
  if (isLocalName(host)) return rules.allowLoopback || rules.allowPrivate ? undefined : `${host} ${said.loopback}`;
  return url.protocol === "https:" || rules.allowPrivate ? undefined : `${host} must be called by https`;
}

const ask: Resolve = (host) => lookup(host, { all: true, verbatim: true });

/**
 * The address to connect to. All addresses of the name must be allowed: one that is not would be a way around the rest.
 * Whoever connects takes this address and does not ask again, since another answer could name another host.
 * @throws `delivery.failed`
 */
export async function addressOf(url: URL, rules: TargetRules, resolve: Resolve = ask): Promise<Address> {
  const refused = refusalOf(url.href, rules);
  if (refused !== undefined) throw deliveryErrors.failed(refused);
  const host = hostOf(url);
  const addresses = isIP(host) !== 0 ? [host] : (await resolve(host)).map(({ address }) => address);
  for (const address of addresses) {
    const why = refusal(address, url.protocol, rules);
    if (why !== undefined) throw deliveryErrors.failed(`${host} (${address}) ${why}`);
  }
  const [address] = addresses;
  if (address === undefined) throw deliveryErrors.failed(`${host} has no address`);
  return { address, family: isIPv4(address) ? 4 : 6 };
}
