//! The style of a page: light or dark as the reader's system is set, on paper, and on a phone. Curves and bars use the
//! palette of Okabe and Ito, which colour-blind readers can tell apart; curves also differ by their dashes.

pub const STYLE: &str = r"
:root { color-scheme: light dark; --text: #1b1b1f; --faint: #5c5c66; --line: #d5d5dc; --back: #fff; --plot: #f6f6f9;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #8a6d00; --c5: #56b4e9; --c6: #6a3d9a; }
@media (prefers-color-scheme: dark) { :root { --text: #ececf1; --faint: #a5a5b0; --line: #44444d; --back: #17171b;
  --plot: #202026; --c0: #56b4e9; --c1: #e69f00; --c2: #2fc79a; --c3: #e29cc4; --c4: #f0e442; --c5: #9bd3f5; --c6: #b79be8; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 70rem;
  margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.verdict { font-size: 1.1rem; border-left: .3rem solid var(--c0); padding-left: 1rem; }
.failed { border-left: .3rem solid var(--c1); padding-left: 1rem; }
.faint { color: var(--faint); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; } th:first-child, td:first-child { text-align: left; }
.bar { display: flex; height: 1.3rem; min-width: 12rem; } .bar span { display: block; height: 100%; }
.stacked td:last-child { width: 60%; }
.key span { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 1rem; }
.c0 { background: var(--c0); } .c1 { background: var(--c1); } .c2 { background: var(--c2); } .c3 { background: var(--c3); }
.c4 { background: var(--c4); } .c5 { background: var(--c5); } .c6 { background: var(--c6); }
.poloto { width: 100%; height: auto; font: 16px system-ui, sans-serif; stroke-linecap: round; stroke-linejoin: round; }
.poloto_background { fill: var(--plot); } .poloto_line { stroke-width: 2.5; } .poloto_text { fill: var(--text); }
.poloto_name { font-size: 20px; text-anchor: middle; } .poloto_where { dominant-baseline: middle; text-anchor: start; }
.poloto_text.poloto_legend { font-size: 16px; dominant-baseline: middle; text-anchor: start; }
.poloto_text.poloto_ticks.poloto_y { dominant-baseline: middle; text-anchor: end; }
.poloto_text.poloto_ticks.poloto_x { text-anchor: middle; }
.poloto_imgs.poloto_ticks { stroke: var(--text); stroke-width: 1.5; fill: none; }
.poloto_grid { stroke: var(--line); stroke-width: .5; }
.poloto0.poloto_stroke { stroke: var(--c0); } .poloto1.poloto_stroke { stroke: var(--c1); stroke-dasharray: 9 5; }
.poloto2.poloto_stroke { stroke: var(--c2); stroke-dasharray: 2 5; }
.poloto3.poloto_stroke { stroke: var(--c3); stroke-dasharray: 12 4 2 4; }
@media print { :root { color-scheme: light; } h2 { break-after: avoid; } .poloto, table { break-inside: avoid; } }
";
