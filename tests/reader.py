"""A reader who has the site alone: follows its links, takes commands from its pages, runs them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from browser import Browser
from documents import reason, smaller
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
        for command in commands(section["commands"]):
            yield run(command, project)
        for link in section["links"][:links]:
            yield click(browser, "article a", link)
            browser.open(start)


def click(browser: Browser, where: str, text: str) -> str:
    """Click the link `text`, and return what page it led to."""
    browser.follow(CLICK.format(where=where, text=text))
    assert browser.problems == []
    return f"clicked {' '.join(text.split())!r}: {browser.run('document.title')}"


def commands(texts: list[str]) -> Iterator[str]:
    """Yield the commands of blocks, without what `#` says of them."""
    for line in "".join(texts).splitlines():
        if command := line.partition("  #")[0].strip():
            yield command


def run(command: str, project: Workspace) -> str:
    """Run a command as it stands, but for places and sizes, and return what came of it."""
    if why := reason(command):
        return f"not run: {command} ({why})"
    team = project.root.parent / "team"
    here = smaller(command).replace("/mnt/team/nanogpt2", str(team))
    done = subprocess.run(
        ["sh", "-ec", here], cwd=project.root, env=project.env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines() or [""]
    return f"ran: {command}: {lines[-1][:100]}"
