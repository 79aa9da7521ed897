import { defineError } from "../error.ts";

export const notFound = defineError("limit.not_found", { status: 404, title: "Limit not found", retry: "never" });
