"""What `make site` holds the built site to.

python website/check.py [--look FOLDER]

Every public name has its place in the API reference, every link inside leads to a file and an anchor that are there,
and no page loads anything from elsewhere. Where there is Chromium, the search, opened from the disk without a network,
finds a page, and no page is wider than a phone. --look draws pages at 390 and 1280 pixels, light and dark, into FOLDER.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

sys.path.insert(0, str(Path(__file__).parent))
import reference

SITE = Path(__file__).resolve().parents[1] / "build" / "site"
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("use", "href")}
PAGES = (
    *("index", "examples", "studies", "results", "method", "evidence", "how_far_it_scales"),
    *("drop_in/dqn_sac", "benchmarks/index", "benchmarks/dark_key", "api/twohot.losses"),
)
WIDTHS = (390, 1280)


class Page(HTMLParser):
    """Anchors and addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.anchors |= {attributes[name] or "" for name in ("id", "name") if name in attributes}
        for name in ("href", "src"):
            value = attributes.get(name)
            if value and (tag, name) in LOADED:
                self.loaded.append(value)
            elif value:
                self.links.append(value)


def outside(address: str) -> bool:
    return "://" in address or address.startswith(("//", "mailto:", "data:"))


def problems(site: Path = SITE, names: dict[str, list[str]] | None = None) -> list[str]:
    """What is wrong with a built site, a sentence each."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        found += [f"{where} loads {address}" for address in page.loaded if "://" in address or address.startswith("//")]
        if where.name == "404.html":
            continue  # its addresses begin at the root of wherever it is served
        for address in [*page.links, *page.loaded]:
            if outside(address):
                continue
            file, anchor = urldefrag(unquote(address))
            target = (path.parent / file.split("?")[0]).resolve() if file else path
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file():
                found.append(f"{where} links to {address}, which is not there")
            elif target in pages and anchor not in pages[target].anchors:
                found.append(f"{where} links to {address}, which has no such place")
    for module, listed in (names or reference.public_names()).items():
        path = site / "api" / f"{module}.html"
        anchors = pages[path].anchors if path in pages else set()
        found += [
            f"{module}.{name} is not in the API reference" for name in listed if f"{module}.{name}" not in anchors
        ]
    return found


SEARCH = """<script>addEventListener("load", () => {
  const query = document.querySelector(".md-search__input");
  document.querySelector("#__search").click();
  query.focus(); query.value = "two_hot_cross_entropy"; query.dispatchEvent(new Event("keyup"));
  const wait = (left) => {
    const found = [...document.querySelectorAll(".md-search-result__link")].map((link) => link.getAttribute("href"));
    if (found.length || !left) document.body.dataset.found = found.join(" ");
    else setTimeout(wait, 100, left - 1);
  };
  wait(100);
});</script>"""
WIDE = """<body><script>addEventListener("load", () => {
  const wide = (frame) => frame.contentDocument.documentElement.scrollWidth > frame.clientWidth;
  const frames = [...document.querySelectorAll("iframe")];
  document.body.dataset.found = frames.filter(wide).map((frame) => frame.title).join(" ");
});</script>"""


def browser() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def chromium(*arguments: str) -> str:
    """What Chromium prints, without a display and with its network cut off."""
    with tempfile.TemporaryDirectory() as profile:
        fixed = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=20000")
        apart = ("--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}")
        command = [browser() or "chromium", *fixed, *apart, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def framed(page: Path, width: int) -> str:
    """A page at a width; Chromium's own window is never narrower than 500 pixels."""
    style = f"border:0;width:{width}px;height:2400px"
    return f'<iframe src="{page.as_uri()}" style="{style}" title="{page.name}"></iframe>'


def found_by_browser(content: str, path: Path, *arguments: str) -> list[str] | None:
    """Words that a page's script has left in its body; None where it has not come so far."""
    path.write_text(content, encoding="utf-8")
    try:
        match = re.search(r'data-found="([^"]*)"', chromium("--dump-dom", *arguments, path.as_uri()))
    finally:
        path.unlink()
    return match[1].split() if match else None


def seen_problems(site: Path = SITE) -> list[str]:
    """What a browser without a network finds wrong with a site that it reads from the disk."""
    source = (site / "api" / "index.html").read_text(encoding="utf-8")
    searching = source.replace("</body>", f"{SEARCH}</body>")
    hits = found_by_browser(searching, site / "api" / "_search.html")
    found = [] if any("api/twohot.losses.html" in hit for hit in hits or ()) else ["the search finds nothing"]
    frames = "".join(framed(site / f"{name}.html", WIDTHS[0]) for name in PAGES)
    wide = found_by_browser(frames + WIDE, site / "_wide.html", "--allow-file-access-from-files")
    return found + [f"{name} is wider than its window" for name in (["a page"] if wide is None else wide)]


def look(folder: Path, site: Path = SITE) -> None:
    """Pictures of pages, narrow and wide, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = folder / "frame.html"
    for name, width, scheme in itertools.product(PAGES, WIDTHS, ("light", "dark")):
        frame.write_text(f'<body style="margin:0">{framed(site / f"{name}.html", width)}')
        picture = folder / f"{name.replace('/', '-')}-{width}-{scheme}.png"
        colour = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
        chromium(f"--screenshot={picture}", f"--window-size={max(width, 500)},2400", colour, frame.as_uri())
    frame.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--look", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    found = problems()
    if browser() or os.environ.get("TWOHOT_REQUIRE_BROWSER") == "1":
        found += seen_problems()
    if arguments.look:
        look(arguments.look.resolve())
    print(*found, sep="\n", end="\n" if found else "")
    names = sum(map(len, reference.public_names().values()))
    print(f"{len(list(SITE.rglob('*.html')))} pages, {names} public names, {len(found)} problems")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
