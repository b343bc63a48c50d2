"""Captions images with the programs beside this file: plain PyTorch, without radcap.

    pip install torch tokenizers pillow numpy
    python generate.py IMAGE...

Not for diagnosis: a research model's captions are not medical findings. Pictures of 8 bits; those
of 16 bits or from DICOM have to be brought to 8 bits before, or captioned by radcap itself.
"""

import json
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer
from torch import Tensor

FOLDER = Path(__file__).resolve().parent
MAX_LEN = 80
ELSEWHERE = "bring it to 8 bits, or python -m radcap.caption reads it"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# What Pillow's readers raise for what is no picture, or a damaged one.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError),
    *(struct.error, Image.DecompressionBombError),
)


class ImageError(Exception):
    """A picture that is not read here; the message says why."""


def load_image(file: str | Path) -> Tensor:
    """A picture as uint8 [3, 224, 224]: resized to 256 x 256, of that the middle.

    Raises:
        ImageError: not a picture of 8 bits.
        OSError: not there, not readable.
    """
    with Path(file).open("rb") as stream:
        head = stream.read(132)
    if head[128:] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        raise ImageError(f"a DICOM file: {ELSEWHERE}")
    if head.startswith(LFS_POINTER):
        raise ImageError("a git-lfs pointer in the place of the picture: git lfs pull fetches it")
    try:
        with Image.open(file) as image:
            image.load()
            if image.mode.startswith("I") or image.mode == "F":
                raise ImageError(f"a picture of more than 8 bits: {ELSEWHERE}")
            seen = turned(image)
            if seen.has_transparency_data:  # laid on black
                black = Image.new("RGBA", seen.size, (0, 0, 0, 255))
                seen = Image.alpha_composite(black, seen.convert("RGBA"))
            rgb = seen.convert("RGB")
    except UNREADABLE as error:
        raise ImageError(f"no picture that can be read ({error})") from None
    width, height = rgb.size
    # Resize and crop in one: the middle 224/256 of both sides.
    box = (width / 16, height / 16, width * 15 / 16, height * 15 / 16)
    small = rgb.resize((224, 224), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def turned(image: Image.Image) -> Image.Image:
    """Upright by its EXIF; as it is stored where that cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:
        return image


def check_fetched(file: Path) -> None:
    """Raise OSError where a clone holds a git-lfs pointer in the place of a large file."""
    with file.open("rb") as stream:
        if stream.read(132).startswith(LFS_POINTER):
            raise OSError(f"{file}: a git-lfs pointer; git lfs pull fetches the file itself")


def load_program(name: str) -> torch.nn.Module:
    """A program of this folder as a module to call."""
    check_fetched(FOLDER / name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.export.load(FOLDER / name).module()


class Captioner:
    """The two programs and the tokenizer of this folder."""

    def __init__(self) -> None:
        self.encode = load_program("encode.pt2")
        self.decode_step = load_program("decode_step.pt2")
        self.config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
        check_fetched(FOLDER / "tokenizer.json")
        self.tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))

    @torch.no_grad()
    def generate(self, images: Tensor, max_len: int = MAX_LEN) -> Tensor:
        """Greedy captions of images uint8 [B, 3, 224, 224]: int64 ids that begin with [CLS]."""
        start, end, pad = (self.config[f"{name}_token_id"] for name in ("bos", "eos", "pad"))
        # Keys and values of the images: [2, layers, B, heads, 49, width].
        memory = self.encode(images)
        cache = memory.new_zeros(*memory.shape[:4], max_len, memory.shape[5])
        ids = torch.full((len(images),), start)
        ended = torch.zeros(len(images), dtype=torch.bool)
        written = [ids]
        for position in range(max_len):
            logits, cache = self.decode_step(ids, torch.tensor([position]), memory, cache)
            following = logits.argmax(dim=-1)
            ended |= following == end
            if ended.all():
                break
            ids = following.masked_fill(ended, pad)
            written.append(ids)
        return torch.stack(written, dim=1)

    def captions(self, images: Tensor) -> list[str]:
        """The texts of `generate`."""
        return self.tokenizer.decode_batch(self.generate(images).tolist())


def printable(text: str) -> str:
    """A name or a caption for the terminal: characters that would steer it as escapes."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def main() -> None:
    """Print a caption for every file named."""
    if len(sys.argv) < 2:
        sys.exit("usage: python generate.py IMAGE...")
    try:
        captioner, status, said = Captioner(), 0, False
    except OSError as error:  # a file of this folder is not there, or not fetched
        sys.exit(str(error))
    for file in sys.argv[1:]:
        try:
            image = load_image(file)
        except (ImageError, OSError) as error:  # OSError: not there, or not to be read
            why = getattr(error, "strerror", None) or str(error)
            print(f"{printable(file)}: {printable(why)}", file=sys.stderr)
            status = 1
            continue
        [caption] = captioner.captions(image[None])
        if not said:
            print(f"# {captioner.config['note']}", file=sys.stderr)
            said = True
        print(f"{printable(file)}: {printable(caption)}")
    sys.exit(status)


if __name__ == "__main__":
    main()
