/** The page's style. Colours are variables, so that dark mode is one block. */
export const style = `
:root{--bg:#fbfaf7;--card:#fff;--ink:#22221f;--dim:#6d6b64;--line:#e6e2d8;--soft:#f3f0e8;--honey:#d9920a;--good:#2f7d4f;--fair:#a86a00;--poor:#bd3b2c;--goodbg:#e8f4ec;--fairbg:#fcf1dc;--poorbg:#fbe6e2;--link:#8a5a00;--cold:#efe3c4;--hot:#c2410c}
@media(prefers-color-scheme:dark){:root{--bg:#171613;--card:#201f1b;--ink:#ece9e0;--dim:#a09c91;--line:#35332c;--soft:#2a2823;--honey:#f0b340;--good:#6cc08f;--fair:#e5b252;--poor:#f0806f;--goodbg:#1d3326;--fairbg:#3a2e15;--poorbg:#44211c;--link:#f0b340;--cold:#3a3422;--hot:#d9541e}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:40px 24px 64px}
header{display:flex;gap:24px;align-items:flex-start;margin-bottom:28px}
.mark{width:64px;flex:none;margin-top:4px}.mark path{fill:var(--honey)}.mark .dance{fill:none;stroke:var(--bg);stroke-width:6;stroke-linecap:round}
.title{flex:1;min-width:0}.kicker{margin:0;color:var(--dim);font-size:13px;letter-spacing:.04em}
h1{margin:0 0 6px;font-size:34px;line-height:1.15;letter-spacing:-.02em;overflow-wrap:anywhere}
.lead{margin:0 0 10px;font-size:17px;max-width:62ch}
.facts{margin:0;display:flex;flex-wrap:wrap;gap:2px 16px;color:var(--dim);font-size:13px}.facts b{color:var(--ink);font-weight:600}
.grade{flex:none;width:92px;height:92px;border-radius:18px;display:flex;flex-direction:column;align-items:center;justify-content:center;background:var(--soft)}
.grade b{font-size:44px;line-height:1}.grade span{font-size:12px;opacity:.8}
.grade-A,.grade-B{background:var(--goodbg);color:var(--good)}.grade-C{background:var(--fairbg);color:var(--fair)}.grade-D,.grade-E{background:var(--poorbg);color:var(--poor)}
.cards{display:grid;grid-template-columns:repeat(3,1fr);gap:12px;margin-bottom:8px}
.card{display:flex;flex-direction:column;background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px;color:inherit;text-decoration:none}
.card:hover{border-color:var(--honey)}
.card .label{display:flex;justify-content:space-between;color:var(--dim);font-size:13px}.card b{font-size:24px;letter-spacing:-.01em;line-height:1.3}.card .detail{color:var(--dim);font-size:13px;line-height:1.4}
.card i{font-style:normal;font-size:12px;padding:0 8px;border-radius:9px;line-height:18px}
.good i{background:var(--goodbg);color:var(--good)}.fair i{background:var(--fairbg);color:var(--fair)}.poor i{background:var(--poorbg);color:var(--poor)}
section{margin-top:44px;scroll-margin-top:16px}
h2{font-size:22px;letter-spacing:-.01em;margin:0 0 8px;padding-bottom:8px;border-bottom:1px solid var(--line)}
h3{font-size:14px;margin:22px 0 6px}
.hint,.none,.legend{color:var(--dim);font-size:14px;margin:8px 0 12px;max-width:85ch}
.findings{margin:0;padding:0;list-style:none;counter-reset:f;display:grid;gap:10px}
.findings li{counter-increment:f;position:relative;background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 16px 12px 52px}
.findings li::before{content:counter(f);position:absolute;left:16px;top:13px;width:23px;height:23px;border-radius:50%;background:var(--honey);color:var(--bg);font-weight:700;font-size:13px;line-height:23px;text-align:center}
.findings p{margin:2px 0 0;color:var(--dim);font-size:14px}
.places{display:flex;flex-wrap:wrap;gap:0 18px}
a{color:var(--link)}a:not(.card){text-decoration:none}a:not(.card):hover{text-decoration:underline}
.path,.mono,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:13px}.path{overflow-wrap:anywhere}
.dir,.dim{color:var(--dim)}.nowrap{white-space:nowrap}
table{width:100%;border-collapse:collapse;font-size:14px;margin-top:8px}
th{text-align:left;font-weight:500;color:var(--dim);font-size:13px;padding:4px 12px 4px 0;border-bottom:1px solid var(--line);vertical-align:bottom}
td{padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
.n{text-align:right}td.n:last-child,th.n:last-child{padding-right:0}
.n+td:not(.n),.n+th:not(.n){padding-left:16px}
.wide{min-width:150px}.says{overflow-wrap:anywhere;max-width:34ch}
.tight{width:auto}.tight td{padding-right:24px;white-space:pre-wrap}
td:has(>.dot){white-space:nowrap}.dot{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:8px}
svg{display:block;width:100%;height:auto;margin:10px 0}svg text{fill:var(--dim);font-size:12px;font-family:inherit}svg .small{font-size:11px}
.bar{height:26px;border-radius:6px}.years{max-width:520px}
.week{fill:var(--honey)}.empty{fill:var(--line)}
.treemap rect{fill:color-mix(in oklab,var(--hot) var(--heat),var(--cold))}.treemap text{pointer-events:none;font-weight:600}.treemap text.small{font-weight:400}.treemap text.hot{fill:#fff}.treemap text.cool{fill:var(--ink)}.cell:hover rect{stroke:var(--ink);stroke-width:1.5}
.band{fill:var(--soft)}.grid{stroke:var(--line);stroke-width:1}.wait{fill:var(--dim);opacity:.55}
.two{display:grid;grid-template-columns:1fr 1fr;gap:0 36px}.two>div{min-width:0}
.people{display:grid;grid-template-columns:minmax(110px,auto) minmax(60px,1fr) auto;gap:5px 14px;align-items:center;font-size:14px}.people>div{display:contents}.people b{font-weight:600;overflow-wrap:anywhere}.people span:last-child{color:var(--dim);font-size:13px}
.meter{display:inline-block;width:100%;height:8px;border-radius:4px;background:var(--soft);overflow:hidden}td .meter{width:80px;margin-right:6px}.meter i{display:block;height:100%;border-radius:4px;background:var(--honey)}
.meter.ok i{background:var(--good)}.meter.bad i{background:var(--poor)}
.ok,.plus{color:var(--good)}.so{color:var(--fair)}.bad,.minus{color:var(--poor)}
.chips{display:flex;flex-wrap:wrap;gap:6px;margin:6px 0}.chip{background:var(--soft);border-radius:8px;padding:1px 9px;font-size:13px}.chip i{color:var(--fair);font-style:normal}
.tag{font-style:normal;font-size:12px;background:var(--soft);color:var(--dim);border-radius:6px;padding:1px 7px;margin-left:6px}td>.tag:first-child{margin-left:0}.tag.strong{background:var(--poorbg);color:var(--poor)}
details{margin:8px 0}summary{cursor:pointer;padding:5px 0}
.clone{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:4px 14px}.clone .places{display:inline-flex;margin-left:12px}
pre{background:var(--soft);border-radius:8px;padding:10px 12px;overflow-x:auto;line-height:1.45}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px}.legend .dot{margin-right:5px}
.heal{background:var(--fairbg);border-radius:10px;padding:10px 14px;margin:10px 0}
.notes{color:var(--dim);font-size:14px}
footer{margin-top:56px;padding-top:16px;border-top:1px solid var(--line);color:var(--dim);font-size:13px}
@media(max-width:760px){main{padding:24px 16px}.cards{grid-template-columns:1fr 1fr}.two{grid-template-columns:1fr}header{flex-wrap:wrap}.mark{width:44px}table{display:block;overflow-x:auto}}
@media print{body{background:#fff}.card,.findings li{break-inside:avoid}}
`;
