"""A folder of small images of two classes that anything can learn to tell apart."""

from pathlib import Path

from PIL import Image


def write_shades(folder: Path, each: int) -> None:
    """`each` grey images of 8x8 in `folder`/dark and in `folder`/light, of which no two are alike for up to 64."""
    for name, shade in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            image = Image.new("L", (8, 8), shade)
            image.putpixel((number % 8, number // 8), 255 - shade)
            image.save(folder / name / f"{number:02d}.png")
