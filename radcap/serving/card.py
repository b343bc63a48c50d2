"""The model card of an exported folder, filled from the run that the weights come from.

Nothing is invented: what the run does not say is left out, or said to be unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from radcap.errors import RadcapError
from radcap.files.mappings import figure_in, read_mapping
from radcap.files.markup import code
from radcap.scoring.comparable import COMPARABLE
from radcap.scoring.perplexity import perplexity_text
from radcap.scoring.slots import SCORED
from radcap.serving.facts import NUMBER, PHANTOM, data_kind, fact, told
from radcap.serving.note import DRAWINGS_ONLY
from radcap.serving.pretrained import Pretrained
from radcap.serving.source import hub_model_id

_FILES = """\
| file | holds |
| --- | --- |
| `model.safetensors` | the weights, float32 |
| `pytorch_model.bin` | the same weights for `torch.load`, under the names of the model card |
| `config.json` | the sizes of the model |
| `tokenizer.json`, `tokenizer_config.json`, `vocab.txt` | the tokenizer |
| `preprocessor_config.json` | how a picture becomes the model's input |
| `encode.pt2`, `decode_step.pt2` | the model as `torch.export`ed programs |
| `generate.py` | captions pictures with these programs: plain PyTorch, without radcap |
"""


@dataclass(frozen=True)
class RunFacts:
    """What is known of the training of some weights; empty where it is not.

    Attributes:
        config: the run's config.yaml.
        versions: its versions.json.
        summary: its summary.json, if these are the weights of its end.
        evaluations: the results.json of every evaluation of these weights beside the run.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    evaluations: list[Mapping[str, Any]] = field(default_factory=list)


def read_facts(pretrained: Pretrained, sha256: str) -> RunFacts:
    """Read what the run of the weights says of them.

    Args:
        pretrained: the weights.
        sha256: their fingerprint; evaluations of other weights are not theirs.

    Raises:
        RadcapError: a file of the run is damaged.
    """
    run = pretrained.run
    if run is None:
        return RunFacts()
    summary = _read(run / "summary.json")
    evaluations = [
        _read(file)
        for file in sorted(run.glob("evaluation/*/results.json"))
        if not re.search(r"\.old-\d+$", file.parent.name)  # moved aside
    ]
    return RunFacts(
        _read(run / "config.yaml"),
        _read(run / "versions.json"),
        summary if summary.get("steps") == pretrained.step else {},
        [one for one in evaluations if fact(one, "weights.sha256", str) == sha256],
    )


def model_card(pretrained: Pretrained, facts: RunFacts, name: str) -> str:
    """README.md of an exported folder, Markdown with the Hub's header.

    Args:
        pretrained: the weights.
        facts: from `read_facts`.
        name: what the model is called.
    """
    lines = (*_header(facts), *about(pretrained, facts, name), "\n## Use\n", _USE, _FILES)
    return "\n".join(lines).rstrip() + "\n"


def about(pretrained: Pretrained, facts: RunFacts, name: str) -> Iterator[str]:
    """What a model is, how it was trained, its scores and its limits: lines of Markdown."""
    is_plain = re.fullmatch(r"[\w./ -]+", name)
    yield f"# {name if is_plain else code(name)}\n"
    yield (
        "**Not for diagnosis.** This is a research model. Its captions are not medical findings, "
        "and nobody should be treated, or left untreated, for what it says.\n"
    )
    sizes = pretrained.architecture
    parameters = sum(parameter.numel() for parameter in pretrained.model.parameters())
    yield (
        f"A radiology image captioner of {parameters:,} parameters: MobileNetV3-Small sees the "
        f"image, {sizes.graph_steps} steps of message passing on a ring of 49 image tokens spread "
        f"what it saw, and a Transformer decoder ({sizes.num_layers} layers, width "
        f"{sizes.embed_dim}, {sizes.num_heads} heads) writes the caption in English word pieces of "
        "BERT. Made and exported by radcap.\n"
    )
    yield "## Training\n"
    yield from _training(pretrained, facts)
    yield "\n## Scores\n"
    yield from _scores(facts)
    yield "\n## Limits\n"
    yield from _limits(data_kind(facts.config) if facts.config else pretrained.trained_on)


def _header(facts: RunFacts) -> Iterator[str]:
    hub_id = fact(facts.config, "data.hub_id", str)
    is_on_hub = hub_id and hub_model_id(hub_id) and data_kind(facts.config) == "hub"
    header = ModelCardData(
        library_name="radcap",
        pipeline_tag="image-to-text",
        language="en",
        tags=["radiology", "image-captioning", "not-for-diagnosis"],
        datasets=[hub_id] if is_on_hub else None,
    )
    yield f"---\n{header.to_yaml()}\n---\n"


def _data_name(config: Mapping[str, Any]) -> str | None:
    source = data_kind(config)
    if source == "folder":
        return f"a local folder ({code(Path(config['data']['path']).name)})"
    if source == PHANTOM:
        return "radcap's phantom data set (synthetic, not RadImageNet)"
    return told("{}", config, {"data.hub_id": str})


