"""Captions and pictures made by seed, and the requests that carry them."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw
from serve_plan import Request, stamp

_WORDS = {
    "colours": "black white grey brown red orange yellow green blue purple pink silver golden beige turquoise striped",
    "qualities": (
        "small large old new wooden metal plastic wet dry bright dark empty crowded broken modern vintage tall "
        "narrow round rusty shiny colorful blurry handmade traditional antique abandoned famous quiet busy sunny "
        "snowy misty frozen tiny"
    ),
    "things": (
        "dog cat horse bird cow sheep elephant giraffe bear fox owl duck swan turtle fish butterfly spider man "
        "woman child boy girl couple crowd dancer chef doctor farmer player musician soldier tourist car bus train "
        "bicycle motorcycle truck boat ship airplane helicopter tractor bridge house tower castle church temple "
        "barn lighthouse skyscraper street road path fence garden park forest mountain river lake beach desert "
        "waterfall island field valley sky sunset table chair sofa bed lamp window door mirror shelf carpet "
        "kitchen bathroom office bottle cup plate bowl spoon knife pizza cake bread apple banana orange salad soup "
        "sandwich coffee tea phone laptop keyboard camera clock umbrella backpack suitcase hat dress shirt shoe "
        "guitar piano violin ball racket skateboard surfboard kite balloon flower tree leaf mushroom pumpkin "
        "candle statue painting poster logo map necklace ring"
    ),
    "actions": (
        "standing sitting running walking sleeping flying swimming jumping playing eating drinking reading cooking "
        "dancing singing climbing riding driving holding carrying watching waiting smiling working floating "
        "resting"
    ),
    "places": "on in near under behind above beside with against over across between along around inside outside",
}
WORDS = {kind: words.split() for kind, words in _WORDS.items()}
STARTS = ("a photo of a", "a picture of the", "two", "the", "a", "close up of a", "an image of", "view of the", "some")


def captions(seed: int) -> Iterator[str]:
    """Yield captions without end, all different, of 3 to 25 words and ten on average."""
    chosen, seen = random.Random(seed), set()
    pick = chosen.choice
    while True:
        words = pick(STARTS).split()
        length = max(3, min(25, round(chosen.gammavariate(3.5, 2.9))))
        while len(words) < length:
            if chosen.random() < 0.5:
                words.append(pick(WORDS["qualities" if chosen.random() < 0.5 else "colours"]))
            words += [pick(WORDS[kind]) for kind in ("things", "actions", "places")]
            words.append(pick(("a", "the", "its", "some")))
        caption = " ".join(words[:length])
        if caption not in seen:
            seen.add(caption)
            yield caption


def pictures(count: int, seed: int) -> list[bytes]:
    """Return JPEG files of photographs' size and detail: noise whose amplitude falls with frequency, and shapes."""
    generator = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        width, height = (int(side) for side in generator.integers(320, 641, 2))
        canvas = np.full((height, width, 3), 128.0)
        for octave in range(9):
            grid = generator.standard_normal((2 + 2**octave, 2 + 2**octave, 3)).astype(np.float32)
            planes = [Image.fromarray(grid[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
            grey = 0.7 * np.asarray(planes[0])[..., None]  # most detail is of brightness
            canvas += 55 * 0.76**octave * (grey + 0.3 * np.stack([np.asarray(p) for p in planes], -1))
        image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(int(generator.integers(3, 9))):
            x, y = generator.integers(0, width), generator.integers(0, height)
            w, h = generator.integers(10, 200, 2)
            colour = tuple(int(v) for v in generator.integers(0, 256, 3))
            shape = draw.ellipse if generator.random() < 0.5 else draw.rectangle
            shape((int(x), int(y), int(x + w), int(y + h)), fill=colour)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(generator.integers(84, 93)))
        files.append(file.getvalue())
    return files


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    """Return the bytes of a POST, or of its beginning when it is longer than the body given."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


def text_requests(texts: list[str], path: str = "/embed", width: int = 1) -> list[Request]:
    """Return requests of `width` texts each, in our own schema for /embed and in OpenAI's for any other path."""
    key = "inputs" if path == "/embed" else "input"
    parts = [texts[i : i + width] for i in range(0, len(texts) - width + 1, width)]
    return [Request(post(path, json.dumps({key: part}).encode())) for part in parts]


def image_requests(files: list[bytes], path: str = "/embed") -> list[Request]:
    """Return requests of one picture each, a data URI; in our own schema for /embed, in OpenAI's for any other path."""
    body = {"inputs": [{"image": "@"}]} if path == "/embed" else {"input": ["@"], "modality": "image"}
    before, after = json.dumps(body).encode().split(b"@")
    before += b"data:image/jpeg;base64,"
    requests = []
    for file in files:
        end = base64.b64encode(file[2:]) + after  # the stamp takes the place of the first two bytes
        requests.append(Request(post(path, before, len(before) + len(stamp(0)) + len(end)), end))
    return requests
