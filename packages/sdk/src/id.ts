const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
const random = new Uint8Array(12 * 32);
let used = random.length;

/**
 * An id for a task, as the server makes them: `tsk_`, 10 characters of time that sort as it does, 12 of randomness.
 * Chosen here, a submission may be repeated without the server having to remember a key.
 */
export function newTaskId(at: number): string {
  let text = "";
  for (let rest = at, i = 0; i < 10; i++) {
    text = alphabet[rest % 32] + text;
    rest = Math.floor(rest / 32);
  }
  if (used === random.length) {
    crypto.getRandomValues(random);
    used = 0;
  }
  for (let i = 0; i < 12; i++) text += alphabet[(random[used++] as number) & 31];
  return `tsk_${text}`;
}