def _training(pretrained: Pretrained, facts: RunFacts) -> Iterator[str]:
    config, summary = facts.config, facts.summary
    if not config:
        yield (
            "These weights came without a run: on which data they were trained, how long and how "
            "well they learned is not known here."
        )
        return
    encoder = fact(config, "model.encoder_weights", str)
    is_of_the_hub = data_kind(config) == "hub"
    revision = "commit of the data" if is_of_the_hub else "fingerprint of the data's files"
    adam: dict[str, Any] = {"optimizer.lr": NUMBER, "schedule.name": str}
    lines = {
        "data": _data_name(config),
        "configuration and split": told(
            "{}, {}", config, {"data.config": str, "data.train_split": str}
        ),
        revision: told("{}", facts.versions, {"data_revision": str}),
        "step of these weights": f"{pretrained.step:,}",
        "rows in a batch": told("{:,}", config, {"data.batch_size": int}),
        "images seen": told("{:,}", summary, {"images": int}),
        "passes over the data": told("{:.2f}", summary, {"epochs": NUMBER}),
        "target tokens": told("at most {} a caption", config, {"data.max_length": int}),
        "optimizer": told("Adam, rate {:g}, {}", config, adam),
        "start of the encoder": code(Path(encoder).name) if encoder else None,  # it may be a file
        "seed": told("{}", config, {"seed": int}),
        "made with": _made_with(facts.versions),
    }
    yield "| | |"
    yield "| --- | --- |"
    for what, value in lines.items():
        if value is not None:
            yield f"| {what} | {value} |"


def _made_with(versions: Mapping[str, Any]) -> str | None:
    found = [told(f"{name} {{}}", versions, {name: str}) for name in ("radcap", "torch")]
    return ", ".join(one for one in found if one) or None


def _scores(facts: RunFacts) -> Iterator[str]:
    for one in facts.evaluations:
        yield from _evaluation(one)
    if facts.evaluations:
        for topic in ("loss", "texts", "intervals"):
            yield f"- {COMPARABLE[topic]}"
        return
    summary = facts.summary
    validation = told(
        "At the end of training, on {:,} rows of the validation split: loss {:.4f} nats a target "
        "token (padding left out)",
        summary,
        {"val_rows": int, "val_loss": NUMBER},
    )
    perplexity = figure_in(summary, "val_perplexity")
    if validation is None or perplexity is None:
        yield "None were computed. `python -m radcap.evaluate` computes them."
        return
    yield f"{validation}, perplexity {perplexity_text(perplexity)}."
    shares, counts = [], []
    for slot in SCORED:
        share = fact(summary, f"slots.{slot}.accuracy", NUMBER)
        count = fact(summary, f"slots.{slot}.count", int)
        if share is not None and count is not None:
            shares.append(f"{slot} {share:.1%}")
            counts.append(count)
    if shares:
        yield f"Share of {max(counts):,} captions that state the right label: {', '.join(shares)}."


def _evaluation(one: Mapping[str, Any]) -> Iterator[str]:
    """The figures of a results.json, as far as it holds them."""
    name = fact(one, "data.name", str) or "unknown"
    # Of a local folder the last name alone: the rest is nobody's business.
    name = name if hub_model_id(name) else Path(name).name
    beams = fact(one, "settings.beams", int)
    search = None if beams is None else "greedy" if beams == 1 else f"{beams} beams"
    said = [
        told("{:,} rows scored", one, {"rows": int}),
        told("of {:,}", one, {"data.split_rows": int}),
        told("{:,} captioned", one, {"captions": int}),
        search,
        told("at most {} word pieces", one, {"settings.max_length": int}),
        told("{}", one, {"settings.precision": str}),
    ]
    where = told("Split {}", one, {"data.split": str}) or "A split"
    revision = told(", revision {}", one, {"data.revision": str}) or ""
    yield f"{where} of {code(name)}{revision}: {', '.join(text for text in said if text)}.\n"
    yield "| score | value | 95 % interval |"
    yield "| --- | ---: | --- |"
    scores = one.get("scores")
    for name, figure in scores.items() if isinstance(scores, Mapping) else ():
        value = figure_in(figure, "value") if isinstance(figure, Mapping) else None
        if value is None or not re.fullmatch(r"\w+", str(name)):
            continue
        ends = fact(figure, "interval", list) or []
        low, high = (figure_in({"end": end}, "end") for end in (*ends, None, None)[:2])
        shown = ""
        if low is not None and high is not None:
            shown = f"{perplexity_text(low, '.4f')} to {perplexity_text(high, '.4f')}"
        yield f"| {name} | {perplexity_text(value, '.4f')} | {shown} |"
    yield ""


def _limits(trained_on: str | None) -> Iterator[str]:
    yield "- It states something for every picture, whether it shows such a body part or not."
    yield (
        "- It knows the modalities, body parts and findings of its training captions, in their "
        "few wordings, and nothing else."
    )
    if trained_on == PHANTOM:
        yield f"- **It was {DRAWINGS_ONLY}.**"
    yield (
        "- It sees 224 x 224 pixels of 8 bits, the middle of the picture (7/8 of both sides), and "
        "knows nothing of the patient, of other slices or of earlier examinations."
    )


_USE = """\
With radcap:

```bash
python -m radcap.caption THIS_FOLDER picture.png
```

With plain PyTorch, no radcap:

```bash
pip install torch tokenizers pillow numpy
python generate.py picture.png
```

`generate.py` is an example of how the two programs are called: `encode` looks at the pictures,
`decode_step` reads one token of every caption and gives the logits of the next; the keys and values
of the tokens so far go in and come out as a cache. A call takes 1 to 4,096 pictures, and a cache
has room for 1 to 2,000 tokens.
"""


def _read(file: Path) -> dict[str, Any]:
    try:
        content = read_mapping(file)
    except FileNotFoundError:
        return {}
    except OSError:
        content = None
    if content is None:
        raise RadcapError(f"{file} is damaged; the model card cannot be filled from it")
    return content
