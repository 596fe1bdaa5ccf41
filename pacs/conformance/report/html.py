"""A report as one HTML page that needs nothing else: no request leaves it, and no script is in it."""

from __future__ import annotations

import html
from collections.abc import Iterator

from pacs.conformance.judgement import CheckResult, Report, Verdict
from pacs.foreign_text import visible_lines

_CLASSES = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "fail",
    Verdict.WARNING: "warning",
    Verdict.NOT_APPLICABLE: "not-applicable",
}
# Check boxes ahead of the list and sibling selectors filter it, so that a page from an e-mail can be read anywhere.
_STYLE = """
:root { color-scheme: light dark; --pass: #1a7f37; --fail: #c62828; --warning: #9a6700; --not-applicable: #6e7781; }
@media (prefers-color-scheme: dark) {
  :root { --pass: #4ac26b; --fail: #ff7b72; --warning: #e3b341; --not-applicable: #9198a1; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
dt { font-weight: 600; float: left; clear: left; min-width: 9rem; }
dd { margin: 0 0 .2rem 10rem; overflow-wrap: anywhere; }
details { border: 1px solid #8884; border-left: .4rem solid var(--colour); border-radius: .3rem; margin: .3rem 0; }
summary { cursor: pointer; padding: .4rem .7rem; display: grid;
  grid-template-columns: minmax(14rem, 2fr) minmax(9rem, 1fr) 4rem 8rem 4fr; gap: .7rem; }
summary > * { overflow-wrap: anywhere; }
summary strong { color: var(--colour); }
.body { padding: .2rem 1rem .8rem; }
pre { overflow: auto; background: #8881; padding: .7rem; font-size: 13px; }
.pass { --colour: var(--pass); } .fail { --colour: var(--fail); }
.warning { --colour: var(--warning); } .not-applicable { --colour: var(--not-applicable); }
.filters { margin-right: 1.5rem; white-space: nowrap; }
@media (max-width: 60rem) {
  summary { display: flex; flex-wrap: wrap; gap: 0 1rem; }
  summary > :first-child, summary > :last-child { flex-basis: 100%; }
  dt { float: none; } dd { margin-left: 1rem; }
}
"""


def as_html(report: Report) -> str:
    """The page: who was judged, the counts, and each check with all that passed over the wire."""
    return "".join(_page(report))


def _escaped(text: str) -> str:
    return html.escape(visible_lines(text))


def _page(report: Report) -> Iterator[str]:
    title = _escaped(report.title)
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{title}: {_escaped(report.subject.get('peer', ''))}</title>\n<style>{_STYLE}"
    for name in _CLASSES.values():
        yield f"#show-{name}:not(:checked) ~ main .{name} {{ display: none; }}\n"
    yield f"</style>\n</head>\n<body>\n<h1>{title}</h1>\n<dl>\n"
    for name, value in ({**report.subject, "started": report.started}).items():
        yield f"<dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd>\n"
    yield f"<dt>result</dt><dd>{_escaped(report.summary)}</dd>\n</dl>\n"
    for verdict, name in _CLASSES.items():
        yield f'<input type="checkbox" id="show-{name}" checked>\n'
        yield f'<label class="filters" for="show-{name}">{_escaped(verdict.value)} ({report.count(verdict)})</label>\n'
    yield "<main>\n"
    for result in report.results:
        yield from _details(result)
    yield "</main>\n</body>\n</html>\n"


def _details(result: CheckResult) -> Iterator[str]:
    is_open = " open" if result.verdict is Verdict.FAIL else ""
    received = "" if result.verdict is Verdict.PASS else result.received
    yield f'<details class="{_CLASSES[result.verdict]}"{is_open}><summary>'
    yield f"<span>{_escaped(result.name)}</span><span>{_escaped(result.clause)}</span>"
    yield f"<span>{result.requirement.value}</span><strong>{result.verdict.value}</strong>"
    yield f'<span>{_escaped(received)}</span></summary>\n<div class="body"><dl>\n'
    for name, value in (
        ("check", result.title),
        ("sent", result.sent),
        ("expected", result.expected),
        ("received", result.received),
        ("took", f"{result.seconds:.3f} s"),
    ):
        if value:
            yield f"<dt>{name}</dt><dd>{_escaped(value)}</dd>\n"
    yield "</dl>\n"
    for trace in result.traces:
        lines = _escaped("\n".join(trace.lines()))
        yield f"<pre>{lines}</pre>\n"
    yield "</div></details>\n"
