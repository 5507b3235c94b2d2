"""The demo and other sites in the same browser, stalled clients, wrong requests."""

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
import time

import httpx2
import numpy as np
import pytest
import serving
from serving import form, picture, png

from ctx_encoder.apps import demo
from ctx_encoder.apps.demo import guard, holes

GET, POST = ("GET", "/api/info"), ("POST", "/api/inpaint")


@pytest.fixture(scope="module")
def client():
  return serving.client(demo.make_app(serving.inpainter()))


# Other sites


@pytest.mark.parametrize("request_line", [GET, POST, ("GET", "/"), ("GET", "/main.js")])
def test_other_hosts_are_refused(client, request_line):
  for host in (
    *("rebound.example", "rebound.example:7860", "127.0.0.1.example", "localhost.evil"),
    *("192.168.1.5", "0.0.0.0:7860", "", "a@localhost.evil", "[::1", "localhost, evil"),
  ):
    answer = client.request(*request_line, headers={"host": host})
    assert answer.status_code == 403, host
    assert "--allow-host" in answer.json()["error"]
  for host in ("localhost", "LOCALHOST:1", "127.0.0.1:7860", "[::1]:1", "localhost."):
    answer = client.request(*request_line, headers={"host": host})
    assert answer.status_code == (422 if request_line == POST else 200), host


def test_other_origins_are_refused(client):
  for origin in (
    *("http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1"),
    *("", "http://localhost.evil.example", "http://localhost@evil.example"),
  ):
    for method, path in (GET, POST, ("GET", "/api/mask")):
      answer = client.request(method, path, headers={"origin": origin})
      assert answer.status_code == 403, origin
      assert "other sites" in answer.json()["error"]
  own = {"origin": "http://localhost"}
  assert client.post("/api/inpaint", files=form(), headers=own).status_code == 200


def test_requests_that_other_pages_cause_are_refused(client):
  def status(path, site, mode):
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
    return client.get(path, headers=headers).status_code

  for site in ("cross-site", "same-site"):  # localhost:3000 is the same site
    assert status("/api/info", site, "no-cors") == 403
    assert status("/main.js", site, "no-cors") == 403
    assert status("/api/info", site, "navigate") == 403
    assert status("/", site, "navigate") == 200  # a link
  for site in ("same-origin", "none"):
    assert status("/api/info", site, "cors") == 200


def test_other_pages_cannot_read_or_embed(client):
  for method, path in (GET, POST, ("GET", "/"), ("GET", "/nothing")):
    headers = client.request(method, path).headers
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
  refused = client.get("/", headers={"host": "evil.example"})
  assert refused.headers["cross-origin-resource-policy"] == "same-origin"


def test_hosts_of_a_server_for_other_devices(monkeypatch):
  monkeypatch.setattr(guard.socket, "gethostname", lambda: "Studio")
  hosts = demo.allowed_hosts("0.0.0.0", ["paint.example"])
  client = serving.client(demo.make_app(serving.inpainter(), hosts=hosts))

  def status(host):
    return client.get("/api/info", headers={"host": host}).status_code

  for host in ("192.168.1.5:7860", "[fe80::1]:7860", "studio", "studio.local:7860"):
    assert status(host) == 200
  assert status("paint.example") == status("localhost:7860") == 200
  assert status("rebound.example") == status("192.168.1.5.example") == 403
  assert demo.allowed_hosts("127.0.0.1") == set(guard.LOCAL)


# Stalled clients. The application is called without a server, to see what it reads.


def body():
  """Returns the headers and the body of a request."""
  made = httpx2.Request(*POST[:1], "http://localhost/", files=form())
  return [(name.lower(), value) for name, value in made.headers.raw], made.read()


class Caller:
  """A client of an ASGI application that sends what it is told to send."""

  def __init__(self, app, headers, path="/api/inpaint"):
    self.sending = asyncio.Queue()
    self.read = 0  # messages
    self.status = None
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http"}
    self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

  async def _receive(self):
    message = await self.sending.get()
    self.read += 1
    return message

  async def _send(self, message):
    self.status = message.get("status", self.status)

  def send(self, data, more=True):
    self.sending.put_nowait({"type": "http.request", "body": data, "more_body": more})

  def leave(self):
    self.sending.put_nowait({"type": "http.disconnect"})


def test_stalled_uploads_are_not_read_and_end():
  limits = demo.Limits(seconds=0.5, uploads=2)
  app = demo.make_app(serving.inpainter(), limits)
  headers, data = body()

  async def scenario():
    callers = [Caller(app, headers) for _ in range(6)]
    for caller in callers:
      for _ in range(3):
        caller.send(data[:100])
    await asyncio.sleep(0.25)
    assert [caller.read for caller in callers] == [3, 3, 0, 0, 0, 0]
    whole = Caller(app, headers)
    whole.send(data, more=False)
    await asyncio.gather(whole.task, *(caller.task for caller in callers))
    assert [caller.status for caller in callers] == [408] * 6
    assert whole.status == 200

  asyncio.run(scenario())


def test_a_slow_filling_is_no_slow_upload():
  def slow(images, masks, keys):
    time.sleep(0.3)
    return images

  limits = demo.Limits(seconds=0.1)
  client = serving.client(demo.make_app(serving.inpainter(slow), limits))
  assert client.post("/api/inpaint", files=form()).status_code == 200


