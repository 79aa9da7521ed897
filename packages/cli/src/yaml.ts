/* Imported from here, not as a package: a bundle of a CommonJS module has no names for `import()`. */
export { stringify } from "yaml";
