"""A report of the check as lines for a terminal, and as Markdown for a page of a job."""

from nanogpt2.base.system.words import in_columns
from nanogpt2.experiments.gate.check import Report
from nanogpt2.experiments.gate.judge import Row
from nanogpt2.text.doctor.markdown import table

FIGURES = ["metric", "base", "head", "difference", "allowed", "verdict"]
PARAMETERS = ["parameter", "base", "head"]
UNCHANGED = "no parameter, code or text has changed"


def as_lines(report: Report) -> list[str]:
    """Return the report in plain lines, tables in columns."""
    lines = [report.fit] if report.fit else []
    for title, head, rows in _tables(report):
        lines += ["", title, *in_columns([head, *rows])]
    lines += ["", *_remarks(report)]
    return [*lines, *report.faults, report.verdict]


def as_markdown(report: Report) -> str:
    """Return the report as Markdown, its verdict first."""
    lines = [f"## {report.verdict}", ""]
    lines += [f"- {fault}" for fault in report.faults]
    lines += [f"- {line}" for line in (report.fit, *_remarks(report)) if line]
    for title, head, rows in _tables(report):
        lines += ["", f"### {title}", "", *table(head, rows)]
    return "\n".join(lines) + "\n"


def _tables(report: Report) -> list[tuple[str, list[str], list[list[str]]]]:
    found = [
        (f"Figures beside those of {report.base}", FIGURES, [_cells(row) for row in report.rows]),
        ("Parameters that changed", PARAMETERS, report.parameters),
    ]
    return [each for each in found if each[2]]


def _remarks(report: Report) -> list[str]:
    changed = [f"code and texts that changed: {', '.join(report.inputs)}"] if report.inputs else []
    if report.rows and report.fit and not report.inputs and not report.parameters:
        changed = [UNCHANGED]
    return [*changed, *report.notes]


def _cells(row: Row) -> list[str]:
    figures = (row.base, ".6g"), (row.head, ".6g"), (row.difference, "+.4g"), (row.allowed, ".4g")
    shown = ("" if figure is None else format(figure, form) for figure, form in figures)
    return [row.name, *shown, row.verdict]
