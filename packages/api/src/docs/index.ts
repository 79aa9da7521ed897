import { createHash } from "node:crypto";
import type { Answer } from "../route.ts";
import { script } from "./script.ts";
import { style } from "./style.ts";

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Waggle API</title>
<link rel="icon" href="data:,">
<style>${style}</style>
</head>
<body>
<header>
<a href="#top" class="brand">Waggle <small id="version"></small></a>
<label class="key">Key <input id="key" type="password" autocomplete="off" spellcheck="false" placeholder="wgk_…" aria-describedby="key-note"></label>
<span id="key-note" class="note">kept in this tab alone</span>
<button id="theme" type="button" aria-label="Switch between light and dark">◐</button>
</header>
<div class="columns">
<nav aria-label="Calls"><input id="filter" type="search" placeholder="Filter calls" aria-label="Filter calls"><div id="index"></div></nav>
<main id="top"><div id="intro"></div><div id="calls"><p>Loading <a href="openapi.json">openapi.json</a> …</p></div><noscript><p>This page needs JavaScript; the document is <a href="openapi.json">openapi.json</a>.</p></noscript></main>
</div>
<script>${script}</script>
</body>
</html>
`;

const hash = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

let answer: Answer | undefined;

/** A page to read and try the API: made of `/openapi.json`, without anything from elsewhere. */
export function docsPage(): Answer {
  answer ??= {
    text: page,
    type: "text/html; charset=utf-8",
    headers: {
      "content-security-policy":
        `default-src 'none'; script-src ${hash(script)}; style-src ${hash(style)}; img-src data:; ` +
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    },
  };
  return answer;
}
