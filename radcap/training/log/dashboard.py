"""What makes TensorBoard a dashboard of a run, beside its curves.

- Custom scalars: the charts that tell how a run fares, side by side (`charts`).
- HParams: what the run was told and its final scores, so that the runs of a sweep compare.
- The floor: the lowest loss that the data set allows, as a line beside the run's own.

A chart has a colour for each run, that is for each folder of files, and for several tags of one run
none: what is in one chart has one tag in several folders (see `curves`), or a chart of
its own.

Tags: floor/loss, floor/perplexity; final/loss, final/perplexity, final/loss_per_caption,
final/slots/NAME.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams

from radcap.config.compose import to_yaml
from radcap.config.options import declared, value_of
from radcap.config.schema import Config
from radcap.scoring.perplexity import perplexity
from radcap.scoring.slots import SCORED

if TYPE_CHECKING:
    from radcap.data.phantom.dataset import Floor
    from radcap.training.validate import Validation

# Category -> chart -> tag.
_CHARTS = {
    "Learning": {
        "loss of train, val and bound (nats a token)": "loss",
        "perplexity of train, val and bound": "perplexity",
        "learning rate": "train/lr",
        "gradient norm": "train/grad_norm",
    },
    "Captions that state the right label": {name: f"val/slots/{name}" for name in SCORED},
    "Speed": {
        "throughput (images/s)": "train/images_per_s",
        "step (s)": "train/step_s",
        "wait for input (s)": "data/wait_s",
    },
    "Data": {
        "masked rows, so far": "data/skipped",
        "requests to the Hub sent again, so far": "data/retries",
    },
}

# The table of the HParams tab shows five settings, those said to differ before the others and else
# by name, and then the first five scores. The first are what most comparisons are about, what is
# looked for first at the front: not all windows are wide enough for more.
_SLOTS = ("all", "pathology", "location", "modality", "abnormal")

_FINAL = "final/"
_FINAL_SCORES = ("loss", "perplexity", "loss_per_caption")


def opening(config: Config) -> list[Any]:
    """What a run shows at step 0, as the command was given last.

    Args:
        config: what it was told.
    """
    return [text("config", f"```yaml\n{to_yaml(config)}```"), charts(), *_session(config)]


def charts() -> Any:
    """The layout of the Custom Scalars tab."""
    categories = [
        layout_pb2.Category(
            title=title,
            chart=[
                layout_pb2.Chart(
                    title=name,
                    multiline=layout_pb2.MultilineChartContent(tag=[f"{tag}$"]),
                )
                for name, tag in found.items()
            ],
        )
        for title, found in _CHARTS.items()
    ]
    layout = layout_pb2.Layout(category=categories).SerializeToString()
    metadata = custom_scalars.create_summary_metadata()
    tensor = TensorProto(dtype=DT_STRING, string_val=[layout], tensor_shape=TensorShapeProto())
    return Summary.Value(tag=custom_scalars.CONFIG_SUMMARY_TAG, metadata=metadata, tensor=tensor)


def floor_lines(floor: Floor | None) -> list[Any]:
    """A point of the floor's lines; nothing for data without one."""
    if floor is None:
        return []
    loss = floor.nats_per_token
    return scalars({"floor/loss": loss, "floor/perplexity": perplexity(loss)})


def closing(result: Validation) -> list[Any]:
    """What a run shows at its end: its final scores, for comparison with others'."""
    scores = result.scores()
    found = {f"{_FINAL}{name}": scores[name] for name in _FINAL_SCORES}
    found |= {f"{_FINAL}slots/{name}": share for name, share in result.accuracies().items()}
    status = api_pb2.Status.Value("STATUS_SUCCESS")
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    return [*scalars(found), _hparams_value(hparams.SESSION_END_INFO_TAG, data)]


def is_closing(summary: Any) -> bool:
    """Whether a summary is what `closing` made: a run that goes on is not at its end."""
    return any(value.tag.startswith(_FINAL) for value in summary.value)


def is_opening(summary: Any) -> bool:
    """Whether a summary is what `opening` made: a run that goes on shows what it is told now."""
    return any(value.tag == hparams.EXPERIMENT_TAG for value in summary.value)


def scalars(values: Mapping[str, float]) -> list[Any]:
    """Numbers by tag."""
    return [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]


def text(tag: str, markdown: str) -> Any:
    """A text for the Text tab."""
    tensor = TensorProto(
        dtype=DT_STRING,
        string_val=[markdown.encode()],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=tag, metadata=plugin, tensor=tensor)


def _session(config: Config) -> Iterable[Any]:
    """The columns of the HParams tab, and what this run has in them: whatever changes the curve.

    A sweep over something else, such as data.workers, has that in the names of its lines, which
    are those of the run folders.
    """
    infos = []
    # Without a group's name each folder is a line of its own: runs/NAME.old-1 has NAME's run.name.
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, one in declared(type(config)).items():
        if one.metadata["hparam"] is None:
            continue
        kind, value = one.type, value_of(config, name)
        # A column has one type: what may be null, or is a list, is text in all runs.
        if kind in ("int", "float"):
            start.hparams[name].number_value = value
            column = "DATA_TYPE_FLOAT64"
        elif kind == "bool":
            start.hparams[name].bool_value = value
            column = "DATA_TYPE_BOOL"
        else:
            start.hparams[name].string_value = "null" if value is None else str(value)
            column = "DATA_TYPE_STRING"
        kind_of_column = api_pb2.DataType.Value(column)
        is_first = one.metadata["hparam"] == "first"
        infos.append(api_pb2.HParamInfo(name=name, type=kind_of_column, differs=is_first))
    tags = dict.fromkeys(["loss", *(f"slots/{n}" for n in _SLOTS[:3]), *_FINAL_SCORES])
    tags |= dict.fromkeys(f"slots/{name}" for name in _SLOTS)
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=f"{_FINAL}{tag}"), display_name=tag)
        for tag in tags
    ]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    told = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    yield _hparams_value(hparams.EXPERIMENT_TAG, told)
    begun = plugin_data_pb2.HParamsPluginData(session_start_info=start)
    yield _hparams_value(hparams.SESSION_START_INFO_TAG, begun)


def _hparams_value(tag: str, data: Any) -> Any:
    metadata = hparams.create_summary_metadata(data)
    return Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)
