"""Damage done to sound files and flags, the same for the same generator of chance."""

import json
import random
import re

NUMBERS = (
    *("-1", "0", "1", "3", "0.5", "-0.0", "1e-320", "1e308", "1e999", "nan", "inf", "-inf", "1_000", "0x10", "+3"),
    *("9" * 400, "99999999999999999999", str(2**31), str(2**63), str(2**64), "-9223372036854775809"),
)
WORDS = (
    *("", " ", "x", "true", "None", "../../x", "/dev/zero", "/proc/self/mem", "~no-such-user/x", "a" * 300, "a" * 5000),
    *("\u202ex", "\x1b[2J", "\x00", "\ud800", "\uff11", "%s%n", "1,2,3", "a\nb", "'; x", "[bold]x[/bold]", "-x", "--"),
)
LITERALS = (
    *("true", "false", "null", '""', "[]", "{}", "[[[]]]", '"x"', '"\\u0000"', '"\\u001b[2J"', '"../../x"'),
    *('"' + "a" * 5000 + '"', "[" * 3000, '{"a":' * 2000, '"/dev/zero"', '"~no-such-user/x"', "1979-05-27", '"1,2"'),
)
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|-?\d[\w.+-]*|\btrue\b|\bfalse\b|\bnull\b')
_KEY = re.compile(r'[A-Za-z_][\w-]*(?=\s*=)|"[A-Za-z_][\w-]*"(?=\s*:)')


def damaged_text(text: str, chance: random.Random) -> bytes:
    """A TOML or JSON text with one to three mistakes in it."""
    data = text
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice((_value, _value, _value, _value, _key, _line, _cut, _junk))(data, chance)
    return data.encode("utf-8", "surrogatepass")


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """A binary file that is cut, overwritten, grown, or whose first bytes lie about its size."""
    kind = chance.choice(("cut", "flip", "overwrite", "grow", "header", "zero", "empty"))
    place = chance.randrange(max(1, len(data)))
    junk = chance.randbytes(chance.randint(1, 64))
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
    if kind == "overwrite":
        return data[:place] + junk + data[place + len(junk) :]
    if kind == "grow":
        return data + junk * chance.choice((1, 1000))
    if kind == "header":
        return chance.choice((0, 1, 2**20, 2**40, 2**63, 2**64 - 1)).to_bytes(8, "little") + data[8:]
    return bytes(len(data)) if kind == "zero" else b""


def damaged_tensors(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose bytes are damaged, or its header, of which the length is then right again."""
    length = int.from_bytes(data[:8], "little")
    if chance.random() < 0.4 or not 0 < length <= len(data) - 8:
        return damaged_bytes(data, chance)
    header = json.loads(data[8 : 8 + length])
    inner = header.get("__metadata__", {}).get("feddac")
    if inner is not None and chance.random() < 0.7:
        header["__metadata__"]["feddac"] = damaged_text(inner, chance).decode("utf-8", "replace")
        text = json.dumps(header).encode()
    else:
        text = damaged_text(json.dumps(header), chance)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def damaged_flag(value: object, choices: tuple[str, ...], chance: random.Random) -> str:
    """A value for a flag whose default is `value`: mostly none that it could have."""
    if choices and chance.random() < 0.3:
        return chance.choice(choices)
    if isinstance(value, int | float) and chance.random() < 0.7:
        return chance.choice(NUMBERS)
    return chance.choice(WORDS).replace("\x00", "").replace("\ud800", "")  # which no command line can carry


def _value(text: str, chance: random.Random) -> str:
    found = list(_TOKEN.finditer(text))
    if not found:
        return text + chance.choice(LITERALS)
    token = chance.choice(found)
    new = chance.choice((*LITERALS, *NUMBERS, *(f'"{word}"' for word in WORDS)))
    return text[: token.start()] + new + text[token.end() :]


def _key(text: str, chance: random.Random) -> str:
    found = list(_KEY.finditer(text))
    if not found:
        return text
    token = chance.choice(found)
    return text[: token.start()] + chance.choice(("x", '""', '"format"', "a.b", "rounds", "name")) + text[token.end() :]


def _line(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    number = chance.randrange(len(lines))
    kind = chance.choice(("drop", "double", "swap", "many"))
    if kind == "drop":
        del lines[number]
    elif kind == "double":
        lines.insert(number, lines[number])
    elif kind == "many":
        lines[number] = lines[number] * 500
    else:
        other = chance.randrange(len(lines))
        lines[number], lines[other] = lines[other], lines[number]
    return "".join(lines)


def _cut(text: str, chance: random.Random) -> str:
    return text[: chance.randint(0, len(text))]


def _junk(text: str, chance: random.Random) -> str:
    place = chance.randint(0, len(text))
    return (
        text[:place] + chance.choice(("\x00", "\ufeff", "]", "}", '"', "=", "\x1b[31m", "\ud800", ",,")) + text[place:]
    )
