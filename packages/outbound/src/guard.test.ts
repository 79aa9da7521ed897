import { expect, test } from "vitest";
import { addressOf, reachOf, refusalOf } from "./guard.ts";

const strict = { allowPrivate: false, allowLoopback: false };
const laptop = { allowPrivate: false, allowLoopback: true };
const inside = { allowPrivate: true, allowLoopback: false };

test.each([
  ["93.184.215.14", "public"],
  ["1.1.1.1", "public"],
  ["172.15.255.255", "public"],
  ["172.32.0.0", "public"],
  ["223.255.255.255", "public"],
  ["10.0.0.1", "private"],
  ["172.16.0.1", "private"],
  ["172.31.255.255", "private"],
  ["192.168.255.255", "private"],
  ["100.64.0.1", "private"],
  ["100.127.255.255", "private"],
  ["198.19.255.255", "private"],
  ["127.0.0.1", "loopback"],
  ["127.255.255.254", "loopback"],
  ["0.0.0.0", "never"],
  ["169.254.169.254", "never"],
  ["169.254.170.2", "never"],
  ["192.0.2.1", "never"],
  ["224.0.0.1", "never"],
  ["255.255.255.255", "never"],
  ["2606:4700:4700::1111", "public"],
  ["2a00:1450:4001:81b::200e", "public"],
  ["::1", "loopback"],
  ["0:0:0:0:0:0:0:1", "loopback"],
  ["fd12:3456::1", "private"],
  ["fc00::", "private"],
  ["::", "never"],
  ["::2", "never"],
  ["fe80::1", "never"],
  ["fe80::1%eth0", "never"],
  ["fec0::1", "never"],
  ["ff02::1", "never"],
  ["fd00:ec2::254", "never"],
  ["fd00:ec2::23", "never"],
  ["fd00:ec3::254", "private"],
  ["100.100.100.200", "never"],
  ["100.100.100.201", "private"],
  ["168.63.129.16", "never"],
  ["::ffff:168.63.129.16", "never"],
  ["2001:db8::1", "never"],
  ["2001::1", "never"],
  ["::ffff:127.0.0.1", "loopback"],
  ["::ffff:7f00:1", "loopback"],
  ["::ffff:10.1.2.3", "private"],
  ["::ffff:169.254.169.254", "never"],
  ["::ffff:8.8.8.8", "public"],
  ["::127.0.0.1", "never"],
  ["64:ff9b::a9fe:a9fe", "never"],
  ["64:ff9b::7f00:1", "loopback"],
  ["2002:7f00:1::", "loopback"],
  ["2002:a9fe:a9fe::1", "never"],
  ["no address", "never"],
])("%s is %s", (address, reach) => expect(reachOf(address)).toBe(reach));

test.each([
  "https://127.0.0.1/",
  "https://localhost/",
  "https://a.localhost./",
  "https://[::1]/",
  "https://2130706433/",
  "https://0x7f000001/",
  "https://0177.0.0.1/",
  "https://127.1/",
  "https://0/",
  "https://[::ffff:127.0.0.1]/",
  "https://[::ffff:a9fe:a9fe]/",
  "https://169.254.169.254/latest/meta-data",
  "https://0xa9.254.43518/",
  "https://10.0.0.1/",
  "https://１０.0.0.1/",
  "https://192.168.1.1:8443/",
  "http://example.com/",
  "http://1.1.1.1/",
  "https://user:password@example.com/",
])("%s is refused when it is registered", (url) => expect(refusalOf(url, strict)).toBeDefined());

test("https to a public name or address is registered", () => {
  for (const url of ["https://example.com/hook?x=1", "https://1.1.1.1:8443/", "https://[2606:4700:4700::1111]/"])
    expect(refusalOf(url, strict)).toBeUndefined();
});

test("a laptop may call itself by http, and nothing else that is private", () => {
  for (const url of ["http://127.0.0.1:3000/", "http://localhost:3000/", "http://[::1]:3000/"])
    expect(refusalOf(url, laptop)).toBeUndefined();
  for (const url of ["http://10.0.0.1/", "https://10.0.0.1/", "http://example.com/", "http://169.254.169.254/"])
    expect(refusalOf(url, laptop)).toBeDefined();
});

test("a server that may call private networks calls neither link-local addresses nor public ones in the clear", () => {
  for (const url of ["http://10.0.0.1/", "http://receiver:8080/", "http://localhost/", "https://192.168.0.9/"])
    expect(refusalOf(url, inside)).toBeUndefined();
  for (const url of ["http://169.254.169.254/", "http://0.0.0.0/", "http://1.1.1.1/", "https://[fe80::1]/"])
    expect(refusalOf(url, inside)).toBeDefined();
});

const named =
  (...addresses: string[]) =>
  async () =>
    addresses.map((address) => ({ address }));
const to = (url: string, rules: Parameters<typeof addressOf>[1], ...addresses: string[]) =>
  addressOf(new URL(url), rules, named(...addresses));

test("a name is called at the address that was checked", async () => {
  expect(await to("https://example.com/", strict, "93.184.215.14", "2606:4700::1")).toEqual({
    address: "93.184.215.14",
    family: 4,
  });
  expect(await to("https://example.com/", strict, "2606:4700::1")).toEqual({ address: "2606:4700::1", family: 6 });
});

test.each([["127.0.0.1"], ["10.0.0.7"], ["169.254.169.254"], ["::1"], ["::ffff:10.0.0.7"], ["0.0.0.0"]])(
  "a public name that stands for %s is not called, alone or among others",
  async (address) => {
    for (const answers of [[address], ["93.184.215.14", address], [address, "93.184.215.14"]])
      await expect(to("https://example.com/", strict, ...answers)).rejects.toMatchObject({ code: "delivery.failed" });
  },
);

test("a name that may be private is not called in the clear once it stands for a public address", async () => {
  await expect(to("http://receiver/", inside, "93.184.215.14")).rejects.toThrow(/https/);
  expect((await to("http://receiver/", inside, "10.0.0.7")).address).toBe("10.0.0.7");
});

test("a name without an address is not called", async () => {
  await expect(to("https://example.com/", strict)).rejects.toThrow(/no address/);
});
