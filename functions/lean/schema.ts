// The OpenAPI text is made when functions are bundled: at run time no schema describes itself.
const refuse = (): never => {
  throw new Error("a function's bundle does not make JSON Schema");
};
export const createToJSONSchemaMethod = () => refuse;
export const createStandardJSONSchemaMethod = () => refuse;
export const toJSONSchema = refuse;
export const initializeContext = refuse;
export const extractDefs = refuse;
export const finalize = refuse;
export const processSchema = refuse;
export const allProcessors = {};
export { refuse as process };
