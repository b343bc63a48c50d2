"""worst.html: the worst captions with their images, one file without links."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence

from radcap.data.labels import Labels
from radcap.evaluation.results import RowResult
from radcap.files.markup import html
from radcap.scoring.slots import NOTHING, STATED, right_slots
from radcap.serving.note import WARNING

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #1c1c1c; background: #fdfdfd; }
.warning { border-left: 4px solid #b3261e; padding: .2rem 1rem; }
article { display: grid; grid-template-columns: 224px 1fr; gap: 1.5rem; padding: 1rem 0;
          border-top: 1px solid #ddd; }
img { width: 224px; height: 224px; background: #eee; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dt { color: #666; } dd { margin: 0; } .wrong { color: #b3261e; font-weight: 600; }
@media (max-width: 40rem) { article { grid-template-columns: 1fr; } }
"""


def worst_page(
    rows: Sequence[RowResult],
    said: Mapping[int, Labels],
    picture: Callable[[int], bytes | None],
    *,
    origin: str,
    data: str,
) -> str:
    """The page.

    Args:
        rows: captioned rows, the worst first.
        said: a row's number -> what its caption states, as the tables count it.
        picture: a row's number -> its PNG, None where it was not kept.
        origin: the weights, for people.
        data: the rows' data set and split, for people.
    """
    articles = "\n".join(_article(row, said[row.row], picture(row.row)) for row in rows)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Worst captions of {html(origin)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>The {len(rows)} worst captions</h1>
<p class="warning"><strong>{html(WARNING)}</strong></p>
<p>Weights: {html(origin)}. Data: {html(data)}. First those with most labels stated wrongly, of
these the ones whose true caption the model found least likely.</p>
{articles}
</body>
</html>
"""


def _article(row: RowResult, said: Labels, picture: bytes | None) -> str:
    image = "<p>(the picture was not kept)</p>"
    if picture is not None:
        data = base64.b64encode(picture).decode()
        image = f'<img alt="row {row.row}" src="data:image/png;base64,{data}">'
    return f"""<article>
{image}
<dl>
<dt>says</dt><dd>{html(row.caption or "") or NOTHING}</dd>
<dt>data says</dt><dd>{html(row.reference)}</dd>
{_slots(said, row.labels)}<dt>loss</dt><dd>{row.loss / max(row.tokens, 1):.3f} nats a token</dd>
<dt>row</dt><dd>{html(row.id)}</dd>
</dl>
</article>"""


def _slots(said: Labels, labels: Labels) -> str:
    lines = ""
    for slot, right in right_slots(said, labels).items():
        if slot not in STATED:
            continue
        stated = html(getattr(said, slot) or NOTHING)
        if not right:
            stated = f'<span class="wrong">{stated}</span>, is {html(getattr(labels, slot))}'
        lines += f"<dt>{slot}</dt><dd>{stated}</dd>\n"
    return lines
