"""install.sh is a shell script whatever address the settings take for the gateway's."""

from __future__ import annotations

import shutil
import string
import subprocess
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jetway.entry.http.packages import install_commands
from jetway.entry.http.system import installer
from jetway.settings import HttpSettings

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
HOSTILE = [
    "'",
    '"',
    "`",
    "$(exit 7)",
    "${IFS}",
    ";",
    "&",
    "|",
    "\\",
    "!",
    "*",
    "(",
    "<",
    "@{gateway}",
    "%s",
    "-e",
]
URLS = st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "https"]),
    st.lists(
        st.sampled_from(HOSTILE)
        | st.text(string.ascii_letters + string.digits + ".-:[]@", min_size=1, max_size=9),
        min_size=1,
        max_size=4,
    ).map("".join),
    st.just("")
    | st.lists(st.sampled_from(HOSTILE) | st.text(max_size=5), max_size=4).map(lambda p: "/" + "".join(p)),
)


def taken(url: str) -> bool:
    try:
        HttpSettings(public_url=url)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60)
@given(URLS)
@example("http://x'/$(exit 7)`exit 7`\"\\")
@example("https://gateway.example/a/'b'")
def test_the_script_knows_exactly_the_address_that_was_set(shell: str, url: str) -> None:
    assume(taken(url))
    script = installer(url).decode()
    assert script.count('\nmain "$@"\n') == 1
    shown = script.replace('\nmain "$@"\n', '\nprintf %s "$gateway"\n')
    for text, flags in ((script, ["-n"]), (shown, ["-eu"])):
        done = subprocess.run(
            [shell, *flags], input=text.encode(), capture_output=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == b""
    assert done.stdout.decode() == url


# Most of what is drawn is no address.
@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(st.text() | URLS | st.text().map(lambda rest: f"https://x/{rest}"))
def test_what_is_taken_can_be_taken_apart_and_carried(url: str) -> None:
    assume(url and taken(url))
    assert url.isascii()
    assert url.isprintable()
    assert urlsplit(url).hostname
    assert urlsplit(url).port != 0
    assert "\n" not in install_commands(url, "x").shell
