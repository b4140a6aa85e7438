"""A reader who has the site alone: follows its links, takes commands from its pages, runs them."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from browser import Browser
from documents import reason, smaller
from remotes import free_port
from workspace import Workspace

BLOCKS = """[...document.querySelectorAll('article h2')].map(heading => {
  const found = {heading: heading.firstChild.textContent, commands: [], links: []};
  for (let next = heading.nextElementSibling; next && next.tagName !== 'H2';) {
    for (const code of next.querySelectorAll('pre code')) found.commands.push(code.textContent);
    const links = next.querySelectorAll('a[href*=".html"]');
    found.links.push(...[...links].map(link => link.textContent.trim()));
    next = next.nextElementSibling;
  }
  return found;
})"""
PORT = f":{free_port()}/"  # of what is served
CLICK = (
    "[...document.querySelectorAll({where!r})].find(a => a.textContent.trim() === {text!r}).click()"
)


def prepare(project: Workspace, novel: str) -> None:
    """Give a reader what the first page takes for granted: a text, and places to share at."""
    home = project.root.parent
    (home / "my-novel.txt").write_text(novel, encoding="utf-8")
    project.env["HOME"] = str(home)
    project.git("init", "--quiet", "--bare", str(home / "origin.git"))
    project.git("remote", "add", "origin", str(home / "origin.git"))
    project.git("push", "--quiet", "--set-upstream", "origin", "HEAD")


def walk(
    site: Path, browser: Browser, project: Workspace, links: int | None = None
) -> Iterator[str]:
    """Yield what was clicked and what was run in `project`, from the first page on.

    `links` is how many of each section are followed, None all.
    """
    browser.open((site / "index.html").as_uri())
    yield click(browser, "nav.md-nav--primary a", "Quick start")
    start = browser.run("location.href")
    for section in browser.run(BLOCKS):
        yield f"## {section['heading']}"
        with ExitStack() as servers:
            for command in commands(section["commands"]):
                yield run(command, project, servers)
        for link in section["links"][:links]:
            yield click(browser, "article a", link)
            browser.open(start)


def click(browser: Browser, where: str, text: str) -> str:
    """Click the link `text`, and return what page it led to."""
    browser.follow(CLICK.format(where=where, text=text))
    assert browser.problems == []
    return f"clicked {' '.join(text.split())!r}: {browser.run('document.title')}"


@contextmanager
def serving(command: str, project: Workspace) -> Iterator[str]:
    """Start a server, yield the line that tells where it is, and end it by Ctrl-C."""
    with subprocess.Popen(
        ["sh", "-c", command], cwd=project.root, env=project.env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0


def commands(texts: list[str]) -> Iterator[str]:
    """Yield the commands of blocks, without what `#` says of them."""
    for line in "".join(texts).splitlines():
        if command := line.partition("  #")[0].strip():
            yield command


def run(command: str, project: Workspace, servers: ExitStack) -> str:
    """Run a command as it stands, but for places and sizes, and return what came of it.

    A server is left to `servers`, which end it.
    """
    if why := reason(command):
        return f"not run: {command} ({why})"
    here = smaller(command)
    for there, place in {
        "/mnt/team/nanogpt2": project.root.parent / "team",
        ":8000/": PORT,
    }.items():
        here = here.replace(there, str(place))
    if command.endswith("nanogpt2 serve"):
        line = servers.enter_context(serving(f"exec {here} --port {PORT.strip(':/')}", project))
        return f"ran: {command}: {line}"
    done = subprocess.run(
        ["sh", "-ec", here], cwd=project.root, env=project.env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines() or [""]
    return f"ran: {command}: {lines[-1][:100]}"
