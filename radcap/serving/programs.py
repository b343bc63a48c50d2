"""A captioner as two `torch.export`ed programs, for plain PyTorch without radcap.

    encode.pt2       images uint8 [B, 3, 224, 224] -> memory [2, N, B, H, 49, d]
    decode_step.pt2  ids int64 [B], position int64 [1], memory, cache [2, N, B, H, S, d]
                     -> logits [B, V], cache [2, N, B, H, S, d]

The first axis of memory and cache holds keys and values, the second the N decoder layers. A cache
begins as zeros; S is how many tokens it has room for. B is 1 to 4096 and S 1 to 2000, free within
these.

Shape legend: B batch, N layers, H heads, d width of a head, S cached positions, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from radcap.config.schema import MAX_POSITIONS
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.decoder import DecoderLayer, KeyValue
from radcap.model.encoder import IMAGE_SIZE
from radcap.model.generate import decode_step

if TYPE_CHECKING:
    from collections.abc import Sequence

ENCODE, DECODE_STEP = "encode.pt2", "decode_step.pt2"
_MAX_BATCH = 4096
# Sizes of the example: unlike each other and unlike 1, so that none is taken for a constant.
_ROWS, _POSITIONS = 2, 5


def export_programs(model: ImageCaptioningModel) -> dict[str, ExportedProgram]:
    """Record both programs, by file name.

    Args:
        model: on the CPU, in evaluation mode.
    """
    batch = Dim("batch", min=1, max=_MAX_BATCH)
    positions = Dim("positions", min=1, max=MAX_POSITIONS)
    images = torch.zeros(_ROWS, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    encode, step = _Encode(model).eval(), _DecodeStep(model).eval()
    with torch.no_grad():
        memory = encode(images)
        cache = empty_cache(memory, _POSITIONS)
        ids, position = torch.zeros(_ROWS, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        encode_program = torch.export.export(encode, (images,), dynamic_shapes=({0: batch},))
        step_program = torch.export.export(
            step,
            (ids, position, memory, cache),
            dynamic_shapes=({0: batch}, None, {2: batch}, {2: batch, 4: positions}),
        )
    return {ENCODE: _without_traces(encode_program), DECODE_STEP: _without_traces(step_program)}


def empty_cache(memory: Tensor, num_positions: int) -> Tensor:
    """A cache [2, N, B, H, S, d] of zeros for S tokens."""
    pair, layers, rows, heads, _, width = memory.shape
    return memory.new_zeros(pair, layers, rows, heads, num_positions, width)


def _without_traces(program: ExportedProgram) -> ExportedProgram:
    """Let go of where a program was recorded: its nodes hold traces with this machine's paths."""
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


class _Encode(nn.Module):
    """Images -> the projected memory of every decoder layer. Holds what it uses and no more."""

    def __init__(self, model: ImageCaptioningModel) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.vis_proj = model.vis_proj
        self.graph_layer = model.graph_layer
        layers = cast("Sequence[DecoderLayer]", model.decoder.layers)
        self.attentions = nn.ModuleList(layer.multihead_attn for layer in layers)

    def forward(self, images: Tensor) -> Tensor:
        # It has the three modules that the captioner's method uses, under the same names.
        memory = ImageCaptioningModel.encode_images(cast(ImageCaptioningModel, self), images)
        pairs = [attention.project_key_value(memory) for attention in self.attentions]  # type: ignore[operator]
        return torch.stack([torch.stack(tuple(pair)) for pair in pairs], dim=1)


class _DecodeStep(nn.Module):
    """One token of every row -> the logits of the next, and a new cache."""

    def __init__(self, model: ImageCaptioningModel) -> None:
        super().__init__()
        self.embedding = model.embedding
        self.pos_encoder = model.pos_encoder
        self.decoder = model.decoder
        self.fc_out = model.fc_out

    def forward(
        self, ids: Tensor, position: Tensor, memory: Tensor, cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        cache = cache.clone()  # the caller's stays as it is
        memory_kv, cache_kv = (
            [KeyValue(one[0, layer], one[1, layer]) for layer in range(one.shape[1])]
            for one in (memory, cache)
        )
        captioner = cast(ImageCaptioningModel, self)  # of it, the four modules above are used
        return decode_step(captioner, memory_kv, cache_kv, ids, position), cache
