"""Sends damaged and malicious uploads to the demo, and checks that it stays up.

  python tests/faults/uploads.py --workdir runs/quickstart --count 500

Starts `ctx-encoder demo` on a free port and posts uploads that are damaged in many
ways, 16 at a time. Every response must be a picture, or one line of JSON with an error
status, within --patience seconds. Afterwards the server must complete an undamaged
picture as before. Prints a table of kinds of uploads and statuses.
"""

import argparse
import collections
import concurrent.futures
import functools
import io
import json
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
MEGABYTES, PIXELS = 2, 1_000_000
BOUNDARY = "0123456789"
STATUS = (200, 400, 403, 404, 405, 408, 413, 422, 503)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", required=True, help="folder of a run")
  parser.add_argument("--count", type=int, default=500)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--patience", type=float, default=120)
  args = parser.parse_args()
  command = [sys.executable, "-m", "ctx_encoder.apps.cli", "demo", "--no-browser"]
  command += ["--port=0", f"--workdir={args.workdir}"]
  command += [f"--max-megabytes={MEGABYTES}", f"--max-pixels={PIXELS}"]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
  assert process.stdout is not None
  found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
  assert found, "The server did not start."
  try:
    failed = attack(int(found[1]), args, process)
  finally:
    process.send_signal(signal.SIGINT)
    code = process.wait(60)
  print(f"The server ended with {code}.")
  sys.exit(bool(failed or code))


def attack(port: int, args: argparse.Namespace, process: subprocess.Popen) -> bool:
  """Returns whether a response was wrong."""
  send = functools.partial(answer, port, args.patience)
  valid = request(random.Random(0), *files(random.Random(0)))
  before = send(valid)
  assert before.startswith(b"HTTP/1.1 200 "), before[:500]
  table: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
  wrong = []

  def one(number):
    draw = random.Random(f"{args.seed} {number}")
    kind = list(KINDS)[number % len(KINDS)]
    began = time.monotonic()
    response = send(KINDS[kind](draw), gone=kind == GONE)
    return kind, check(response, kind), time.monotonic() - began

  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    results = list(pool.map(one, range(args.count)))
  for number, (kind, verdict, _) in enumerate(results):
    table[kind][verdict] += 1
    if not isinstance(verdict, int) and verdict != NO_ANSWER:
      wrong.append(f"{number}, {kind}: {verdict}")
  print_table(table)
  print(f"Longest response time: {max(seconds for *_, seconds in results):.1f} s")
  after = send(valid)
  same = before.partition(b"\r\n\r\n")[2] == after.partition(b"\r\n\r\n")[2]
  up = process.poll() is None
  print(f"Up: {up}. An undamaged picture is completed as before: {same}.")
  print("\n".join(wrong) or "Every response was a picture or a clear error.")
  return bool(wrong) or not (same and up)


GONE, NO_ANSWER = "client gone", "none"


def check(response: bytes, kind: str) -> int | str:
  """Returns a response's status, or what is wrong with it."""
  head, _, body = response.partition(b"\r\n\r\n")
  if not response and kind == GONE:
    return NO_ANSWER  # the client has gone
  match = re.match(rb"HTTP/1\.1 (\d+) ", head)
  if not match:
    return f"no answer: {response[:80]!r}"
  status = int(match[1])
  if length := re.search(rb"content-length: (\d+)", head):
    body = body[: int(length[1])]  # the rest answers a second request
  if status not in STATUS:
    return f"status {status}: {body[:80]!r}"
  try:
    if status == 200:
      with Image.open(io.BytesIO(body)) as image:
        image.load()
      return status
    if b"text/plain" in head:  # not HTTP: the response of uvicorn
      return status if body == b"Invalid HTTP request received." else repr(body[:80])
    (line,) = json.loads(body).values()
    return status if line and "\n" not in line else f"status {status}: {line!r}"
  except (ValueError, OSError) as error:
    return f"status {status}: {error}"


def answer(port: int, patience: float, data: bytes, gone: bool = False) -> bytes:
  """Sends bytes and, unless gone, waits; returns the complete response."""
  with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
    received = []
    try:
      connection.sendall(data)
      if gone:
        connection.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
      pass  # the server has stopped reading
    try:
      while part := connection.recv(2**16):
        received.append(part)
    except TimeoutError:
      return b"timeout"
    except ConnectionResetError:
      pass
    return b"".join(received)


