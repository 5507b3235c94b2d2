"""Weight files equal what was written; damaged and hostile files are refused."""

import contextlib
import io
import os
import pickle
import pickletools
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from ctx_encoder.models import weights
from ctx_encoder.models.weights import torch_state_dict

DRAW = np.random.default_rng(0)
ARRAYS = {
  "features.0.weight": DRAW.normal(size=(4, 3, 3, 3)).astype(np.float32),
  "features.0.bias": DRAW.normal(size=4),
  "half": DRAW.normal(size=(5, 2)).astype(np.float16),
  "steps": np.array(7),
  "flags": np.array([True, False]),
  "empty": np.zeros((0, 3), np.float32),
}


def check(loaded, expected):
  assert loaded.keys() == expected.keys()
  for name, array in expected.items():
    assert loaded[name].dtype == array.dtype
    np.testing.assert_array_equal(loaded[name], array, strict=True)


def refused(path, *texts):
  """Checks that a file is refused in one line that names it."""
  with pytest.raises(ValueError, match=r".") as error:
    weights.load(path)
  message = str(error.value)
  assert message.startswith(str(path)), message
  assert "\n" not in message
  assert len(message) < 600
  for text in texts:
    assert text in message


@contextlib.contextmanager
def little_memory():
  """Checks that no more than a megabyte is allocated inside."""
  tracemalloc.start()
  try:
    yield
    assert tracemalloc.get_traced_memory()[1] < 1e6
  finally:
    tracemalloc.stop()


# Writers, one a format


def write_npz(path):
  np.savez(path, **ARRAYS)


def write_compressed_npz(path):
  np.savez_compressed(path, **ARRAYS)


def write_safetensors(path):
  pytest.importorskip("safetensors.numpy").save_file(ARRAYS, path)


def write_torch(path, **options):
  torch = pytest.importorskip("torch")
  torch.save(
    {name: torch.tensor(array) for name, array in ARRAYS.items()}, path, **options
  )


def write_legacy_torch(path):
  write_torch(path, _use_new_zipfile_serialization=False)


def write_keras(path):
  """As Keras 1 wrote VGG's weights."""
  h5py = pytest.importorskip("h5py")
  with h5py.File(path, "w") as file:
    file.attrs["layer_names"] = [b"block1_conv1", b"block1_pool"]
    group = file.create_group("block1_conv1")
    group.attrs["weight_names"] = [b"block1_conv1_W_1:0", b"block1_conv1_b_1:0"]
    group["block1_conv1_W_1:0"] = ARRAYS["features.0.weight"]
    group["block1_conv1_b_1:0"] = ARRAYS["features.0.bias"]
    file.create_group("block1_pool").attrs["weight_names"] = np.array([], "S1")


WRITERS = {
  "plain.npz": write_npz,
  "compressed.npz": write_compressed_npz,
  "weights.safetensors": write_safetensors,
  "zip.pth": write_torch,
  "legacy.pt": write_legacy_torch,
  "keras.h5": write_keras,
}
formats = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
  """Returns a function from a file's name to the bytes of such a file."""
  folder, made = tmp_path_factory.mktemp("weights"), {}

  def content(name):
    if name not in made:
      WRITERS[name](folder / name)
      made[name] = (folder / name).read_bytes()
    return made[name]

  return content


@formats
def test_written_arrays_are_read(name, contents, tmp_path):
  path = tmp_path / name.upper()  # the suffix in any case
  path.write_bytes(contents(name))
  expected = ARRAYS
  if name == "keras.h5":
    expected = {
      "block1_conv1/kernel": ARRAYS["features.0.weight"],
      "block1_conv1/bias": ARRAYS["features.0.bias"],
    }
  check(weights.load(path), expected)
  check(weights.load(str(path)), expected)


def test_npz_in_both_orders(tmp_path):
  array = ARRAYS["features.0.weight"]
  np.savez(tmp_path / "a.npz", c=array, fortran=np.asfortranarray(array))
  check(weights.load(tmp_path / "a.npz"), {"c": array, "fortran": array})


