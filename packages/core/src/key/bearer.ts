/** The text after `Bearer` in an Authorization header, or nothing when the header is of another kind. */
export function bearerOf(header: string | undefined): string | undefined {
  return header === undefined ? undefined : /^bearer +([\x21-\x7e]{1,512})$/i.exec(header)?.[1];
}
