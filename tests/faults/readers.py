"""Feeds mutated files to every reader: images, TFRecords, weights.

  python tests/faults/readers.py
  python tests/faults/readers.py --only jpeg webp
  python tests/faults/readers.py --only slow

Mutations flip bits, set bytes to extremes, and cut out, repeat, zero or move pieces, or
take them from another file. A reader may return a result or refuse the file in its own
way: BadImage, ValueError, or a skipped entry. Failures are any other exception, a
process that ends, a case of more than 30 seconds, and any sign of unpickling; each kind
is read in a process of its own. Bombs are small files whose headers state up to
65535x65535 pixels. Slow files are made to take long to decode; each may take 5 s of
CPU time. The longest time is stated, CPU time too.
"""

import contextlib
import functools
import pathlib
import queue
import random
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import table

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "models"), str(TESTS.parent)]

import pictures  # noqa: E402
from PIL import Image  # noqa: E402

from ctx_encoder.data import tfrecord  # noqa: E402
from ctx_encoder.data.decode import BadImage, decode  # noqa: E402

MAX_PIXELS = 1_000_000
PATIENCE = 30  # seconds per case; ten times as many for the first of a process
FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect")

Cases = Callable[[random.Random], bytes]
Read = Callable[[bytes], object]


def main() -> None:
  parser = table.parser(__doc__)
  parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
  parser.add_argument("--child", nargs=2, type=int, help="first case, and last one + 1")
  args = parser.parse_args()
  if args.child:
    return child(args.only[0], range(*args.child), args.seed)
  count = 100 if args.quick else 1000
  rows = []
  for kind in args.only:
    rows.append(fuzz(kind, count, args.seed))
    print(rows[-1], flush=True)
  return table.finish(rows, args.output)


def fuzz(kind: str, count: int, seed: int) -> table.Row:
  """Reads all cases in a child process, and starts another one if it ends."""
  outcomes, wrong, at, peak, longest = Counter(), [], 0, 0, 0.0
  while at < count:
    lines: queue.Queue[str | None] = queue.Queue()
    command = [sys.executable, __file__, "--only", kind, "--seed", str(seed)]
    process = subprocess.Popen(
      [*command, "--child", str(at), str(count)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for stream, take in ((process.stdout, lines.put), (process.stderr, None)):
      threading.Thread(target=drain, args=(stream, take), daemon=True).start()
    patience = 10 * PATIENCE
    while True:
      try:
        line = lines.get(timeout=patience)
      except queue.Empty:
        process.kill()
        wrong.append(f"case {at} hangs")
        break
      if line is None:
        break
      number, outcome, grown, seconds = line.split("\t")
      at, patience, peak = int(number) + 1, PATIENCE, max(peak, int(grown))
      longest = max(longest, float(seconds))
      outcomes[outcome] += 1
      if outcome not in ("read", "refused"):
        wrong.append(f"case {number}: {outcome}")
    process.wait()
    if at < count:
      wrong.append(f"case {at} ended its process: {process.returncode}")
      at += 1
  print("\n".join(wrong[:20]), flush=True)
  return table.Row(
    KINDS[kind][0],
    count,
    f"{outcomes['read']} read, {outcomes['refused']} refused, {len(wrong)} otherwise;"
    f" memory grew by {peak / 2**20:.0f} MiB and one took {longest:.1f} s at the most"
    + "".join(f"; {problem}" for problem in wrong[:3]),
    not wrong,
  )


def drain(stream, take: Callable[[str | None], None] | None) -> None:
  for line in stream:
    if take:
      take(line.rstrip("\n"))
  if take:
    take(None)


def child(kind: str, numbers: range, seed: int) -> None:
  """Reads mutated files; prints number, outcome, memory growth and time of each."""
  warnings.simplefilter("ignore")
  forbidden: list[str] = []
  _, make, read = KINDS[kind]
  cases = make()
  with contextlib.suppress(Exception):
    read(cases(random.Random(seed)))  # imports everything before memory is measured
  sys.addaudithook(lambda event, _: event in FORBIDDEN and forbidden.append(event))
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for number in numbers:
    data = cases(random.Random(f"{seed} {kind} {number}"))
    began = time.thread_time()
    try:
      outcome = "refused" if read(data) is None else "read"
    except ValueError:  # BadImage is one
      outcome = "refused"
    except Exception as error:
      outcome = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if forbidden:
      outcome = f"forbidden event {forbidden.pop()}"
    seconds = time.thread_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(number, outcome, 1024 * grown, seconds, sep="\t", flush=True)


def mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
  """Applies one to four mutations, more often near the start of the file."""
  found = bytearray(data)
  for _ in range(draw.randint(1, 4)):
    size = len(found)
    if not size:
      break
    at = draw.randrange(min(size, 64) if draw.random() < 0.4 else size)
    piece = slice(at, at + draw.randint(1, max(1, size // 4)))
    match draw.randrange(8):
      case 0:
        found[at] ^= 1 << draw.randrange(8)
      case 1:
        found[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
      case 2:
        found[at : at + 4] = draw.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4)))
      case 3:
        del found[at:]
      case 4:
        del found[piece]
      case 5:
        found[at:at] = found[piece]
      case 6:
        found[piece] = bytes(len(found[piece]))
      case 7:
        found[piece] = other[piece]
  return bytes(found)


# Pictures


def read_picture(data: bytes) -> object:
  square = decode(data, 32, MAX_PIXELS)
  assert square.shape == (32, 32, 3), square.shape
  return square


def encoded(kind: str, **options) -> Cases:
  whole = [
    pictures.encode(pictures.noise(48, 64, seed=seed), kind, **options)
    for seed in (0, 1)
  ]
  return lambda draw: mutated(*draw.sample(whole, 2), draw)


def bombs() -> Cases:
  """Headers that state more pixels than allowed, before little or no data."""

  def put(data: bytes, at: int, form: str, *numbers: int) -> bytes:
    packed = struct.pack(form, *numbers)
    return data[:at] + packed + data[at + len(packed) :]

  noise = pictures.noise(48, 64)
  jpeg, bmp, gif = (pictures.encode(noise, kind) for kind in ("JPEG", "BMP", "GIF"))
  exif = Image.Exif()
  exif[0x0112] = 1
  webp = pictures.encode(noise, "WEBP", exif=exif)  # with an extended header
  assert webp[12:16] == b"VP8X"
  sof = jpeg.index(b"\xff\xc0") + 5

  def case(draw: random.Random) -> bytes:
    width, height = draw.randint(1001, 65535), draw.randint(1001, 65535)
    match draw.randrange(6):
      case 0:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
        rows = pictures.png(64, 1, 8, 2, [bytes(192)])
        return rows[:16] + header + crc + rows[33:]
      case 1:
        return put(jpeg, sof, ">HH", height, width)
      case 2:
        return put(bmp, 18, "<ii", width, height)
      case 3:
        return put(gif, 6, "<HH", width, height)
      case 4:
        low = [n.to_bytes(3, "little") for n in (width - 1, height - 1)]
        return webp[:24] + b"".join(low) + webp[30:]
      case _:  # a TIFF whose only strip is missing
        tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1)]
        tags += [(273, 8), (277, 1), (278, height), (279, width * height % 2**32)]
        body = b"".join(struct.pack("<HHII", tag, 4, 1, x) for tag, x in tags)
        return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)

  return case


