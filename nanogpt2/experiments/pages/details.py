"""What the page tells of single runs: losses by position and token, samples, data, the way back."""

from collections.abc import Iterator, Sequence

from nanogpt2.base.system.words import describe_seconds, name_some
from nanogpt2.experiments.compare import outputs, reproduce
from nanogpt2.experiments.compare.cache import Cache
from nanogpt2.experiments.compare.runs import Run
from nanogpt2.experiments.pages import elements
from nanogpt2.experiments.pages.elements import NONE, cell, element, number, row, table, text


def positions(runs: Sequence[Run]) -> str:
    """Return the loss by position in the context."""
    known = [(at, run) for at, run in enumerate(runs) if run.position.get("val_loss")]
    if not known:
        return "<p>Not known: no run has plots/position.csv.</p>"
    longest = max(len(run.position["val_loss"]) for _, run in known)
    shown = [0, *(2**power - 1 for power in range(1, 20) if 2**power <= longest)]
    rows = (
        row(
            text(run.name),
            (
                number(column[each], f"{column[each]:.4f}") if each < len(column) else cell(NONE)
                for each in shown
            ),
            data_run=at,
        )
        for at, run in known
        for column in [run.position["val_loss"]]
    )
    head = ["run", *(f"{each:,}" for each in shown)]
    fallback = table("Validation loss by position, nats per token", head, rows)
    return (
        '<div class="chart script" id="position-chart" role="img"'
        ' aria-label="Validation loss by position in the context"></div>'
        f"<details><summary>Positions in figures</summary>{fallback}</details>"
    )


def tokens(runs: Sequence[Run]) -> str:
    """Return the tokens that cost most of the validation loss."""
    known = [(at, run) for at, run in enumerate(runs) if run.tokens]
    if not known:
        return "<p>Not known: no run has plots/tokens.csv.</p>"
    rows = (
        row(
            text(run.name),
            [
                cell(
                    ", ".join(
                        f"{each.get('token')} {each.get('share_of_loss')}"
                        for each in run.tokens[:10]
                    )
                )
            ],
            data_run=at,
        )
        for at, run in known
    )
    fallback = table("Ten tokens with the largest share of the loss", ["run", "tokens"], rows)
    return (
        '<div class="chart script" id="tokens-chart" role="img"'
        ' aria-label="Mean loss of the tokens that cost most"></div>'
        f"<details><summary>Tokens in figures</summary>{fallback}</details>"
    )


def samples(runs: Sequence[Run], cache: Cache) -> str:
    """Return the samples of every run; page.js shows the chosen ones side by side."""
    found = []
    for at, run in enumerate(runs):
        texts = outputs.read_samples(run, cache) if run.hashes.get("samples") else None
        if texts is None and run.hashes.get("samples"):
            inner = f"<p>Not in DVC's cache here: {text(reproduce.how_to_fetch(run))}.</p>"
        elif texts is None:
            inner = "<p>None.</p>"
        else:
            inner = "".join(map(elements.written, texts))
        found.append(element("article", f"<h3>{text(run.name)}</h3>{inner}", data_run=at))
    return f'<div class="columns">{"".join(found)}</div>'


def memorised(runs: Sequence[Run], cache: Cache) -> str:
    """Return how much of the samples stands verbatim in the training text."""
    prefix = "memorisation."
    keys = ("samples.copied_windows", "samples.longest")
    own = ("validation_text.copied_windows", "validation_text.longest")
    rows = []
    for at, run in enumerate(runs):
        values = [run.figures.get(prefix + key) for key in (*keys, *own)]
        if values[0] is None:
            continue
        cells = [
            number(
                value,
                "" if value is None else f"{value:.2%}" if place % 2 == 0 else f"{value:,.0f}",
            )
            for place, value in enumerate(values)
        ]
        copies = outputs.read_copies(run, cache)
        more = (
            f"<details><summary>show</summary>{elements.written(copies)}</details>"
            if copies
            else text(f"not in DVC's cache here: {reproduce.how_to_fetch(run)}")
        )
        rows.append(row(text(run.name), [*cells, f"<td>{more}</td>"], data_run=at))
    if not rows:
        return "<p>Not known: no run has looked its samples up in the training text.</p>"
    head = [
        *("run", "stretches of 50 characters copied", "longest, characters"),
        *("the author's own, in the validation text", "longest", "the longest copies"),
    ]
    return table("What samples copy of the training text", head, rows, identifier="memorised-table")


