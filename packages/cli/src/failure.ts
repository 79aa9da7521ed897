/** Exit codes of every command. */
export const exit = { ok: 0, failed: 1, usage: 2, notFound: 3, refused: 4, unreachable: 5 } as const;

/** A failure with its exit code and what to do about it. */
export class Failure extends Error {
  override readonly name = "Failure";
  readonly exitCode: number;
  readonly advice: string | undefined;
  constructor(exitCode: number, message: string, advice?: string) {
    super(message);
    this.exitCode = exitCode;
    this.advice = advice;
  }
}
export const usage = (message: string, advice?: string): Failure => new Failure(exit.usage, message, advice);