def refuse_bomb(data: bytes) -> None:
  try:
    decode(data, 32, MAX_PIXELS)
  except BadImage as error:
    # libwebp itself refuses a canvas that its frames do not fill.
    if "max_pixels" in str(error) or data[:4] == b"RIFF":
      return
    raise RuntimeError(f"{data[:4]!r} was refused with: {error}") from error
  raise RuntimeError("it was decoded")


def slow_files() -> Cases:
  """Files that take long: scans, restarts, markers, chunks, frames, large metadata."""
  flat = Image.new("RGB", (4096, 4096), (90, 120, 60))
  rough = Image.fromarray(pictures.noise(512, 512)).resize((1024, 1024))
  jpeg = functools.partial(pictures.encode, kind="JPEG")
  progressive = [jpeg(image, progressive=True) for image in (flat, rough)]
  restarts = [jpeg(image, restart_marker_blocks=1) for image in (flat, rough)]
  plain, png, gif = (pictures.encode(rough, kind) for kind in ("JPEG", "PNG", "GIF"))

  def frames(kind: str, count: int, **options) -> bytes:
    small = [Image.fromarray(pictures.noise(16, 16, seed=i)) for i in range(8)]
    more = small * (count // 8)
    return pictures.encode(small[0], kind, save_all=True, append_images=more, **options)

  animations = [frames(kind, 800) for kind in ("GIF", "WEBP", "PNG", "TIFF")]

  def case(draw: random.Random) -> bytes:
    many = int(10 ** draw.uniform(1, 5))
    match draw.randrange(9):
      case 0:  # the last scan, again and again
        whole = draw.choice(progressive)
        scan = whole[whole.rindex(b"\xff\xda") : -2]
        return whole[:-2] + min(many, 3 * 10**7 // len(scan)) * scan + whole[-2:]
      case 1:
        whole = draw.choice(restarts)
        at = draw.randrange(len(whole))
        return whole[:at] + many * b"\xff\xd0" + whole[at:]
      case 2:  # segments: comments, EXIF, ICC, short or long
        length = draw.choice((2, 2, 20, 65535))
        segment = b"\xff" + draw.choice((b"\xfe", b"\xe1", b"\xe2"))
        segment += length.to_bytes(2, "big") + b"Exif\0\0ICC_PROFILE\0"[: length - 2]
        segment = segment.ljust(length + 2, b"\1")
        count = min(10 * many, 10**8 // len(segment))
        return plain[:2] + count * segment + plain[2:]
      case 3:  # chunks, those of a text or profile that inflates to a lot among them
        inflated = zlib.compress(bytes(10**8), 9)
        name, body = draw.choice(
          [
            (b"teSt", b""),
            (b"tEXt", b"a\0b"),
            (b"zTXt", b"a\0\0" + inflated),
            (b"iCCP", b"a\0\0" + inflated),
          ]
        )
        crc = struct.pack(">I", zlib.crc32(name + body))
        chunk = struct.pack(">I", len(body)) + name + body + crc
        return png[:33] + min(10 * many, 10**8 // len(chunk)) * chunk + png[33:]
      case 4:  # noise in an interlaced PNG, as if its rows were passes
        return (
          png[:28]
          + b"\1"
          + struct.pack(">I", zlib.crc32(png[12:28] + b"\1"))
          + png[33:]
        )
      case 5:
        at = gif.index(b"\x2c" + bytes(4))
        comments = b"\x21\xfe" + 10 * many * (b"\xff" + 255 * b"x")
        return gif[:at] + comments[: 10**8] + b"\0" + gif[at:]
      case 6:  # runs of one pixel in a compressed bitmap
        return run_lengths(4096, 4096, draw.choice((b"\1\7", b"\0\2\1\0")))
      case 7:
        return draw.choice(animations)
      case _:
        return mutated(draw.choice(progressive + restarts), plain, draw)

  return case


def run_lengths(width: int, height: int, code: bytes) -> bytes:
  """Returns a bitmap of 8 bits, compressed to this code again and again."""
  body = bytes(1024) + width * height // 2 * code + b"\0\1"
  head = struct.pack(
    "<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0
  )
  return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54 + 1024) + head + body


def read_in_time(data: bytes) -> object:
  began = time.thread_time()
  try:
    return decode(data, 32)
  finally:
    seconds = time.thread_time() - began
    if seconds > 5:
      raise RuntimeError(f"took {seconds:.1f} s of CPU time: {data[:12]!r}")


# TFRecords


@functools.cache
def scratch() -> pathlib.Path:
  folder = tempfile.TemporaryDirectory()
  scratch.keep = folder  # removed when the process ends
  return pathlib.Path(folder.name)


def read_records(data: bytes) -> int | None:
  """Reads all images of a TFRecord file; returns their number, or None for 0."""
  path = scratch() / "x.tfrec"
  path.write_bytes(data)
  names, read, _ = tfrecord.list_tfrecords(path)
  good = 0
  for position in range(len(names)):
    with contextlib.suppress(BadImage):
      decode(read(position), 32, MAX_PIXELS)
      good += 1
  return good or None


def examples() -> Iterator[bytes]:
  import tensorflow as tf

  def feature(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

  for number in range(4):
    picture = pictures.encode(pictures.noise(24, 24, seed=number), "JPEG")
    features = {"image": feature(picture), "image_name": feature(b"%d" % number)}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    yield example.SerializeToString()


def written(records: list[bytes]) -> bytes:
  import tensorflow as tf

  path = scratch() / "written.tfrec"
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)
  return path.read_bytes()


def damaged_records() -> Cases:
  whole = list(examples())
  files = [written(whole), written(whole[::-1])]
  return lambda draw: mutated(*draw.sample(files, 2), draw)


def damaged_examples() -> Cases:
  """Mutated records with correct checksums."""
  whole = list(examples())
  return lambda draw: written([mutated(*draw.sample(whole, 2), draw) for _ in whole])


# Weights


def weights(name: str) -> Cases:
  import test_weights  # needs PyTorch, h5py and safetensors

  test_weights.WRITERS[name](scratch() / name)
  whole = (scratch() / name).read_bytes()
  payload = b"cposix\nsystem\n(S'touch hacked'\ntR."

  def case(draw: random.Random) -> bytes:
    data = mutated(whole, whole[::-1], draw)
    if draw.random() < 0.2:
      at = draw.randrange(len(data) + 1)
      data = data[:at] + payload + data[at:]
    return data

  return case


def read_weights(name: str, data: bytes) -> object:
  from ctx_encoder.models.weights import read as weights

  path = scratch() / f"mutated{pathlib.Path(name).suffix}"
  path.write_bytes(data)
  return weights.load(path)


KINDS: dict[str, tuple[str, Callable[[], Cases], Read]] = {
  kind.lower() + "".join(options): (
    f"{kind} {''.join(options)}".strip() + ", mutated",
    functools.partial(encoded, kind, **options),
    read_picture,
  )
  for kind, options in [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("BMP", {}),
    ("GIF", {}),
  ]
}
KINDS["bombs"] = "Decompression bombs of six formats", bombs, refuse_bomb
KINDS["slow"] = "Pictures made to take long to decode", slow_files, read_in_time
KINDS["records"] = "TFRecord files, mutated", damaged_records, read_records
KINDS["examples"] = (
  "Examples in TFRecord files, mutated, with right checksums",
  damaged_examples,
  read_records,
)
for file in ("plain.npz", "weights.safetensors", "zip.pth", "legacy.pt", "keras.h5"):
  KINDS[file] = (
    f"Weights, {file}, mutated",
    functools.partial(weights, file),
    functools.partial(read_weights, file),
  )

if __name__ == "__main__":
  main()
