"""The report of a study: a folder of pictures, and one page that holds them too, so that it can be sent as it is.

Flows in: a study that has run. Flows out: `report.html` and PNGs. Always holds: the page asks for nothing from anywhere, runs no
script, and its results are those of `Study.to_json`.
"""

import logging
import math
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

# What is slow to load (models, matplotlib) is loaded where it is needed: errors can be named without it.
if TYPE_CHECKING:
    from cli.pictures import Picture
    from cli.study import Study

#: In place of a number that there is not.
MISSING = "&mdash;"


class ReportUnavailable(RuntimeError):
    """There is no matplotlib to draw with; the message says how to get it."""


class ReportFolderError(OSError):
    """The report cannot be written there; the message says why and what to do."""


def prepare(folder: Path) -> None:
    """See that a report can be made in a folder, before a study takes its minutes; makes the folder.

    Raises
    ------
    ReportUnavailable: matplotlib is missing
    ReportFolderError: the folder cannot be made or written to
    """
    if find_spec("matplotlib") is None:
        raise ReportUnavailable("a report needs the package matplotlib, which is not installed: pip install matplotlib")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except (FileExistsError, NotADirectoryError) as error:
        raise ReportFolderError(
            f"{folder} is a file or within one, and a report is a folder of files: name another path"
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_report(study: "Study", folder: Path, title: str) -> Path:
    """Write a study's page and pictures into a folder, over those of an earlier report.

    Parameters
    ----------
    study : has run
    folder : is made if it is missing
    title : heading of the page

    Returns
    -------
    The page.

    Raises
    ------
    ReportUnavailable: matplotlib is missing
    ReportFolderError: the folder cannot be made or written to
    """
    prepare(folder)
    # It would tell whoever waits for a report that it lists fonts.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from cli.pictures import draw

    pictures = draw(study)
    page = folder / "report.html"
    try:
        for picture in pictures:
            (folder / picture.name).write_bytes(picture.png)
        page.write_text(_page(study, pictures, title), encoding="utf-8")
        if not study.ablations:
            # One of an earlier report would be taken for this one's.
            (folder / "ablation.png").unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return page


def _unwritable(folder: Path, error: OSError) -> ReportFolderError:
    reason = error.strerror or error
    return ReportFolderError(
        f"no report can be written into {folder} ({reason}): make room there, or name another folder"
    )


def _page(study: "Study", pictures: Sequence["Picture"], title: str) -> str:
    shown = {picture.name: _figure(picture) for picture in pictures}
    ablated = ""
    if study.ablations:
        ablated = _section("Without a part", shown["ablation.png"] + _ablation_table(study))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="lead">{_lead(study)}</p>
{_section("Arms", shown["arms.png"] + _arms_table(study))}
{_section("Over time", shown["recall.png"])}
{_section("Cold and warm users", shown["cold.png"])}
{ablated}
{_section("How it was made", _made(study))}
{_section("How to read it", _explained(study))}
</main>
</body>
</html>
"""


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>"


def _figure(picture: "Picture") -> str:
    data, (width, height) = b64encode(picture.png).decode(), picture.size
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(picture.alt)}"></figure>\n'
    )


def _lead(study: "Study") -> str:
    recall, arms = f"recall@{study.k}", study.arms()
    found = (
        f"In {100 * arms['served'][recall]:.1f}% of cases, the next video that a user was positive about was among the "
        f"{study.k} that <strong>served</strong> listed for them."
    )
    others = {name: means[recall] for name, means in arms.items() if name != "served"}
    if not others or not max(others.values()):
        return found
    best = max(others, key=lambda name: others[name])
    ratio, error = study.ratio(best)
    return f"{found} That is {ratio:.2f} ± {error:.2f} times the recall of {escape(best)}, the best of the other arms."


def _number(value: float, digits: int = 4, sign: str = "") -> str:
    if math.isnan(value):
        return MISSING
    text = f"{value:{sign},.{digits}f}".replace("-", "&minus;")
    return f'<data value="{value!r}">{text}</data>'


def _table(name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a table of cells that are HTML, the first of each row its name; wider than a phone, it scrolls by itself."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "\n".join(
        f'<tr class="{cells[0]}"><th scope="row">{cells[0]}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells[1:])
        + "</tr>"
        for cells in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{name}" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _arms_table(study: "Study") -> str:
    recall, ndcg = f"recall@{study.k}", f"ndcg@{study.k}"
    arms, cold, warm, young = (study.arms(group) for group in ("", "cold", "warm", "young"))
    of_cold, of_young = int(sum(study.runs[0].positions.cold)), int(sum(study.runs[0].positions.young))
    rows = []
    for arm in sorted(arms, key=lambda name: -arms[name][recall]):
        means, (ratio, error) = arms[arm], study.ratio(arm)
        times = MISSING if math.isnan(ratio) else f"{_number(ratio, 2)} ± {_number(error, 2)}"
        rows.append(
            [
                escape(arm),
                f"{_number(means[recall])} ± {_number(means['se'])}",
                *(_number(means[name]) for name in (ndcg, "mrr")),
                "" if arm == "served" else times,
                _number(cold[arm][recall] if of_cold else math.nan),
                _number(warm[arm][recall] if of_cold < study.runs[0].n else math.nan),
                _number(young[arm][recall] if of_young else math.nan),
            ]
        )
    return _table("Arms", ("arm", recall, ndcg, "mrr", "served is … times", "cold", "warm", "young"), rows)


def _ablation_table(study: "Study") -> str:
    rows = []
    for name, recall, difference, error in study.ablated():
        shown = f"{_number(round(difference, 5), sign='+')} ± {_number(round(error, 5))}"
        rows.append([escape(name), _number(round(recall, 5)), shown])
    return _table("Without a part", ("without", f"recall@{study.k}", "difference"), rows)


def _made(study: "Study") -> str:
    first = study.runs[0]
    options = _options(study)
    facts = {
        "ranked positives": f"{first.n:,}, of which {sum(first.positions.cold):,} of cold users, "
        f"{sum(first.positions.young):,} of young videos and {sum(first.positions.new):,} of videos not known yet, "
        "which no list can hold",
        "events": f"{first.events:,}",
        "users": "not described" if not study.users else f"{len(study.users):,} described beside events",
        "warm-up": f"the first {100 * options['warmup']:g}% of the positives, learned and not reported",
        "ranked": "each positive" if options["rank_every"] == 1 else f"one positive in {options['rank_every']:,}",
        "list": f"{study.k} videos",
        "lag": _lag(first.lag, first.evidence_lag),
        "exploration": f"{100 * options['exploration']:g}% of the lists",
        "seeds": f"{len(study.runs)}",
        "positives": f"{_number(round(first.positives_per_day, 3), 1)} a day in the warm-up: what turns half-lives into time",
        "decayed popularity": f"halves every {first.half_life:,.0f} positives, the best of the warm-up",
        "learning": f"{_number(round(study.learn_us, 1), 1)} µs an event",
        "ranking": f"{_number(round(study.rank_us, 1), 1)} µs a list",
    }
    return (
        "<dl>\n" + "\n".join(f"<div><dt>{name}</dt><dd>{fact}</dd></div>" for name, fact in facts.items()) + "\n</dl>"
    )


def _lag(events: int, of_evidence: int) -> str:
    if not of_evidence:
        return "none"
    said = f"{events:,} events that a list does not know yet"
    if of_evidence > events:
        said += f", and {of_evidence:,} that what all users share does not know"
    return said + "; decayed popularity and batch models know them"


def _options(study: "Study") -> dict[str, float]:
    """What the study was told, and the evaluator's defaults for the rest."""
    from cli.prequential import Evaluator

    return {**(Evaluator.__init__.__kwdefaults__ or {}), **study.options}


def _explained(study: "Study") -> str:
    from agents.trial import COLD_BELOW
    from cli.pictures import Z95
    from state.exploration import PROVEN_PLAYS

    k = study.k
    return f"""<p>Ranking is <em>prequential</em>: for each positive, in the order of the log, every arm ranks all videos that the
user has not seen, and only then is the positive learned. So whatever is counted here was still to come when the lists were
made, as it is when lists are served. A user's positive of a video counts once.</p>
<p><strong>recall@{k}</strong> is the share of positives whose video was in the list of {k}. <strong>ndcg@{k}</strong> and
<strong>mrr</strong> count also how high it was: at the top it counts 1 in both, further down less. Cold users had fewer than
{COLD_BELOW} events before; young videos were known and had fewer than {PROVEN_PLAYS} plays.</p>
<p>± is one <strong>standard error</strong> (se): how far off a number is likely to be because the log is only a sample. With
as many other positives of the same kind, about two in three such numbers would be within one se of the truth, and 95% within
{Z95:g} se, which is how long the lines on bars are. With several seeds, that of an arm has their spread in it. It takes
positives to be independent of each other, which those of one user are not quite.</p>
<p>All arms rank the same positives, and what is hard for one is hard for all. So <em>served is … times</em> and differences
have standard errors of pairs, and may be sure where the intervals of two bars overlap.</p>"""


_STYLE = """
:root { --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --paper: #fff; --mark: #e7f1f8; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa4af; --line: #343b43; --paper: #14181c; --mark: #15293a; --accent: #6cb6e6; }
  img { filter: brightness(.88); }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 48rem; margin: 0 auto; padding: 2rem 1.1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .6rem; overflow-wrap: anywhere; text-wrap: balance; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
p { margin: 0 0 .9rem; }
.lead { font-size: 1.1rem; color: var(--soft); }
.lead strong { color: var(--accent); }
figure { margin: 0 0 1rem; }
img { display: block; width: 100%; max-width: 40rem; height: auto; border-radius: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .42rem .5rem; border-bottom: 1px solid var(--line); text-align: right; }
thead th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
tbody th { font-weight: 500; }
th:first-child { position: sticky; left: 0; background: var(--paper); text-align: left; padding-left: .4rem; }
.served th:first-child, .served td { background: var(--mark); font-weight: 600; }
dl { margin: 0; font-variant-numeric: tabular-nums; }
dl div { display: flex; flex-wrap: wrap; gap: 0 1rem; padding: .35rem 0; border-bottom: 1px solid var(--line); }
dt { flex: 0 0 11.5rem; color: var(--soft); }
dd { flex: 1 1 14rem; margin: 0; }
@media print { main { max-width: none; } section { break-inside: avoid; } }
"""
