"""HTTP API and command of the demo: responses, limits, queue, concurrent clients."""

import asyncio
import concurrent.futures
import itertools
import pathlib
import re
import socket
import struct
import threading
import tomllib
import zlib

import httpx2
import numpy as np
import pytest
import serving
from serving import form, hole, picture, pixels, png

import ctx_encoder
from ctx_encoder.apps import demo
from ctx_encoder.apps.demo import holes
from ctx_encoder.apps.demo.turns import Busy, Job, Turns
from ctx_encoder.data import landscapes
from ctx_encoder.inpaint import BLENDS, STRATEGIES

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client():
  limits = demo.Limits(pixels=10_000, bytes=50_000)
  return serving.client(demo.make_app(serving.inpainter(), limits))


def problem(response, status):
  """Checks that a response is one line of JSON; returns the line."""
  assert response.status_code == status, response.text
  assert response.headers["content-type"] == "application/json"
  (line,) = response.json().values()
  assert "\n" not in line
  return line


# Responses


def test_a_picture_is_completed(client):
  response = client.post("/api/inpaint", files=form())
  assert response.status_code == 200
  assert response.headers["content-type"] == "image/png"
  completed, image, mask = pixels(response.content), picture(), hole()
  np.testing.assert_array_equal(completed[~mask], image[~mask])
  expected = serving.inpainter()(image, mask)
  np.testing.assert_array_equal(completed, expected)
  assert (completed[mask] != image[mask]).any(1).mean() > 0.9
  timing = re.findall(r"(\w+);dur=\d+\.\d", response.headers["server-timing"])
  assert timing == ["wait", "decode", "complete", "encode"]


def test_choices_reach_the_inpainter(client):
  for strategy, blend in itertools.product(STRATEGIES, BLENDS):
    choices = {"strategy": strategy, "blend": blend}
    data = choices | {"seed": "3"}
    response = client.post("/api/inpaint", files=form(), data=data)
    expected = serving.inpainter()(picture(), hole(), **choices, seed=3)
    np.testing.assert_array_equal(pixels(response.content), expected, str(choices))


def test_the_seed_reaches_the_network():
  def noise(images, masks, keys):
    import jax

    drawn = jax.vmap(lambda key: jax.random.bits(key, (16, 16, 3), np.uint8))(keys)
    return np.where(masks > 0, drawn, images)

  client = serving.client(demo.make_app(serving.inpainter(noise)))
  answers = [
    client.post("/api/inpaint", files=form(), data={"seed": seed}).content
    for seed in ("1", "1", "2")
  ]
  assert answers[0] == answers[1] != answers[2]


def test_info(client):
  info = client.get("/api/info").json()
  assert info["name"] == "white <b>"
  assert info["image_size"] == 16
  assert tuple(info["strategies"]) == STRATEGIES
  assert tuple(info["blends"]) == BLENDS
  assert info["max_pixels"] == 10_000
  assert info["max_bytes"] == 50_000
  assert info["version"] == ctx_encoder.__version__


def test_examples(client):
  _, kept_out = landscapes.split()  # of the training of the package's network
  for example in client.get("/api/info").json()["examples"]:
    name = example["name"]
    assert name in kept_out
    whole = client.get(f"/api/examples/{name}")
    assert whole.headers["content-type"] == "image/webp"
    np.testing.assert_array_equal(pixels(whole.content), landscapes.read(name))
    small = pixels(client.get(f"/api/examples/{name}?small=true").content)
    assert small.shape == (160, 320, 3)
    for stroke in example["strokes"]:
      assert 0 < stroke["radius"] < 0.2
      assert all(0 <= x <= 2 and 0 <= y <= 1 for x, y in stroke["points"])
  assert "'dog'" in problem(client.get("/api/examples/dog"), 404)


def test_ready_made_holes(client):
  for kind in holes.KINDS:
    query = {"kind": kind, "width": 90, "height": 60}
    drawn = [
      pixels(client.get("/api/mask", params=query | {"seed": seed}).content)
      for seed in (0, 0, 1)
    ]
    assert drawn[0].shape == (60, 90)
    assert drawn[0].dtype == bool
    assert 0.02 < drawn[0].mean() < 0.5, kind
    np.testing.assert_array_equal(drawn[0], drawn[1], kind)
    assert np.array_equal(drawn[0], drawn[2]) == (kind == "center"), kind
    if kind == "center":
      assert drawn[0][15:45, 23:67].all()
      assert drawn[0].sum() <= 30 * 46


