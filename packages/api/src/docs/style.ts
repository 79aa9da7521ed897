export const style = `
:root { --bg: #fffdf8; --panel: #ffffff; --ink: #1d1b16; --soft: #6b6557; --line: #e6dfd0; --code: #f7f2e6; --accent: #a16207;
  --get: #15803d; --post: #1d4ed8; --put: #a16207; --patch: #7c3aed; --delete: #b91c1c; color-scheme: light; }
:root[data-theme="dark"] { --bg: #16140f; --panel: #1e1b15; --ink: #ece6d8; --soft: #a39b88; --line: #38332a; --code: #26221a; --accent: #fbbf24;
  --get: #4ade80; --post: #7aa2ff; --put: #fbbf24; --patch: #c4a1ff; --delete: #f87171; color-scheme: dark; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
a { color: var(--accent); }
code { background: var(--code); border-radius: 4px; padding: 0 4px; }
input, textarea, button, select { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 4px 8px; }
code, pre, textarea, .path { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 13px; }
button { cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
header { position: sticky; top: 0; z-index: 1; display: flex; gap: 12px; align-items: center; padding: 8px 20px; background: var(--panel); border-bottom: 1px solid var(--line); }
.brand { margin-right: auto; font-size: 18px; font-weight: 700; text-decoration: none; color: var(--ink); }
small, .note { color: var(--soft); font-weight: 400; font-size: 12px; }
.key input { width: 18rem; max-width: 40vw; }
.columns { display: grid; grid-template-columns: 17rem minmax(0, 1fr); max-width: 80rem; margin: 0 auto; }
nav { position: sticky; top: 53px; height: calc(100vh - 53px); overflow: auto; padding: 16px; border-right: 1px solid var(--line); }
nav input { width: 100%; margin-bottom: 8px; }
nav h2 { font-size: 12px; text-transform: uppercase; letter-spacing: .06em; color: var(--soft); margin: 14px 0 4px; }
nav a { display: flex; gap: 8px; padding: 2px 4px; border-radius: 4px; text-decoration: none; color: var(--ink); font-size: 13px; }
nav a[hidden] { display: none; }
nav a:hover { background: var(--code); }
main { padding: 20px 28px 40vh; min-width: 0; }
.method { font: 700 11px/1.7 ui-monospace, monospace; width: 3.6em; flex: none; color: var(--m, var(--soft)); }
.get { --m: var(--get); } .post { --m: var(--post); } .put { --m: var(--put); } .patch { --m: var(--patch); } .delete { --m: var(--delete); }
h2.tag { margin: 32px 0 8px; }
details.call { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; margin: 10px 0; }
details.call > summary { display: flex; flex-wrap: wrap; gap: 10px; align-items: baseline; padding: 10px 14px; cursor: pointer; list-style: none; }
details.call > summary::-webkit-details-marker { display: none; }
details.call[open] > summary { border-bottom: 1px solid var(--line); }
.path { font-weight: 600; overflow-wrap: anywhere; }
.summary { color: var(--soft); }
.body { padding: 4px 14px 14px; }
.body h3 { font-size: 13px; margin: 16px 0 4px; }
.roles span { display: inline-block; background: var(--code); border-radius: 99px; padding: 0 9px; margin: 0 4px 4px 0; font-size: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
td, th { text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-top: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; }
td { white-space: pre-line; }
td input { width: 100%; }
pre, textarea { background: var(--code); border: 1px solid var(--line); border-radius: 8px; padding: 10px; margin: 6px 0; overflow: auto; max-height: 28rem; width: 100%; white-space: pre-wrap; overflow-wrap: anywhere; }
textarea { min-height: 9rem; resize: vertical; }
.send { background: var(--accent); color: var(--bg); border: 0; font-weight: 600; padding: 6px 18px; }
.ok { color: var(--get); font-weight: 600; } .bad { color: var(--delete); font-weight: 600; }
@media (max-width: 800px) { .columns { grid-template-columns: minmax(0, 1fr); } nav { display: none; } .note { display: none; } main { padding: 16px; } }
`;