def print_table(table: dict[str, collections.Counter]) -> None:
  columns = sorted({status for row in table.values() for status in row}, key=str)
  total = sum(table.values(), collections.Counter())
  print("| upload | " + " | ".join(map(str, columns)) + " |")
  print("|---" * (len(columns) + 1) + "|")
  for kind, row in [*table.items(), ("all", total)]:
    print(f"| {kind} | " + " | ".join(str(row[c] or "") for c in columns) + " |")


# Requests


def request(draw: random.Random, image: bytes, mask: bytes, **fields: object) -> bytes:
  return post(parts({"image": image, "mask": mask}, fields))


def parts(files: dict[str, bytes], fields: dict[str, object]) -> bytes:
  """Returns a multipart body."""
  lines = []
  for name, data in files.items():
    disposition = f'form-data; name="{name}"; filename="{name}.png"'
    lines += [f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()]
    lines += [data, b"\r\n"]
  for name, value in fields.items():
    disposition = f'form-data; name="{name}"'
    lines += [f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()]
    lines += [str(value).encode(), b"\r\n"]
  return b"".join([*lines, f"--{BOUNDARY}--\r\n".encode()])


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
  """Returns a request; `length` may contradict the body's length."""
  lines = [
    "POST /api/inpaint HTTP/1.1",
    "Host: 127.0.0.1",
    "Connection: close",
    f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
    f"Content-Length: {len(body) if length is None else length}",
    *headers,
  ]
  return "\r\n".join([*lines, "", ""]).encode() + body


