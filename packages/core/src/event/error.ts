import { defineError } from "../error.ts";

export const gone = defineError("event.gone", { status: 410, title: "Not in the event log", retry: "never" });
