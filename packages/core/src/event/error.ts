import { defineError } from "../error.ts";

export const gone = defineError("event.gone", { status: 410, title: "Events past their retention", retry: "never" });
