import { InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";

/** Functions of one region. One try a call: whoever delivers tries again. */
export function createLambda(region: string) {
  const client = new LambdaClient({ region, maxAttempts: 1 });
  return {
    credentials: () => client.config.credentials(),
    async invoke(functionArn: string, payload: string, abortSignal: AbortSignal) {
      const command = new InvokeCommand({
        FunctionName: functionArn,
        InvocationType: "RequestResponse",
        Payload: new TextEncoder().encode(payload),
      });
      const { Payload, FunctionError } = await client.send(command, { abortSignal });
      return { payload: new TextDecoder().decode(Payload), error: FunctionError !== undefined };
    },
  };
}
