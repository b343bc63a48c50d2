"""The model card of an exported folder, filled from the run that the weights come from.

Nothing is invented: what the run does not say is left out, or said to be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from radcap.errors import RadcapError
from radcap.serving.pretrained import Pretrained

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
    evaluations = [_read(file) for file in sorted(run.glob("evaluation/*/results.json"))]
    return RunFacts(
        _read(run / "config.yaml"),
        _read(run / "versions.json"),
        summary if summary.get("steps") == pretrained.step else {},
        [one for one in evaluations if one.get("weights", {}).get("sha256") == sha256],
    )


def model_card(pretrained: Pretrained, facts: RunFacts, name: str) -> str:
    """README.md of an exported folder, Markdown with the Hub's header.

    Args:
        pretrained: the weights.
        facts: from `read_facts`.
        name: what the model is called.
    """
    return "\n".join(_lines(pretrained, facts, name)).rstrip() + "\n"


def _lines(pretrained: Pretrained, facts: RunFacts, name: str) -> Iterator[str]:
    yield from _header(facts)
    yield f"# {name}\n"
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
    yield from _limits(facts)
    yield "\n## Use\n"
    yield _USE
    yield _FILES


def _header(facts: RunFacts) -> Iterator[str]:
    header: dict[str, Any] = {
        "library_name": "radcap",
        "pipeline_tag": "image-to-text",
        "language": "en",
        "tags": ["radiology", "image-captioning", "not-for-diagnosis"],
    }
    hub_id = facts.config.get("data", {}).get("hub_id")
    if hub_id and _data_name(facts.config) == hub_id:
        header["datasets"] = [hub_id]
    yield "---"
    yield yaml.safe_dump(header, sort_keys=False).rstrip()
    yield "---\n"


def _data_name(config: Mapping[str, Any]) -> str | None:
    data = config.get("data", {})
    if data.get("path"):
        return f"a local folder ({Path(data['path']).name})"
    if data.get("name") == "phantom":
        return "radcap's phantom data set (synthetic, not RadImageNet)"
    return data.get("hub_id")


def _training(pretrained: Pretrained, facts: RunFacts) -> Iterator[str]:
    config, summary = facts.config, facts.summary
    if not config:
        yield (
            "These weights came without a run: on which data they were trained, how long and how "
            "well they learned is not known here."
        )
        return
    told = {
        "data": _data_name(config),
        "configuration and split": _told("{}, {}", config, "data.config", "data.train_split"),
        "revision of the data": facts.versions.get("data_revision"),
        "step of these weights": f"{pretrained.step:,}",
        "rows in a batch": _told("{:,}", config, "data.batch_size"),
        "images seen": _told("{:,}", summary, "images"),
        "passes over the data": _told("{:.2f}", summary, "epochs"),
        "target tokens": _told("at most {} a caption", config, "data.max_length"),
        "optimizer": _told("Adam, rate {:g}, {}", config, "optimizer.lr", "schedule.name"),
        "start of the encoder": _told("{}", config, "model.encoder_weights"),
        "seed": _told("{}", config, "seed"),
        "made with": _made_with(facts.versions),
    }
    yield "| | |"
    yield "| --- | --- |"
    for what, value in told.items():
        if value is not None:
            yield f"| {what} | {value} |"


def _told(form: str, facts: Mapping[str, Any], *names: str) -> str | None:
    """Some facts in words; None where one of them is missing, as in a run of another version."""
    values = []
    for name in names:
        value: Any = facts
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return None
        values.append(value)
    return form.format(*values)


def _made_with(versions: Mapping[str, Any]) -> str | None:
    packages = [f"{name} {versions[name]}" for name in ("radcap", "torch") if versions.get(name)]
    return ", ".join(packages) or None


def _scores(facts: RunFacts) -> Iterator[str]:
    for one in facts.evaluations:
        data = one["data"]
        # Of a local folder the last name alone: the rest is nobody's business.
        name = Path(data["name"]).name if Path(data["name"]).is_absolute() else data["name"]
        yield (
            f"Split {data['split']} of {name}, revision {data['revision']}: "
            f"{one['rows']:,} rows scored, {one['captions']:,} captioned.\n"
        )
        yield "| score | value | 95 % interval |"
        yield "| --- | ---: | --- |"
        for name, figure in one["scores"].items():
            low, high = figure["interval"]
            if figure["value"] is not None:
                ends = "" if low is None else f"{low:.4f} to {high:.4f}"
                yield f"| {name} | {figure['value']:.4f} | {ends} |"
        yield ""
        for topic in ("loss", "texts", "intervals"):
            yield f"- {one['comparable'][topic]}"
        yield ""
    summary = facts.summary
    if facts.evaluations:
        return
    if "val_loss" not in summary:
        yield "None were computed. `python -m radcap.evaluate` computes them."
        return
    yield (
        f"At the end of training, on {summary['val_rows']:,} rows of the validation split: loss "
        f"{summary['val_loss']:.4f} nats a target token (padding left out), perplexity "
        f"{summary['val_perplexity']:.3f}."
    )
    slots = summary.get("slots") or {}
    shares = [f"{n} {s['accuracy']:.1%}" for n, s in slots.items() if s["accuracy"] is not None]
    if shares:
        count = max(score["count"] for score in slots.values())
        yield f"Share of {count:,} captions that state the right label: {', '.join(shares)}."


def _limits(facts: RunFacts) -> Iterator[str]:
    yield "- It states something for every picture, whether it shows such a body part or not."
    yield (
        "- It knows the modalities, body parts and findings of its training captions, in their "
        "few wordings, and nothing else."
    )
    if facts.config and _data_name(facts.config) and "phantom" in str(_data_name(facts.config)):
        yield (
            "- **It was trained on drawings, not on medical images.** What it says of a real "
            "picture has no meaning at all."
        )
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
of the tokens so far go in and come out as a cache. Number of pictures and length are free.
"""


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict):
        raise RadcapError(f"{file} is damaged; the model card cannot be filled from it")
    return content
