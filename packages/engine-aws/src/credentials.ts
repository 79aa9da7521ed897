interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly expiration?: Date;
}

let elsewhere: Promise<() => Promise<Credentials>> | undefined;

/** Lambda gives its role's keys in the environment; elsewhere they are looked for wherever the SDK does: profiles, SSO, a container. */
export async function credentials(): Promise<Credentials> {
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN } = process.env;
  if (AWS_ACCESS_KEY_ID && AWS_SECRET_ACCESS_KEY) {
    return {
      accessKeyId: AWS_ACCESS_KEY_ID,
      secretAccessKey: AWS_SECRET_ACCESS_KEY,
      ...(AWS_SESSION_TOKEN && { sessionToken: AWS_SESSION_TOKEN }),
    };
  }
  elsewhere ??= import("@waggle/engine-aws/sdk/credentials").then(({ defaultProvider }) => defaultProvider());
  return (await elsewhere)();
}
