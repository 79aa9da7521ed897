export const docsPage = () => ({ text: "" });