def test_ready_made_holes_have_limits(client):
  query = {"kind": "center", "width": 60_000, "height": 60_000}
  assert "10,000 pixels" in problem(client.get("/api/mask", params=query), 422)
  assert "width" in problem(client.get("/api/mask", params=query | {"width": 0}), 422)
  assert "kind" in problem(client.get("/api/mask", params=query | {"kind": "x"}), 422)


def test_the_schema_describes_the_api(client):
  schema = client.get("/openapi.json").json()
  assert schema["openapi"].startswith("3.")
  assert set(schema["paths"]) == {
    "/api/inpaint",
    "/api/info",
    "/api/mask",
    "/api/examples/{name}",
    "/api/progress/{job}",
  }
  post = schema["paths"]["/api/inpaint"]["post"]
  (reference,) = post["requestBody"]["content"].values()
  body = schema["components"]["schemas"][reference["schema"]["$ref"].split("/")[-1]]
  assert set(body["properties"]) == {"image", "mask", "strategy", "blend", "seed"}
  assert body["required"] == ["image", "mask"]
  assert tuple(body["properties"]["strategy"]["enum"]) == STRATEGIES
  assert list(post["responses"]["200"]["content"]) == ["image/png"]
  assert set(post["responses"]) == {
    "200",
    *("400", "403", "408", "413", "422", "503"),
  }


def test_the_page_and_its_headers(client):
  kinds = {"/": "html", "/main.js": "javascript", "/style.css": "css"}
  for path, kind in kinds.items():
    response = client.get(path)
    assert kind in response.headers["content-type"]
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert not re.search(r"https?://|url\(|@import", response.text)
  assert client.get("/%2e%2e/app.py").status_code == 404
  assert problem(client.get("/nothing"), 404) == "Not Found"


# Errors


def bomb(width, height):
  """Returns a PNG of a few bytes whose header announces many pixels."""

  def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  data = zlib.compress(bytes(1000))
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
  )


def test_unusable_pictures(client):
  for image, mask, line in (
    (b"nonsense", None, "image: not a picture"),
    (b"", None, "image: empty file"),
    (None, b"nonsense", "mask: not a picture"),
    (png(picture())[:200], None, "image: cannot be decoded"),
    (bomb(60_000, 60_000), None, "image: 60000x60000 pixels"),
    (bomb(99, 150), None, "image: 99x150 pixels, above max_pixels"),
    (bomb(201, 20), None, "image: 201x20 pixels, a side above 200"),
    (None, bomb(60_000, 60_000), "mask: 60000x60000 pixels"),
    (None, png(hole(24, 41)), "the same size"),
    (None, png(np.zeros((24, 40), bool)), "no hole"),
    (None, png(np.ones((24, 40), bool)), "hides everything"),
  ):
    response = client.post("/api/inpaint", files=form(image, mask))
    assert line in problem(response, 400)


def test_invalid_fields(client):
  for fields, status, line in (
    ({"strategy": "magic"}, 400, "magic"),
    ({"blend": "magic"}, 400, "magic"),
    ({"seed": "x"}, 422, "seed: "),
    ({"seed": "-1"}, 422, "seed: "),
    ({"seed": str(2**40)}, 422, "seed: "),
  ):
    response = client.post("/api/inpaint", files=form(), data=fields)
    assert line in problem(response, status)


def test_malformed_requests(client):
  assert "image: Field required; mask" in problem(client.post("/api/inpaint"), 422)
  only = {"image": form()["image"]}
  assert "mask: " in problem(client.post("/api/inpaint", files=only), 422)
  text = {"image": "a", "mask": "b"}
  assert "image: " in problem(client.post("/api/inpaint", data=text), 422)
  assert "image: " in problem(client.post("/api/inpaint", json=text), 422)
  head = {"content-type": "multipart/form-data; boundary=x"}
  for body in (
    b"",
    b"--x\r\n",
    b"\x00" * 100,
    b"--x\r\nContent-Disposition: a\r\n\r\n",
  ):
    response = client.post("/api/inpaint", content=body, headers=head)
    assert response.status_code in (400, 422)
    problem(response, response.status_code)