def test_npz_with_objects_is_refused(tmp_path):
  np.savez(tmp_path / "a.npz", x=np.array([{}], object))
  refused(tmp_path / "a.npz", "x.npy is not an array of numbers")
  np.savez(tmp_path / "b.npz", x=np.array(["text"]))
  refused(tmp_path / "b.npz", "x.npy is not an array of numbers, its type is <U4")


def npy(shape, dtype="<f4"):
  header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
  header = header.ljust(117) + "\n"
  return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def test_npz_with_a_wrong_header_is_refused(tmp_path):
  for shape in ((3,), (2**40,), (2**62, 8), (-1,)):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
      archive.writestr("x.npy", npy(shape) + bytes(8))
    with little_memory():
      refused(tmp_path / "a.npz")


def test_npz_with_overlapping_members_is_refused(tmp_path):
  """A hundred names for the same compressed megabyte."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("x000.npy", npy((2**18,)) + bytes(2**20))
    member = archive.infolist()[0]
    for number in range(1, 100):
      info = zipfile.ZipInfo(f"x{number:03}.npy")
      for field in ("CRC", "compress_size", "file_size", "header_offset"):
        setattr(info, field, getattr(member, field))
      info.compress_type = member.compress_type
      archive.filelist.append(info)
      archive.NameToInfo[info.filename] = info
  (tmp_path / "a.npz").write_bytes(file.getvalue())
  refused(tmp_path / "a.npz", "more than its size allows")


def test_bfloat16_is_converted_to_float32(tmp_path):
  torch = pytest.importorskip("torch")
  tensor = torch.linspace(-3, 3, 11).to(torch.bfloat16)
  expected = {"a": tensor.float().numpy(), "b": tensor[2:5].float().numpy()}
  for name, zipped in (("zip.pt", True), ("legacy.pt", False)):
    saved = {"a": tensor, "b": tensor[2:5]}
    torch.save(saved, tmp_path / name, _use_new_zipfile_serialization=zipped)
    check(weights.load(tmp_path / name), expected)
  safetensors = pytest.importorskip("safetensors.torch")
  safetensors.save_file({"a": tensor}, tmp_path / "a.safetensors")
  check(weights.load(tmp_path / "a.safetensors"), {"a": expected["a"]})


# PyTorch


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict_of_a_module(zipped, protocol, tmp_path):
  torch = pytest.importorskip("torch")
  network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 2)
  )
  expected = {name: t.numpy() for name, t in network.state_dict().items()}
  options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
  path = tmp_path / "network.pth"
  torch.save(network.state_dict(), path, **options)
  check(weights.load(path), expected)
  checkpoint = {
    "epoch": 3,
    "rate": 0.1,
    "name": "é",
    "state_dict": network.state_dict(),
  }
  torch.save(checkpoint, path, **options)
  check(weights.load(path), expected)
  # With its parameters as such, and as views that share a storage.
  weight = network[0].weight.data
  tensors = {
    "parameter": network[0].weight,
    "turned": weight.permute(2, 3, 1, 0),
    "part": weight[1:3, :, 1],
    "steps": weight[:, ::2],
    "scalar": weight[0, 0, 0, 0],
  }
  torch.save(tensors, path, **options)
  check(weights.load(path), {n: t.detach().numpy() for n, t in tensors.items()})


def test_a_pickled_network_is_refused(tmp_path):
  torch = pytest.importorskip("torch")
  for zipped in (True, False):
    path = tmp_path / "network.pt"
    network = torch.nn.Linear(2, 2)
    torch.save(network, path, _use_new_zipfile_serialization=zipped)
    refused(path, "torch.nn.modules.linear.Linear", "Save only model.state_dict().")
  torch.save(torch.ones(3), path)
  refused(path, "it holds no state dict")
  torch.save({"epoch": 3}, path)
  refused(path, "holds no arrays")


# Pickles written by hand: PyTorch would not write wrong ones.

MAGIC = 0x1950A86A20F9469CFC6C
ONES = np.ones(6, "<f4").tobytes()


def text(value):
  return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
  size = value.bit_length() // 8 + 1
  return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tensor(size=(2, 3), stride=(3, 1), offset=0, kind="FloatStorage", key="0"):
  storage = b"(%sctorch\n%s\n%s%s%sNtQ" % (
    text("storage"),
    kind.encode(),
    text(key),
    text("cuda:0"),
    number(6),
  )
  numbers = [b"(" + b"".join(map(number, values)) + b"t" for values in (size, stride)]
  call = b"ctorch._utils\n_rebuild_tensor_v2\n("
  return call + storage + number(offset) + b"".join(numbers) + b"\x89}tR"


def legacy(pickled, storages=(("0", 6, ONES),), keys=None):
  """A file of version 1.5 or before; storages are (key, count, content)."""
  head = [MAGIC, 1001, {"little_endian": True}]
  return b"".join(
    [
      *(pickle.dumps(item, 2) for item in head),
      b"\x80\x02" + pickled + b".",
      keys or pickle.dumps([key for key, _, _ in storages], 2),
      *(struct.pack("<q", count) + content for _, count, content in storages),
    ]
  )


def state_dict(*tensors):
  named = [text(f"x{i}") + made + b"s" for i, made in enumerate(tensors)]
  return b"}" + b"".join(named)


def zipped(pickled, storages=(("0", ONES),), method=zipfile.ZIP_STORED):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", method) as archive:
    archive.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
    for key, content in storages:
      archive.writestr(f"archive/data/{key}", content)
  return file.getvalue()


def test_files_written_by_python_2(tmp_path):
  """As PyTorch wrote them on Python 2, the published heads of LPIPS among them."""
  pairs = b"".join(b"](%s%se" % (text(name), tensor()) for name in ("a", "b"))
  ordered = b"ccollections\nOrderedDict\n](" + pairs + b"e\x85R"
  ordered += b"}" + text("_metadata") + b"}sb"  # its attributes
  path = tmp_path / "a.pth"
  for content in (legacy(ordered), zipped(ordered)):
    path.write_bytes(content)
    check(weights.load(path), dict.fromkeys("ab", np.ones((2, 3), np.float32)))


OUTSIDE = {
  "reaches beyond its storage": [
    tensor(offset=1),
    tensor(size=(3, 3)),
    tensor(stride=(4, 1)),
    tensor(size=(2**40,), stride=(0,)),
    tensor(size=(2**62, 2**62), stride=(2**62, 1)),
  ],
  "cannot be read": [tensor(kind="DoubleStorage"), tensor(key="1")],
  "not whole numbers": [
    tensor(offset=-1),
    tensor(stride=(-3, 1)),
    tensor(size=(-2, 3)),
  ],
  "axes": [
    tensor(size=(2, 3), stride=(1,)),
    tensor(size=(1,) * 40, stride=(1,) * 40),
  ],
}


@pytest.mark.parametrize("write", [legacy, zipped])
def test_tensors_outside_of_their_storage_are_refused(write, tmp_path):
  path = tmp_path / "a.pth"
  for reason, tensors in OUTSIDE.items():
    for made in tensors:
      path.write_bytes(write(state_dict(tensor(), made)))
      with little_memory():
        refused(path, reason)


def test_storages_with_wrong_sizes_are_refused(tmp_path):
  path = tmp_path / "a.pth"
  for count in (7, 2**60, -1, -(2**63)):
    path.write_bytes(legacy(state_dict(tensor()), [("0", count, ONES)]))
    refused(path, "storage 0 is truncated")


def test_compressed_torch_files_are_refused(tmp_path):
  path = tmp_path / "a.pth"
  path.write_bytes(zipped(state_dict(tensor()), method=zipfile.ZIP_DEFLATED))
  refused(path, "compressed")


class Call:
  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize(
  ("write", "protocol"), [(w, p) for w in (legacy, zipped) for p in range(6)]
)
def test_no_code_is_run(write, protocol, tmp_path):
  marker, path = tmp_path / "marker", tmp_path / "a.pth"
  commands = [
    Call(os.system, f"touch {marker}"),
    Call(open, str(marker), "w"),
    Call(eval, f"open({str(marker)!r}, 'w')"),
    {"x": Call(os.mkdir, str(marker))},
  ]
  for command in commands:
    pickled = pickle.dumps(command, protocol)
    # The files' own opcodes at both ends are doubled, which a pickle may.
    path.write_bytes(write(pickled.removesuffix(b".")))
    name = "" if protocol == 0 else "was not run"
    refused(path, name)
    path.write_bytes(pickled if protocol > 1 else b"\x80\x02" + pickled)
    refused(path)
    assert not marker.exists()


def test_refusals_name_the_function(tmp_path):
  path = tmp_path / "a.pth"
  for protocol in (2, 4):
    path.write_bytes(legacy(pickle.dumps(Call(os.system, "true"), protocol)[:-1]))
    refused(path, f"{os.system.__module__}.system")
  path.write_bytes(legacy(b"ctorch.storage\n_load_from_bytes\n" + text("") + b"\x85R"))
  refused(path, "torch.storage._load_from_bytes")


DEEP = b")" + b"\x85" * 100_000  # a tuple in a tuple in a tuple
TWICE = b")" + b"q\x00h\x00\x86" * 200  # of 2^200 parts, were it written out
HOSTILE = {
  "a deep key": b"}" + DEEP + b"K\x01s",
  "a key of many parts": b"}" + TWICE + b"K\x01s",
  "a deep value": b"}" + text("x") + DEEP + b"s",
  "a deep size": state_dict(tensor().replace(number(2) + number(3), DEEP)),
  "a size of many parts": state_dict(tensor().replace(number(2) + number(3), TWICE)),
  "a dict in itself": b"}q\x00" + text("state_dict") + b"h\x00s",
  "a call of a tuple": b"))R",
  "a persistent id of numbers": b"K\x01Q",
  "too few on the stack": b"R",
  "too many on the stack": b"}}",
  "no mark": b"u",
  "an unknown memo": b"h\x07",
}


LARGE = {
  "a number in the memo": b"]r\xff\xff\xff\x7f",
  "bytes": b"B\xff\xff\xff\x7fab",
  "a string": b"X\xff\xff\xff\x7fab",
  "an integer": b"\x8b\xff\xff\xff\x7fab",
}


@pytest.mark.parametrize("write", [legacy, zipped])
def test_hostile_pickles_are_refused(write, tmp_path):
  path = tmp_path / "a.pth"
  for pickled in HOSTILE.values():
    path.write_bytes(write(pickled))
    refused(path)
  for pickled in LARGE.values():
    path.write_bytes(write(pickled))
    with little_memory():
      refused(path)


def test_opcodes_that_a_state_dict_does_not_have_are_refused(tmp_path):
  """Among them those that create objects or allocate what a number in them says."""
  path, allowed = tmp_path / "a.pth", torch_state_dict._Unpickler.dispatch
  foreign = {op.code.encode("latin1") for op in pickletools.opcodes}
  foreign -= {bytes([code]) for code in allowed}
  assert len(foreign) > 25
  for code in foreign:
    path.write_bytes(legacy(b"}(" + code + b"\xff" * 7 + b"\x00"))
    with little_memory():
      refused(path, f"it has the pickle opcode {code}")


def test_hostile_keys_of_storages_are_refused(tmp_path):
  path = tmp_path / "a.pth"
  for key in (DEEP, TWICE, text("1"), number(0)):
    path.write_bytes(legacy(state_dict(tensor()), keys=b"\x80\x02](" + key + b"e."))
    refused(path, "a storage that no tensor refers to")


def test_foreign_machines_are_refused(tmp_path):
  path = tmp_path / "a.pth"
  little = legacy(state_dict(tensor()))
  path.write_bytes(little.replace(pickle.dumps(True, 2)[2:-1], b"\x89", 1))
  refused(path, "big-endian")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a/data.pkl", b"\x80\x02}.")
    archive.writestr("a/byteorder", b"big")
  refused(path, "big-endian")
  path.write_bytes(little.replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2), 1))
  refused(path, "protocol")
  path.write_bytes(pickle.dumps({"a": 1}, 2))
  refused(path, "not one of torch.save")


# Keras


@pytest.fixture(scope="module")
def keras():
  pytest.importorskip("tensorflow")
  return pytest.importorskip("keras")


def test_files_saved_by_keras(keras, tmp_path):
  h5py = pytest.importorskip("h5py")
  from keras.src.legacy.saving import legacy_h5_format

  layers = keras.layers
  network = keras.Sequential(
    [
      keras.Input((8, 8, 3)),
      layers.Conv2D(4, 3, name="block1_conv1"),
      layers.MaxPooling2D(name="block1_pool"),
      layers.Conv2D(5, 3, use_bias=False, name="block2_conv1"),
    ]
  )
  first, second = network.layers[0], network.layers[2]
  first.bias.assign(np.arange(4.0))
  expected = {
    "block1_conv1/kernel": keras.ops.convert_to_numpy(first.kernel),
    "block1_conv1/bias": keras.ops.convert_to_numpy(first.bias),
    "block2_conv1/kernel": keras.ops.convert_to_numpy(second.kernel),
  }
  network.save_weights(tmp_path / "new.weights.h5")
  check(weights.load(tmp_path / "new.weights.h5"), expected)
  with h5py.File(tmp_path / "old.h5", "w") as file:
    legacy_h5_format.save_weights_to_hdf5_group(file, network)
  check(weights.load(tmp_path / "old.h5"), expected)
  legacy_h5_format.save_model_to_hdf5(network, str(tmp_path / "model.hdf5"))
  check(weights.load(tmp_path / "model.hdf5"), expected)


def test_numbered_variables_of_other_layers(tmp_path):
  """As Keras 3 writes the four of BatchNorm, and layers before they carried names."""
  h5py = pytest.importorskip("h5py")
  vectors = {str(i): np.full(3, i, np.float32) for i in range(4)}
  with h5py.File(tmp_path / "a.weights.h5", "w") as file:
    for number, vector in vectors.items():
      file[f"layers/norm/vars/{number}"] = vector
    file["layers/dense/vars/0"] = np.ones((2, 3))
    file["layers/dense/vars"].attrs["name"] = "predictions"
    file["vars/0"] = np.ones(1)  # the model's own
  expected = {f"layers/norm/{number}": vector for number, vector in vectors.items()}
  expected["predictions/kernel"] = np.ones((2, 3))
  check(weights.load(tmp_path / "a.weights.h5"), expected)


def keras_file(path, **group):
  h5py = pytest.importorskip("h5py")
  file = h5py.File(path, "w")
  file.attrs["layer_names"] = ["conv"]
  file.create_group("conv").attrs["weight_names"] = group.pop("names", ["kernel:0"])
  return file, file["conv"]


def test_links_out_of_a_file_are_refused(tmp_path):
  h5py = pytest.importorskip("h5py")
  path, secret = tmp_path / "a.h5", tmp_path / "secret.h5"
  with h5py.File(secret, "w") as file:
    file["x"] = np.ones(3)
  file, group = keras_file(path)
  with file:
    group["kernel:0"] = h5py.ExternalLink(str(secret), "/x")
  refused(path, "a link")
  file, group = keras_file(path)
  with file:
    group["kernel:0"] = h5py.SoftLink("/conv")
  refused(path, "a link")
  file, group = keras_file(path)
  with file:
    group.create_dataset("kernel:0", (3,), "f8", external=[(str(secret), 0, 24)])
  refused(path, "is in another file")
  file, group = keras_file(path)
  with file:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "x", (3,))
    group.create_virtual_dataset("kernel:0", layout)
  refused(path, "is in another file")
  with h5py.File(path, "w") as file:
    file["layers"] = h5py.ExternalLink(str(secret), "/")
  refused(path, "holds no arrays")


def test_hdf5_with_other_content_is_refused(tmp_path):
  path = tmp_path / "a.h5"
  file, group = keras_file(path)
  with file:
    group.create_dataset("kernel:0", (2**40,), "f4", chunks=(2**10,), compression=9)
  refused(path, "more than its size allows")
  file, group = keras_file(path)
  with file:
    group["kernel:0"] = "text"
  refused(path, "not an array of numbers")
  file, group = keras_file(path)
  with file:
    group.create_group("kernel:0")
  refused(path, "conv/kernel is not an array")
  file, group = keras_file(path, names=["a/kernel:0", "b/kernel:0"])
  with file:
    group["a/kernel:0"], group["b/kernel:0"] = np.ones(2), np.ones(2)
  refused(path, "the same name")
  file, group = keras_file(path)
  file.close()
  refused(path, "kernel:0 is missing")


def test_hdf5_with_a_damaged_heap_is_refused(tmp_path):
  """HDF5 itself would read this heap in an endless loop."""
  path = tmp_path / "a.h5"
  file, group = keras_file(path)
  with file:
    group["kernel:0"] = np.ones(2)
  content = path.read_bytes()
  heap = content.index(b"GCOL") + 16
  path.write_bytes(content[:heap] + bytes(16) + content[heap + 16 :])
  refused(path, "a heap of strings in it is damaged")


# All formats


@formats
def test_truncated_files_are_refused(name, contents, tmp_path):
  content, path = contents(name), tmp_path / name
  steps = {int(x) for x in np.linspace(1, len(content) - 1, 60)}
  for size in sorted(
    steps | set(range(1, 20)) | {len(content) - n for n in range(1, 9)}
  ):
    path.write_bytes(content[:size])
    refused(path)


# Not HDF5, whose C library is not written for hostile files.
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "keras.h5"])
def test_damaged_files_are_read_or_refused(name, contents, tmp_path):
  content, path = contents(name), tmp_path / name
  draw = np.random.default_rng(1)
  refusals = []
  for _ in range(300):
    damaged = bytearray(content)
    for place in draw.integers(0, len(content), draw.integers(1, 4)):
      damaged[place] = draw.integers(0, 256)
    path.write_bytes(damaged)
    try:
      weights.load(path)
    except ValueError as error:
      refusals.append(str(error))
  assert len(refusals) > 10
  assert all(refusal.startswith(str(path)) for refusal in refusals)


@formats
def test_the_content_decides_whether_a_suffix_is_right(name, contents, tmp_path):
  begins = contents(name)[:4]
  others = {
    ".npz": "an npz archive",
    ".h5": "Keras weights in HDF5",
    ".safetensors": "safetensors",
    ".pth": "a PyTorch state dict",
  }
  for suffix, what in others.items():
    same = suffix in name or (suffix == ".pth" and name == "legacy.pt")
    if same or (suffix in (".npz", ".pth") and begins == b"PK\x03\x04"):
      continue
    path = tmp_path / f"renamed{suffix}"
    path.write_bytes(contents(name))
    refused(path, f"is not {what}: it starts with")


def test_zip_archives_of_the_wrong_kind(contents, tmp_path):
  path = tmp_path / "a.pth"
  path.write_bytes(contents("plain.npz"))
  refused(path, "it has 0 members data.pkl, not one")
  path = tmp_path / "a.npz"
  path.write_bytes(contents("zip.pth"))
  refused(path, "cannot be read as an npz archive")


def test_missing_and_empty_files(tmp_path):
  for suffix in (".npz", ".safetensors", ".h5", ".hdf5", ".pth", ".pt"):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(FileNotFoundError, match="a"):
      weights.load(path)
    path.write_bytes(b"")
    refused(path, "is empty")
  refused(tmp_path / "a.onnx", "must end in one of .npz, .safetensors, .h5")
  np.savez(tmp_path / "a.npz")
  refused(tmp_path / "a.npz", "holds no arrays")


@pytest.mark.parametrize("name", ["keras.h5", "weights.safetensors"])
def test_a_missing_library_is_named(name, monkeypatch, tmp_path):
  library = {"keras.h5": "h5py", "weights.safetensors": "safetensors"}[name]
  monkeypatch.setitem(sys.modules, library, None)
  path = tmp_path / name
  path.write_bytes(b"\x89HDF\r\n\x1a\n" if library == "h5py" else bytes(8) + b"{")
  with pytest.raises(ModuleNotFoundError, match=f"pip install {library}"):
    weights.load(path)
