"""Pages of other origins can read the permitted responses, including errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import ValidationError

from {{cookiecutter.package_name}}.foundation.application import create_service
from {{cookiecutter.package_name}}.foundation.database.session import engines_of

from ..databases import Databases
from ..fixtures import make_settings
from ..sample import catalogue, samples

PAGE = "https://app.example.com"
LISTED = f"{PAGE}, http://localhost:3000"


def build(databases: Databases, **changes: object) -> Flask:
    """Return the service with CORS."""
    settings = make_settings(databases.sampled(), trusted_hosts="localhost", **changes)
    return create_service(__name__, settings, features=[samples.bp, catalogue.bp])


@pytest.fixture(scope="module")
def listed(own_databases: Databases) -> Iterator[FlaskClient]:
    """A client of a service with two permitted origins."""
    app = build(own_databases, cors_origins=LISTED)
    yield app.test_client()
    for engine in engines_of(app):
        engine.dispose()


REQUESTS = {
    "a success": ("GET", "/samples", {}, 200),
    "an unknown path": ("GET", "/nowhere", {}, 404),
    "a wrong method": ("DELETE", "/samples", {}, 405),
    "no user": ("POST", "/catalogue/me", {}, 401),
    "an unknown host": ("GET", "/samples", {"Host": "evil.example"}, 400),
    "no JSON": ("POST", "/samples", {"Content-Type": "application/json"}, 400),
    "no body": ("POST", "/samples", {}, 415),
    "a probe": ("GET", "/livez", {}, 200),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_a_listed_page_may_read_every_response(listed: FlaskClient, name: str, origin: str) -> None:
    """Every response to a page of a listed origin names that origin, including errors."""
    method, path, headers, status = REQUESTS[name]

    response = listed.open(path, method=method, headers={"Origin": origin, **headers})

    assert response.status_code == status
    assert response.headers.get_all("Access-Control-Allow-Origin") == [origin]
    assert "Origin" in response.headers.get_all("Vary")
    assert "ETag" in response.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in response.headers


OTHERS = [
    "https://evil.example",
    "https://app.example.com.evil.example",
    "null",
    f"{PAGE}/",
    "http://app.example.com",
]
OTHERS += ["HTTPS://APP.EXAMPLE.COM", f"{PAGE}:8443", "*", "", LISTED]


@pytest.mark.parametrize("origin", OTHERS)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_another_page_may_read_nothing(listed: FlaskClient, origin: str, method: str) -> None:
    """No response permits anything to a page of another origin, and caches distinguish the origins."""
    headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}

    response = listed.open("/samples", method=method, headers=headers)

    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
    assert "Origin" in response.headers.get_all("Vary")


def test_a_preflight_precedes_everything(listed: FlaskClient) -> None:
    """A preflight needs no authentication, and allows the methods and headers of the API."""
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,if-match",
    }

    response = listed.options("/catalogue/me", headers=headers)

    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Methods"] == "DELETE, GET, HEAD, PATCH, POST, PUT"
    assert response.headers["Access-Control-Allow-Headers"] == "authorization,if-match"
    assert response.headers["X-Request-ID"]


@pytest.mark.parametrize("names", ["a b", "a;b", "é", "a,,b", "a" + ",b" * 3 + ","])
def test_a_preflight_repeats_only_names(listed: FlaskClient, names: str) -> None:
    """Text that is not a header name is not repeated."""
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": names,
    }

    response = listed.options("/samples", headers=headers)

    assert response.status_code == 204
    assert "Access-Control-Allow-Headers" not in response.headers


def test_options_without_a_preflight_reach_the_service(listed: FlaskClient) -> None:
    """Flask answers OPTIONS requests that are not preflights."""
    response = listed.options("/samples", headers={"Origin": PAGE})

    assert response.status_code == 200
    assert "POST" in response.headers["Allow"]


def test_every_origin_may_be_allowed(own_databases: Databases) -> None:
    """With * every page may read responses."""
    app = build(own_databases, cors_origins="*")

    response = app.test_client().get("/samples", headers={"Origin": "https://any.example"})

    assert response.headers["Access-Control-Allow-Origin"] == "*"
    for engine in engines_of(app):
        engine.dispose()


def test_credentials_may_be_allowed(own_databases: Databases) -> None:
    """With CORS_CREDENTIALS pages of listed origins may send cookies."""
    app = build(own_databases, cors_origins=PAGE, cors_credentials=True)

    response = app.test_client().get("/samples", headers={"Origin": PAGE})

    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    for engine in engines_of(app):
        engine.dispose()


def test_it_is_off_by_default(client: FlaskClient) -> None:
    """Without CORS_ORIGINS no response has a CORS header."""
    response = client.get("/samples", headers={"Origin": PAGE})

    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


WRONG = [
    "app.example.com",
    f"{PAGE}/",
    f"{PAGE}/path",
    "HTTPS://App.example.com",
    f"{PAGE}:443",
    "null",
    f"{PAGE},",
]
WRONG += ["http://localhost:80", "https://*.example.com", f"*,{PAGE}", "ftp://example.com", f"{PAGE} {PAGE}"]


@pytest.mark.parametrize("origins", WRONG)
def test_an_origin_that_no_browser_sends_is_refused(origins: str) -> None:
    """A list with an origin that no browser sends is rejected."""
    with pytest.raises(ValidationError, match=r"origin"):
        make_settings("sqlite:////tmp/x.db", cors_origins=origins)


def test_every_origin_with_credentials_is_refused() -> None:
    """With * no page may send cookies."""
    with pytest.raises(ValidationError, match=r"list the origins"):
        make_settings("sqlite:////tmp/x.db", cors_origins="*", cors_credentials=True)