def data(datasets: outputs.Datasets) -> str:
    """Return the data at a glance, for each that runs were trained on."""
    found = []
    for users, dataset in datasets:
        names = name_some([run.name for run in users], 5)
        if dataset is None:
            hint = reproduce.how_to_fetch(users[0])
            found.append(f"<p>{text(names)}: not in DVC's cache here: {text(hint)}.</p>")
            continue
        rows = (row(text(key), [cell(value)]) for key, value in outputs.describe_dataset(dataset))
        found.append(table(f"Data of {names}", ["what", "how much"], rows))
    return "".join(found) or "<p>Not known: no run here has a dvc.lock.</p>"


def speed(runs: Sequence[Run]) -> str:
    """Return speed, memory and energy where a log has them."""
    rows = []
    for at, run in enumerate(runs):
        report = run.report
        if run.kind == "running":
            now = run.progress["tokens_per_second"]
            rows.append(row(text(run.name), [number(now, f"{now:,.0f}"), *[cell(NONE)] * 5]))
        elif report:
            seconds = report.get("seconds")
            wall = sum(seconds.values()) if isinstance(seconds, dict) else None
            parts = [
                _amount(report.get("tokens_per_second"), "{:,.0f}"),
                cell(NONE if wall is None else describe_seconds(wall)),
                _amount(report.get("model_flop_utilisation"), "{:.1%}"),
                _amount(report.get("peak_memory"), "{:.2f} GiB", 2**30),
                _amount(report.get("joules"), "{:.3g} Wh", 3600),
                cell(f"{report.get('device')}, {report.get('precision')}"),
            ]
            rows.append(row(text(run.name), parts, data_run=at))
    why = (
        "<p>Of other runs it is not known: git and DVC keep nothing that differs from run to run."
        " Training writes it to logs/train.json where it runs.</p>"
    )
    head = ["run", "tokens/s in steps", "time", "utilisation", "peak memory", "energy", "device"]
    return (table("Speed, memory and energy", head, rows) if rows else "") + why


def _amount(value: object, form: str, unit: float = 1) -> str:
    if not isinstance(value, int | float):
        return cell("unknown")
    return number(float(value), form.format(value / unit))


def reproducing(runs: Sequence[Run]) -> Iterator[str]:
    """Yield how to bring each run back."""
    yield (
        "<p>In a clean workspace (<code>git status</code>). <code>dvc repro</code> runs nothing"
        " where DVC's cache has the results; <code>dvc repro --force</code> trains anew, to the"
        " same bytes on the same machine.</p>"
    )
    for at, run in enumerate(runs):
        commands = reproduce.list_commands(run)
        hashes = "".join(
            row(text(what), [element("td", f"<code>{text(md5)}</code>")])
            for what, md5 in reproduce.list_hashes(run)
        )
        inner = (
            '<button type="button" class="copy script">copy</button>'
            f"<pre>{elements.lines(chr(10).join(commands))}</pre>"
            if commands
            else f"<p>{text(reproduce.describe_lack(run))}</p>"
        )
        if run.commit:
            inner += f"<p>Commit <code>{text(run.commit)}</code> {text(run.subject)}</p>"
        if hashes:
            caption = "<caption>MD5, as dvc.lock has it</caption>"
            inner += f'<div class="wide"><table>{caption}{hashes}</table></div>'
        yield (
            f'<details id="reproduce-{at}" data-run="{at}"><summary>{text(run.name)}</summary>'
            f"{inner}</details>"
        )