def files(draw: random.Random, format: str = "PNG") -> tuple[bytes, bytes]:
  """Returns a picture and a mask of its size."""
  width, height = draw.randint(20, 300), draw.randint(20, 300)
  noise = np.random.default_rng(draw.getrandbits(32))
  small = noise.integers(0, 256, (4, 4, 3), np.uint8)
  mask = np.zeros((height, width), np.uint8)
  top, left = draw.randrange(height // 2), draw.randrange(width // 2)
  mask[top : top + height // 3, left : left + width // 3] = 255
  return (
    encoded(Image.fromarray(small).resize((width, height)), format),
    encoded(Image.fromarray(mask), "PNG"),
  )


def encoded(image: Image.Image, format: str) -> bytes:
  file = io.BytesIO()
  image.save(file, format)
  return file.getvalue()


# Faults


def mutated(draw: random.Random, data: bytes) -> bytes:
  """Returns bytes with random changes, deletions, repetitions and truncation."""
  changed = bytearray(data)
  for _ in range(draw.choice((1, 1, 2, 5, 20, 100))):
    at = draw.randrange(len(changed))
    what = draw.randrange(4)
    if what == 0:
      changed[at] = draw.randrange(256)
    elif what == 1:
      changed[at] ^= 1 << draw.randrange(8)
    elif what == 2:
      del changed[at : at + draw.randint(1, 8)]
      changed = changed or bytearray(b"x")
    else:
      changed[at:at] = changed[at : at + draw.randint(1, 64)]
  return bytes(changed[: draw.randrange(len(changed)) + 1] if draw.random() < 0.2
               else changed)  # fmt: skip


def damaged(draw: random.Random, format: str) -> bytes:
  image, mask = files(draw, format)
  if draw.random() < 0.3:
    mask = mutated(draw, mask)
  return request(draw, mutated(draw, image), mask)


def reheaded(draw: random.Random) -> bytes:
  """A PNG with a changed header and a correct checksum."""
  image, mask = files(draw)
  header = bytearray(image[16:29])
  header[draw.randrange(len(header))] = draw.randrange(256)
  sealed = struct.pack(">I", zlib.crc32(b"IHDR" + header))
  return request(draw, image[:16] + bytes(header) + sealed + image[33:], mask)


def bomb(draw: random.Random) -> bytes:
  """A small file with many pixels or a long text."""
  image, mask = files(draw)
  kind = draw.randrange(4)
  if kind == 0:
    side = draw.choice((1001, 4000))
    image = encoded(Image.new("L", (side, side)), "PNG")
  elif kind == 1:
    header = struct.pack(">II", *(draw.choice((60_000, 2**31 - 1)) for _ in "xy"))
    image = image[:16] + header + image[24:]
  elif kind == 2:
    text = b"zTXtComment\0\0" + zlib.compress(bytes(50_000_000), 9)
    chunk = (
      struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    )
    image = image[:33] + chunk + image[33:]
  else:
    mask = encoded(Image.new("1", (3000, 3000), 1), "PNG")
  return request(draw, image, mask)


def missized(draw: random.Random) -> bytes:
  """A mask of another size, or a picture with a very short or long side."""
  if draw.random() < 0.5:
    return request(draw, files(draw)[0], files(draw)[1])
  size = draw.choice([(1, 1), (8, 8), (9, 3000), (3000, 8), (7, 100), (60_000, 16)])
  hole = Image.new("L", size)
  hole.paste(255, (0, 0, size[0] // 2 + 1, size[1] // 2 + 1))
  return request(draw, encoded(Image.new("RGB", size), "PNG"), encoded(hole, "PNG"))


def many_holes(draw: random.Random) -> bytes:
  """A mask of noise, with any strategy and blend."""
  image, _ = files(draw)
  with Image.open(io.BytesIO(image)) as opened:
    width, height = opened.size
  noise = np.random.default_rng(draw.getrandbits(32)).random((height, width))
  mask = encoded(Image.fromarray(noise < draw.choice((0.001, 0.1, 0.9, 1))), "PNG")
  strategy = draw.choice(("auto", "whole", "crops", "tiles"))
  blend = draw.choice(("none", "feather", "poisson"))
  return request(draw, image, mask, strategy=strategy, blend=blend)


def other_kinds(draw: random.Random) -> bytes:
  """Pictures of many modes and formats."""
  pairs = [("1", "PNG"), ("L", "TIFF"), ("LA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"),
           ("I;16", "PNG"), ("F", "TIFF"), ("RGBA", "WEBP"), ("RGB", "BMP"),
           ("RGB", "PPM"), ("RGB", "ICO"), ("YCbCr", "JPEG")]  # fmt: skip
  mode, format = draw.choice(pairs)
  _, mask = files(draw)
  with Image.open(io.BytesIO(mask)) as opened:
    size = opened.size
  return request(draw, encoded(Image.new(mode, size), format), mask)


def wrong_fields(draw: random.Random) -> bytes:
  image, mask = files(draw)
  values = [
    "",
    "x",
    "-1",
    "1e9",
    "2147483648",
    "NaN",
    "\0",
    "ä" * 1000,
    "x" * 2_000_000,
  ]
  fields = {draw.choice(("strategy", "blend", "seed")): draw.choice(values)}
  kind = draw.randrange(4)
  if kind == 0:
    return request(draw, image, mask, **fields)
  if kind == 1:
    return post(parts({draw.choice(("image", "mask", "picture", "")): image}, fields))
  if kind == 2:
    return post(parts({}, {"image": "text", "mask": "text"} | fields))
  return post(parts({f"file{n}": b"" for n in range(1500)} | {"image": image}, fields))


def truncated(draw: random.Random) -> bytes:
  """A truncated or changed body."""
  body = parts(dict(zip(("image", "mask"), files(draw), strict=True)), {"seed": 1})
  cut = body[: draw.randrange(len(body))]
  return post(cut) if draw.random() < 0.5 else post(mutated(draw, body))


def client_gone(draw: random.Random) -> bytes:
  """A body shorter than announced, or an invalid request."""
  body = parts(dict(zip(("image", "mask"), files(draw), strict=True)), {})
  if draw.random() < 0.5:
    return post(body[: draw.randrange(len(body))], length=len(body))
  return mutated(draw, post(body)[:300])


def too_large(draw: random.Random) -> bytes:
  data = bytes(draw.choice((2_000_001, 5_000_000)))
  if draw.random() < 0.5:
    return post(parts({"image": data, "mask": data}, {}))
  body = parts({"image": data}, {})
  pieces = b"".join(
    b"%x\r\n%s\r\n" % (len(part), part)
    for part in (body[at : at + 50_000] for at in range(0, len(body), 50_000))
  )
  whole = post(pieces + b"0\r\n\r\n", "Transfer-Encoding: chunked")
  return re.sub(rb"Content-Length: \d+\r\n", b"", whole, count=1)


KINDS = {
  "damaged JPEG": functools.partial(damaged, format="JPEG"),
  "damaged PNG": functools.partial(damaged, format="PNG"),
  "damaged WebP": functools.partial(damaged, format="WEBP"),
  "damaged GIF": functools.partial(damaged, format="GIF"),
  "damaged TIFF": functools.partial(damaged, format="TIFF"),
  "PNG with another header": reheaded,
  "bomb": bomb,
  "other size": missized,
  "many holes": many_holes,
  "other kind of picture": other_kinds,
  "wrong fields": wrong_fields,
  "damaged form": truncated,
  GONE: client_gone,
  "too large": too_large,
}


if __name__ == "__main__":
  main()