def test_holes_are_drawn_one_at_a_time(monkeypatch):
  at_work, most = [], []

  def draw(kind, width, height, seed):
    at_work.append(1)
    most.append(len(at_work))
    time.sleep(0.02)
    at_work.pop()
    return np.zeros((height, width), bool)

  monkeypatch.setattr(holes, "draw", draw)
  app = demo.make_app(serving.inpainter(), demo.Limits(waiting=3))
  with (
    serving.running(app) as url,
    concurrent.futures.ThreadPoolExecutor(12) as pool,
  ):
    query = {"kind": "center", "width": 8, "height": 8}
    answers = pool.map(
      lambda _: httpx2.get(f"{url}api/mask", params=query).status_code, range(12)
    )
    assert {*answers} == {200, 503}
  assert max(most) == 1


def test_too_many_connections_are_refused():
  app = demo.make_app(serving.inpainter())
  with serving.running(app, connections=4) as url, contextlib.ExitStack() as stack:
    assert httpx2.get(f"{url}api/info").status_code == 200
    address = ("127.0.0.1", int(url.split(":")[2][:-1]))
    for _ in range(4):
      stack.enter_context(socket.create_connection(address))
    assert httpx2.get(f"{url}api/info").status_code == 503


# Progress and the end of a request


def stroke(height=40, width=300):
  """Returns a long thin hole, which is filled with many tiles."""
  mask = np.zeros((height, width), bool)
  mask[18:22, 8:-8] = True
  return form(png(picture(height, width)), png(mask))


def test_the_work_ends_when_the_client_goes():
  calls, go_on = [], threading.Event()

  def paint(images, masks, keys):
    calls.append(len(images))
    assert go_on.wait(60)
    return images

  with serving.running(demo.make_app(serving.inpainter(paint))) as url:
    ask = {"url": f"{url}api/inpaint", "data": {"blend": "none"}, "files": stroke()}
    with pytest.raises(httpx2.TimeoutException):
      httpx2.post(**ask, timeout=1)
    time.sleep(0.5)
    go_on.set()
    time.sleep(0.3)
    assert len(calls) == 1
    assert httpx2.post(**ask, timeout=60).status_code == 200  # the turn is free
    assert len(calls) > 3


def test_progress():
  begun, go_on = threading.Event(), threading.Event()

  def paint(images, masks, keys):
    begun.set()
    assert go_on.wait(60)
    return images

  with (
    serving.running(demo.make_app(serving.inpainter(paint))) as url,
    concurrent.futures.ThreadPoolExecutor(2) as pool,
    httpx2.Client(base_url=url, timeout=60) as client,
  ):

    def post(job):
      return client.post(f"api/inpaint?job={job}", files=stroke())

    def progress(job):
      return client.get(f"api/progress/{job}").json()

    def reaches(job, state):
      while progress(job)["state"] != state:
        time.sleep(0.02)
      return progress(job)

    first = pool.submit(post, "first")
    assert begun.wait(60)
    assert progress("first") == {"state": "filling", "before": 0, "done": 0.0}
    second = pool.submit(post, "second")
    assert reaches("second", "waiting") == {"state": "waiting", "before": 1, "done": 0}
    go_on.set()
    assert first.result().status_code == second.result().status_code == 200
    assert progress("first") == {"state": "unknown", "before": 0, "done": 0}


def test_progress_rises_to_the_end():
  shares = []
  mask = np.zeros((40, 300), bool)
  mask[18:22, 8:-8] = True
  serving.inpainter()(picture(40, 300), mask, blend="none", progress=shares.append)
  assert len(shares) > 3
  assert shares == sorted(shares)
  assert 0 < shares[0] < shares[-1] <= 1


# Wrong requests


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_wrong_methods(client, method):
  for path, allowed in {
    "/": "GET, HEAD",
    "/main.js": "GET, HEAD",
    "/openapi.json": "GET, HEAD",
    "/api/info": "GET",
    "/api/mask": "GET",
    "/api/inpaint": "POST",
    "/api/progress/a": "GET",
    "/api/examples/sky8": "GET",
  }.items():
    answer = client.request(method, path)
    if method in allowed.split(", "):
      assert answer.status_code in (200, 422)
    else:
      assert answer.status_code == 405, path
      assert sorted(answer.headers["allow"].split(", ")) == allowed.split(", ")
  for path in ("/api/nothing", "/a/b"):
    assert client.request(method, path).status_code == 404


@pytest.mark.slow
def test_requests_drawn_from_the_schema():
  import hypothesis
  import schemathesis
  from schemathesis.specs.openapi.checks import positive_data_acceptance

  limits = demo.Limits(pixels=40_000, bytes=50_000)
  app = demo.make_app(serving.inpainter(), limits)
  statuses, partly = set(), ("/api/inpaint", "/api/mask", "/api/examples/{name}")
  settings = {"max_examples": 50, "deadline": None, "derandomize": True}
  with serving.running(app) as url:
    schema = schemathesis.openapi.from_url(f"{url}openapi.json")
    for found in schema.get_all_operations():

      @hypothesis.settings(**settings, database=None)
      @hypothesis.given(case=found.ok().as_strategy())
      def check(case):
        # A schema cannot tell a picture from other bytes, or limit a product.
        skipped = [] if case.path not in partly else [positive_data_acceptance]
        response = case.call_and_validate(excluded_checks=skipped)
        statuses.add((case.path, response.status_code))

      check()
  assert len({path for path, _ in statuses}) == 5
  assert {200, 404, 422} <= {status for _, status in statuses}