def test_uploads_above_the_limit():
  limits = demo.Limits(bytes=50_000)
  files = form(picture(200, 200).tobytes())
  asked = []

  def pieces():
    yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    for _ in range(1000):
      asked.append(1)
      yield bytes(10_000)

  with serving.running(demo.make_app(serving.inpainter(), limits)) as url:
    line = "The upload is larger than 0.05 MB."
    assert problem(httpx2.post(f"{url}api/inpaint", files=files), 413) == line
    head = {"content-type": "multipart/form-data; boundary=x"}
    response = httpx2.post(f"{url}api/inpaint", content=pieces(), headers=head)
    assert problem(response, 413) == line
    # The announced length is enough to refuse it, before its body arrives.
    with socket.create_connection(("127.0.0.1", int(url.split(":")[2][:-1]))) as raw:
      raw.sendall(
        b"POST /api/inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n"
      )
      raw.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")
      raw.settimeout(30)
      assert raw.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_the_server_survives_a_failure():
  failing = [True]

  def paint(images, masks, keys):
    if failing:
      failing.pop()
      raise RuntimeError("out of memory at 0x1234")
    return images

  app = demo.make_app(serving.inpainter(paint))
  client = serving.client(app, raise_server_exceptions=False)
  assert "0x1234" not in problem(client.post("/api/inpaint", files=form()), 500)
  assert client.post("/api/inpaint", files=form()).status_code == 200


# Queue


def test_jobs_run_one_by_one_in_order():
  async def scenario():
    turns, order, inside = Turns(2), [], 0

    async def take(number):
      nonlocal inside
      job = Job()
      async with turns.place(job), turns.turn(job):
        inside += 1
        assert inside == 1
        await asyncio.sleep(0)
        order.append(number)
        inside -= 1
        if number == 1:
          raise OSError

    tasks = [asyncio.create_task(take(number)) for number in range(4)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    await take(4)
    assert order == [0, 1, 2, 4]
    assert [type(one) for one in found] == [type(None), OSError, type(None), Busy]
    assert found[3].retry_after >= 1

  asyncio.run(scenario())


def test_a_full_queue_refuses_with_a_time_to_retry():
  begun, go_on, at_work = threading.Event(), threading.Event(), []

  def paint(images, masks, keys):
    at_work.append(1)
    assert len(at_work) == 1  # one at a time
    begun.set()
    assert go_on.wait(60)
    at_work.pop()
    return images

  app = demo.make_app(serving.inpainter(paint), demo.Limits(waiting=2))
  with (
    serving.running(app) as url,
    concurrent.futures.ThreadPoolExecutor(3) as pool,
    httpx2.Client(base_url=url, timeout=60) as client,
  ):

    def post():
      return client.post("/api/inpaint", files=form())

    first = pool.submit(post)
    assert begun.wait(60)
    waiting = [pool.submit(post) for _ in range(2)]
    # These may arrive before those two and take their places.
    while (refused := impatient(client)).status_code != 503:
      pass
    go_on.set()
    assert "try again" in problem(refused, 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert first.result().status_code == 200
    assert {one.result().status_code for one in waiting} <= {200, 503}
    # Requests whose client has gone are dropped, which frees their places.
    while post().status_code == 503:
      pass


def impatient(client):
  """Posts without waiting for a turn."""
  try:
    return client.post("/api/inpaint", files=form(), timeout=0.5)
  except httpx2.TimeoutException:
    return httpx2.Response(0)


def test_sixteen_concurrent_clients():
  expected = {}
  with (
    serving.running(demo.make_app(serving.inpainter())) as url,
    concurrent.futures.ThreadPoolExecutor(16) as pool,
  ):

    def ask(number):
      image = picture(40 + number, 60, seed=number)
      mask = hole(40 + number, 60)
      expected[number] = serving.inpainter()(image, mask)
      if number % 4 == 3:
        image = image[1:]  # errors do not affect other requests
      files = form(png(image), png(mask))
      return httpx2.post(f"{url}api/inpaint", files=files, timeout=60)

    answers = list(pool.map(ask, range(16)))
  for number, answer in enumerate(answers):
    if number % 4 == 3:
      assert "the same size" in problem(answer, 400)
    else:
      np.testing.assert_array_equal(pixels(answer.content), expected[number])


def test_the_page_links_to_what_is_installed():
  packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
  assert packaged["package-data"]["ctx_encoder.apps.demo"] == ["page/*"]
  page = ROOT / "ctx_encoder/apps/demo/page"
  linked = re.findall(r'(?:src|href)="([^"]+)"', (page / "index.html").read_text())
  assert {name for name in linked if not (page / name).exists()} == {"openapi.json"}
