"""Reading API keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.datastructures import Headers

from service.errors import Unauthorized
from service.http.api_keys import ApiKeys
from service.settings import Settings, SettingsError

TOKEN = st.text("abcXYZ019!#$%&'*+.^_`|~-", min_size=16, max_size=40)
"""What RFC 9110 calls a token: what a WebSocket subprotocol may consist of."""


@pytest.mark.parametrize(
    "entries",
    [
        "short:key-1234567",
        "camera:key-with-blanks and more",
        "camera:key-with-a-slash/0123456789",
        "camera:key-with-umlaut-ü0123456789",
        "key-without-a-name-0123",
        ":key-without-a-name-0123",
        "a b:key-1234567890abcdef",
        "a:key-1234567890abcdef,b:key-1234567890abcdef",
        "a:key-1234567890abcdef,a:key-1234567890abcdeg",
        " , ",
    ],
)
def test_entries_that_are_not_valid_are_refused_and_not_repeated(entries: str) -> None:
    with pytest.raises(SettingsError, match="expected") as refused:
        ApiKeys(Settings(api_keys=SecretStr(entries)))
    assert "key-" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"", "at least one"), (b"# only this\n", "at least one"), (b"\xff\xfe", "UTF-8"), (b"\n\na:short\n", "line 3")],
)
def test_a_file_that_is_not_valid_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=named) as refused:
        ApiKeys(Settings(api_keys_file=path))
    assert str(path) in str(refused.value)
    with pytest.raises(SettingsError, match="No such file"):
        ApiKeys(Settings(api_keys_file=tmp_path / "none"))


def test_a_file_of_windows_with_comments_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes("\ufeff# Keys\r\n  # of ours\r\n\r\na:#is-a-token-0123456789\r\n".encode())
    found = ApiKeys(Settings(api_keys_file=path)).identify(Headers({"X-API-Key": "#is-a-token-0123456789"}))
    assert found is not None
    assert found.name == "a"


@given(st.lists(TOKEN, min_size=1, max_size=4, unique=True), TOKEN, st.booleans())
def test_a_key_opens_if_and_only_if_it_is_listed(keys: list[str], other: str, bearer: bool) -> None:
    entries = ",".join(f"name-{i}:{key}" for i, key in enumerate(keys))
    accepted = ApiKeys(Settings(api_keys=SecretStr(entries)))
    for key in (*keys, other):
        headers = Headers({"Authorization": f"Bearer {key}"} if bearer else {"X-API-Key": key})
        if key in keys:
            found = accepted.identify(headers)
            assert found is not None
            assert found.name == f"name-{keys.index(key)}"
            assert accepted.accepts(found)
        else:
            with pytest.raises(Unauthorized):
                accepted.identify(headers)


def test_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys are compared, by the function that takes the same time for each."""
    compared = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return given == known

    keys = ApiKeys(Settings(api_keys=SecretStr(",".join(f"name-{i}:key-{i}-0123456789" for i in range(5)))))
    monkeypatch.setattr("service.http.api_keys.hmac.compare_digest", compare)
    keys.identify(Headers({"X-API-Key": "key-0-0123456789"}))
    assert len(compared) == 5
    assert {len(it) for pair in compared for it in pair} == {32}
