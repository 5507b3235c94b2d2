"""`ctx-encoder data` reports what a source holds; errors are one line."""

import pytest
from pictures import encode, fill_folder, noise

from ctx_encoder.apps import cli


def run(*arguments):
  return cli.main(["data", "--loader", "pillow", *arguments])


def test_folder(tmp_path, capsys):
  fill_folder(tmp_path, 30)
  (tmp_path / "large.png").write_bytes(encode(noise(40, 60)))
  (tmp_path / "small.png").write_bytes(encode(noise(8, 9)))
  (tmp_path / "bad.png").write_bytes(b"no picture")
  assert run("--path", str(tmp_path), "--image-size", "16") == 0
  out, err = capsys.readouterr()
  lines = dict(line.split(maxsplit=1) for line in out.splitlines()[:4])
  assert lines["source"] == f"folder {tmp_path}"
  assert lines["images"] == "33 found, 32 usable, 1 skipped"
  assert lines["size"] == "smallest 9x8, median 16x16, largest 60x40"
  training, validation = (int(part.split()[0]) for part in lines["split"].split(", "))
  assert training + validation == 32
  assert f"in memory   {32 * 768 / 2**20:.1f} MiB at 16x16" in out
  assert out.splitlines()[-1] == "skipped     bad.png: not a picture"
  assert err == ""


def test_every_skipped_file_is_listed(tmp_path, capsys):
  fill_folder(tmp_path, 30)
  for number in range(25):
    (tmp_path / f"bad{number}.png").write_bytes(b"")
  assert run("--path", str(tmp_path)) == 0
  assert capsys.readouterr().out.count(": empty file\n") == 25


def test_names_cannot_command_the_terminal(tmp_path, capsys):
  fill_folder(tmp_path, 10)
  for name in ("a\x1b[2J.png", "b\n.png", "c\u202egnp.png", "d\udcff.png"):
    (tmp_path / name).write_bytes(b"")
  assert run("--path", str(tmp_path), "--image-size", "16") == 0
  out = capsys.readouterr().out
  for shown in (r"a\x1b[2J.png", r"b\n.png", r"c\u202egnp.png", r"d\udcff.png"):
    assert f"skipped     {shown}: empty file\n" in out
  assert out.replace("\n", "").isprintable()


def test_nothing_given_shows_the_photographs_and_the_notice(capsys):
  assert run("--image-size", "16", "--max-images", "20") == 0
  out = capsys.readouterr().out
  assert out.startswith("source      samples\n")
  assert "No data is configured" in out


def test_errors_are_one_line(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  for arguments, message in (
    (["--path", "./nowhere"], "There is nothing at './nowhere'"),
    (["--path", "."], "No images in ."),
    (["--source", "folder"], "needs data.path"),
    (["--image-size", "0"], "image_size must be at least 1"),
  ):
    assert run(*arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("ctx-encoder data: ")


@pytest.mark.parametrize("command", ["data", "masks", "augment"])
def test_help_gives_an_example(command, capsys):
  with pytest.raises(SystemExit) as ended:
    cli.main([command, "--help"])
  assert ended.value.code == 0
  text = capsys.readouterr().out
  assert f"    ctx-encoder {command} --" in text
  if command == "data":
    assert "cycle_gan/monet2photo" in text
