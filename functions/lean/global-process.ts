// What the AWS SDK imports of node:process; a name that is not here fails the build.
export const { env, versions } = process;
