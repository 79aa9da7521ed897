import { expect, test } from "vitest";
import { newWebhookSecret } from "./delivery/secret.ts";
import { newSecret, withoutSecrets } from "./secret.ts";

test("a key, a token and a webhook secret that were made here are cut wherever they stand, and nothing else is", () => {
  for (const secret of [newSecret("wgk"), newSecret("wga"), newWebhookSecret()]) {
    const text = withoutSecrets(`there is no task ${secret}, "${secret}": unknown field`);
    expect(text).not.toContain(secret.slice(8, 24));
    expect(text).toMatch(/^there is no task (wg[ak]|whsec)_…, "\1_…": unknown field$/);
  }
  for (const text of ["tsk_01m8c3sgbe00153awf0x0c", "wgk_short", "a wgk_ that is none"])
    expect(withoutSecrets(text)).toBe(text);
});
