import { fromEnv } from "@aws-sdk/credential-provider-env";

// Lambda gives credentials in the environment: looking for files, sign-ons and instances is left out.
export const defaultProvider = () => fromEnv();
