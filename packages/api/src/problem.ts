export { parse, problemType, toProblem } from "@waggle/core";
